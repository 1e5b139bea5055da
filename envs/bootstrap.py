"""Makes .venv from the hashed lock, or reuses it: `python3 envs/bootstrap.py` (`make` calls it).

Standard library only, in syntax that Python 3.6 reads: whichever python3 a newcomer has starts it, and
it looks for one that the target can live on. A finished environment carries bevrepro-env.json, written
last: without it .venv is half made and is built again.
Exit codes: 0 done, 2 wrong usage, 3 this machine or its package index, 8 disk, 130 Ctrl-C.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time

import interpreters
from installing import LOG, Stop, explain, install_torch, logged, pip, python_of
from target_file import ENVS, ROOT, read_target, sha256_of

VENV = os.path.join(ROOT, ".venv")
STAMP = "bevrepro-env.json"


def say(text, end="\n"):
    sys.stdout.write(text + end)
    sys.stdout.flush()


class Phase:
    """Prints `what ... 12.3 s` around a step."""

    def __init__(self, what):
        self.what = what

    def __enter__(self):
        self.start_s = time.time()
        say("  %-50s" % self.what, end=" ")

    def __exit__(self, kind, error, trace):
        say("%5.1f s" % (time.time() - self.start_s) if kind is None else "failed")


def wanted_digests(target_name):
    """What decides whether the packages in .venv are still the right ones."""
    _, locks = read_target(target_name)
    return {os.path.relpath(path, ENVS).replace(os.sep, "/"): sha256_of(path) for path in locks}


def read_stamp(venv):
    """bevrepro-env.json; None where there is none or it cannot be read."""
    try:
        with open(os.path.join(venv, STAMP), encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return None


def write_stamp(venv, stamp):
    temporary = os.path.join(venv, STAMP + ".tmp")
    with open(temporary, "w", encoding="utf-8") as stream:
        json.dump(stamp, stream, indent=2, sort_keys=True)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, os.path.join(venv, STAMP))


def reusable(venv, target_name, python=None):
    """The stamp of a .venv that still fits the locks, its place and its interpreter; else None."""
    stamp = read_stamp(venv)
    if stamp is None or stamp.get("locks") != wanted_digests(target_name) or stamp.get("venv") != venv:
        return None
    if python is not None and stamp.get("python") != python["version"]:
        return None
    command = [python_of(venv), "-I", "-c", "import platform; print(platform.python_version())"]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return stamp if done.stdout.decode().strip() == stamp.get("python") else None


def choose_python(order, asked=None):
    """The interpreter to build on.  Stop with a sentence that names what to install."""
    either = ", ".join(order[:-1]) + " or " + order[-1]
    if asked:
        seen = interpreters.probe(shutil.which(asked) or asked)
        why = "does not start as a Python interpreter" if seen is None else interpreters.judge(seen, order)
        if why:
            first = "%s %s; bevrepro needs 64-bit CPython %s." % (asked, why, either)
            raise Stop(first, advice(order, [seen] if seen else []))
        return seen
    seen, refused = interpreters.find(order)
    if seen is None:
        others = "".join("\n  %s %s" % (other["path"], interpreters.judge(other, order)) for other in refused)
        raise Stop("No usable Python %s was found on this machine." % either + others, advice(order, refused))
    return seen


def advice(order, refused):
    """What to install; a Python that lacks only Debian's split-off parts comes first."""
    lines = ["Install one, then run the same command again. Any of these will do:"]
    for version in [interpreters.minor_of(seen) for seen in refused if seen["missing"]]:
        if version in order:
            lines.append("  apt-get install python%s-venv     (as root)" % version)
    lines += [
        "  apt-get install python{0} python{0}-venv     (Debian, Ubuntu; as root)",
        "  dnf install python{0}     (Fedora, RHEL; as root)",
        "  uv python install {0}     (no root)",
        "  pyenv install {0}     (no root, compiles)",
    ]
    return "\n".join(lines).format(order[0])


