"""Resolves a target into its hashed lock: `make lock`, or compares the two: `make lock-check`.

    python envs/lock.py [TARGET ...] [--check] [--upgrade]

Pins that still satisfy the target are kept unless --upgrade is given. The files name no package index,
so any mirror serves them. Needs uv, which the environment itself brings.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

from target_file import ENVS, ROOT, lock_paths, read_target

HEADER = "# Made by envs/lock.py from envs/targets/%s.toml and pyproject.toml. Do not edit: `make lock`.\n"


def requirements_of(target, project):
    """Every requirement the main lock has to satisfy: the target's, torch's own, the project's."""
    wanted = list(target["requirements"]["model"]) + list(target["torch"]["requires"])
    wanted += project["project"]["dependencies"]
    for group in target["requirements"]["groups"]:
        wanted += project["dependency-groups"][group]
    return sorted(set(wanted))


def limits_of(target):
    """(lowest Python, marker that keeps later ones from being resolved too)."""
    minors = sorted(int(version.split(".")[1]) for version in target["python"]["order"])
    return "3.%d" % minors[0], "python_full_version < '3.%d'" % (minors[-1] + 1)


def with_marker(requirement, marker):
    name, _, own = requirement.partition(";")
    return "%s; %s" % (name.strip(), "(%s) and %s" % (own.strip(), marker) if own else marker)


def resolve(target, project, old_lock, upgrade):
    """The text of the main lock, starting from the pins of the old one."""
    lowest, marker = limits_of(target)
    uv = shutil.which("uv", path=os.path.dirname(sys.executable)) or shutil.which("uv")
    if uv is None:
        sys.exit("uv was not found, and only uv resolves for several Pythons at once. Run: make venv")
    with tempfile.TemporaryDirectory() as folder:
        source, result = os.path.join(folder, "in.txt"), os.path.join(folder, "out.txt")
        with open(source, "w", encoding="utf-8") as stream:
            stream.writelines(with_marker(line, marker) + "\n" for line in requirements_of(target, project))
        if os.path.exists(old_lock):
            shutil.copyfile(old_lock, result)
        command = [uv, "pip", "compile", "--quiet", "--universal", "--python-version", lowest]
        command += ["--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--no-header"]
        command += ["--no-annotate", source, "--output-file", result] + ["--upgrade"] * upgrade
        done = subprocess.run(command)
        if done.returncode:
            sys.exit("uv could not resolve the target %s (above)." % target["name"])
        with open(result, encoding="utf-8") as stream:
            return HEADER % target["name"] + stream.read()


def torch_lock(target):
    """The text of torch's lock: the exact build, with a hash where one is known."""
    lines = [HEADER % target["name"], "# Installed without dependencies; they are in the other lock.\n"]
    for wheel in target["torch"]["wheel"]:
        lines.append("# Python %s, %s\n" % (wheel["python"], wheel["platform"]))
    hashes = "".join(" \\\n    --hash=sha256:" + wheel["sha256"] for wheel in target["torch"]["wheel"])
    return "".join(lines) + target["torch"]["requirement"] + hashes + "\n"


def write(path, text):
    temporary = path + ".tmp"
    with open(temporary, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def differs(path, text):
    if not os.path.exists(path):
        return True
    with open(path, encoding="utf-8") as stream:
        return stream.read() != text


def main(argv):
    parser = argparse.ArgumentParser(description="Resolve targets into hashed locks.")
    parser.add_argument("targets", nargs="*", default=["cpu"])
    parser.add_argument(
        "--check", action="store_true", help="write nothing, exit 1 where lock and target differ"
    )
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions the target allows")
    options = parser.parse_args(argv)
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as stream:
        project = tomllib.load(stream)
    stale = []
    for name in options.targets:
        target, _ = read_target(name)
        main_path, torch_path = lock_paths(name)
        texts = {
            main_path: resolve(target, project, main_path, options.upgrade),
            torch_path: torch_lock(target),
        }
        stale += [path for path, text in texts.items() if differs(path, text)]
        for path, text in texts.items():
            if not options.check:
                write(path, text)
    for path in stale:
        print(
            "%s %s" % ("differs from its target:" if options.check else "wrote", os.path.relpath(path, ENVS))
        )
    if not stale:
        print("The locks match their targets.")
    elif options.check:
        print("Run: make lock")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
