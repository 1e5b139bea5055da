"""Run tests inside an environment's interpreter, without changing the environment.

    .venv/bin/python tests/openmmlab/inside.py TARGET [PYTEST'S WORDS]

pytest lies in a folder of its own (tools.txt, by hash), first on the path; what it needs comes last, so that
the environment's own packages win. Everything else is as `bevrepro env run --target TARGET` has it.
"""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

from bevrepro.core.paths import cache_dir, model_dir
from bevrepro.env import layout
from bevrepro.env.receipt import read_receipt
from bevrepro.env.run import variables

HERE = Path(__file__).resolve().parent
FIRST = ("pytest", "pluggy", "iniconfig", "pytest-xdist", "execnet")
BOOT = "import sys; sys.path.append(sys.argv.pop(1)); import pytest; sys.exit(pytest.main())"


def tools(python: Path, version: str) -> Path:
    """A folder with pytest for this version of Python; installed on first use, whole or not at all.

    `first` holds the test runner, `last` what it needs and the environment may have in another version.
    """
    text = (HERE / "tools.txt").read_text(encoding="utf-8")
    place = cache_dir() / "test-tools" / (version + "-" + hashlib.sha256(text.encode()).hexdigest()[:12])
    if place.is_dir():
        return place
    beside = place.with_name("%s.%d.new" % (place.name, os.getpid()))
    beside.mkdir(parents=True)
    blocks = re.findall(r"^[a-z][^\n]*\n(?: [^\n]*\n)+", text, re.MULTILINE)
    for part in ("first", "last"):
        chosen = [each for each in blocks if (each.split("==")[0] in FIRST) == (part == "first")]
        wanted = beside / (part + ".txt")
        wanted.write_text("".join(chosen), encoding="utf-8")
        words = ["--python", python, "--target", beside / part, "--no-deps", "--require-hashes", "-r", wanted]
        subprocess.run([sys.executable, "-m", "uv", "pip", "install", "-q", *words], check=True)
    try:
        beside.rename(place)
    except OSError:  # another run was faster
        if not place.is_dir():
            raise
    return place


def main(argv: "list[str]") -> None:
    """Become pytest in the environment of the first word."""
    target, words = argv[0], argv[1:]
    if not any(os.path.exists(word.split("::")[0]) for word in words):
        words = [*words, str(HERE)]
    build = layout.real(None, target)
    receipt = read_receipt(build)
    env = variables(receipt, build)
    python = build / "bin/python"
    folder = tools(python, ".".join(receipt.python["version"].split(".")[:2]))
    paths = [str(folder / "first"), str(model_dir()), env.get("PYTHONPATH")]
    env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    # No cache of results, which would mix with .venv's, and no warnings about other people's old code.
    options = ["-m", "openmmlab", "-p", "no:cacheprovider", "-W", "ignore::DeprecationWarning"]
    os.execve(python, [str(python), "-c", BOOT, str(folder / "last"), *options, *words], env)


if __name__ == "__main__":
    main(sys.argv[1:])