def make_room(venv, needs_gib):
    """Removes a half-made or outdated .venv of ours, leaves anything else alone, checks the disk."""
    ours = os.path.isfile(os.path.join(venv, LOG)) and not os.path.islink(venv)
    empty = os.path.isdir(venv) and not os.listdir(venv)
    if os.path.lexists(venv) and not ours and not empty:
        do = "Move it away, or remove it with: make clean"
        raise Stop("%s was not made by this program, so it is left alone." % venv, do)
    if ours:
        with Phase("removing the %s one" % ("outdated" if read_stamp(venv) else "half-made")):
            shutil.rmtree(venv)
    folder = os.path.dirname(venv)
    free_gib = shutil.disk_usage(folder).free / 2.0**30
    if free_gib < needs_gib:
        seen = "%.1f GiB are free in %s; the environment needs %.1f." % (free_gib, folder, needs_gib)
        raise Stop(seen, "Free some space, then run the same command again.", 8)
    os.makedirs(venv, exist_ok=True)
    with open(os.path.join(venv, LOG), "w", encoding="utf-8"):
        pass


def build(venv, target_name, python):
    """Everything from an empty folder up to the project itself.  Returns the stamp's content."""
    target, (main_lock, torch_lock) = read_target(target_name)
    make_room(venv, target["disk"]["needs_gib"])
    with Phase("virtual environment on Python %s" % python["version"]):
        status, text = logged(venv, [python["path"], "-I", "-m", "venv", venv])
        if status:
            raise explain(venv, text)
    # torch first: where it cannot be had, that is known within seconds.
    with Phase(target["torch"]["requirement"]):
        torch = install_torch(venv, target["torch"], torch_lock, python)
    if not torch["hashed"]:
        pinned = " and ".join(wheel["python"] for wheel in target["torch"]["wheel"])
        say("  torch was installed without a hash: only Python %s's is locked." % pinned)
    with Phase("packages, each checked against its hash"):
        pip(venv, "--require-hashes", "--only-binary", ":all:", "-r", main_lock)
    return {
        "target": target_name,
        "venv": venv,
        "python": python["version"],
        "platform": python["platform"],
        "verified": python["platform"] in target["platform"]["verified"],
        "locks": wanted_digests(target_name),
        "torch": torch,
        "patches": [],
    }


def install_project(venv, stamp):
    """The project itself, editable; again whenever pyproject.toml changed.  The stamp comes last."""
    digest = sha256_of(os.path.join(ROOT, "pyproject.toml"))
    if stamp.get("project") == digest:
        return False
    with Phase("bevrepro itself, editable"):
        pip(venv, "--no-build-isolation", "--editable", ROOT)
    stamp.update(project=digest, made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    write_stamp(venv, stamp)
    return True


def set_up(target_name="cpu", asked=None, venv=VENV):
    """Reuses or builds the environment.  Prints nothing when there was nothing to do."""
    target, _ = read_target(target_name)
    python = choose_python(target["python"]["order"], asked) if asked else None
    stamp = reusable(venv, target_name, python)
    start_s = time.time()
    if stamp is None:
        python = python or choose_python(target["python"]["order"])
        say("Setting up %s with %s (once, about a minute)" % (venv, python["path"]))
        if python["platform"] not in target["platform"]["verified"]:
            known = ", ".join(target["platform"]["verified"])
            say("  %s is unverified: this was only ever run on %s." % (python["platform"], known))
        stamp = build(venv, target_name, python)
    if install_project(venv, stamp):
        say("Ready after %.0f s." % (time.time() - start_s))
    return stamp


def one_at_a_time(work):
    """A second `make` in the same checkout waits for the first, then reuses what it made."""
    import fcntl  # not there on Windows

    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError:  # some network file systems have no locks: go on without
            pass
        return work()


def main(argv):
    names = sorted(name[:-5] for name in os.listdir(os.path.join(ENVS, "targets")) if name.endswith(".toml"))
    # Only a target with dependency groups holds bevrepro itself; `bevrepro env build` makes the others.
    known = [name for name in names if "groups" in read_target(name)[0]["requirements"]]
    parser = argparse.ArgumentParser(description="Make .venv from the hashed lock, or reuse it.")
    parser.add_argument("--python", metavar="PATH", help="build on this interpreter and no other")
    parser.add_argument("--target", default="cpu", choices=known, help="default: cpu")
    options = parser.parse_args(argv)
    try:
        if os.name != "posix":
            raise Stop("bevrepro runs on Linux.", "On Windows use WSL 2: wsl --install, then again in there.")
        one_at_a_time(lambda: set_up(options.target, options.python))
    except Stop as stop:
        sys.stderr.write("\n%s\n%s\n" % (stop.seen, stop.do))
        return stop.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted: .venv is not finished; the same command builds it again.\n")
        return 130
    except OSError as error:
        sys.stderr.write("\n%s: %s\n" % (error.filename or "The disk", error.strerror))
        return 8
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
