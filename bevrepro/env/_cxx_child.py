"""Stands for the C++ compiler: compiles the header that every file begins with once, and then uses that.

`python _cxx_child.py FOLDER HEADER COMPILER ARGUMENT ...`. One set of flags has one precompiled header in
FOLDER. Where the header does not compile alone, the compiler runs as if this were not here. Standard
library only, Python 3.8 syntax: it runs in the target interpreter.
"""
# ruff: noqa: UP006, UP035, UP045

import fcntl
import hashlib
import os
import sys
from typing import List, Optional, Tuple

SOURCES = (".cpp", ".cc", ".cxx")
WITH_VALUE = ("-o", "-MF", "-MT", "-MQ")  # of the single file, not of the header
SINGLE = ("-c", "-MMD", "-MD", "-MP")
LOOKED_UP = ("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX")  # by gcc


def flags_of(arguments: List[str]) -> Tuple[List[str], List[str]]:
    """(sources, the flags that hold for all files)."""
    sources, flags, skip = [], [], False
    for each in arguments:
        if skip:
            skip = False
        elif each in WITH_VALUE:
            skip = True
        elif each.endswith(SOURCES) and not each.startswith("-"):
            sources.append(each)
        elif each not in SINGLE:
            flags.append(each)
    return sources, flags


def header_for(folder: str, header: str, compiler: str, flags: List[str]) -> Optional[str]:
    """The path of a header whose precompiled form lies beside it; None where it cannot be made."""
    places = [name + "=" + os.environ[name] for name in LOOKED_UP if name in os.environ]
    name = hashlib.sha256("\0".join([header, compiler, *flags, *places]).encode()).hexdigest()[:16]
    place = os.path.join(folder, name + ".h")
    with open(os.path.join(folder, name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # ninja starts several at once
        if not os.path.exists(place + ".gch") and not os.path.exists(place + ".failed"):
            with open(place, "w") as stream:
                stream.write("#include <" + header + ">\n")
            command = [compiler, *flags, "-x", "c++-header", place, "-o", place + ".part"]
            if _quietly(command) == 0:
                os.replace(place + ".part", place + ".gch")
            else:
                open(place + ".failed", "w").close()
    return place if os.path.exists(place + ".gch") else None


def _quietly(command: List[str]) -> int:
    mute = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    child = os.posix_spawnp(command[0], command, os.environ, file_actions=mute)
    return os.waitpid(child, 0)[1]


def main(argv: List[str]) -> None:
    """Become the compiler."""
    folder, header, compiler, arguments = argv[0], argv[1], argv[2], argv[3:]
    sources, flags = flags_of(arguments)
    if "-c" in arguments and len(sources) == 1:
        place = header_for(folder, header, compiler, flags)
        if place:
            arguments = ["-include", place, *arguments]
    os.execvp(compiler, [compiler, *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
