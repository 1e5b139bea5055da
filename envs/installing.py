"""Runs pip inside the new environment, quietly, and says in a sentence why it failed."""

import os
import re
import subprocess

from interpreters import minor_of
from target_file import ROOT

LOG = "bootstrap.log"


class Stop(Exception):
    """What was seen and what to do about it; ends the program with its exit code."""

    def __init__(self, seen, do="", exit_code=3):
        super().__init__(seen)
        self.seen, self.do, self.exit_code = seen, do, exit_code


# What pip wrote -> what it means, what to do, exit code. The first that matches counts.
CAUSES = [
    (
        r"DO NOT MATCH THE HASHES",
        "A package is not the one that was locked: its sha256 differs. Nothing of it was installed.",
        "A mirror, a local folder or a proxy serves another file under this name (`pip config list` shows\n"
        "where pip looks). Ask another index, then run the same command again.",
        3,
    ),
    (
        r"No space left on device|Disk quota exceeded",
        "The disk is full.",
        "Free some space (in TMPDIR too), then run the same command again.",
        8,
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        "The package index's certificate was not accepted.",
        "Behind a company's proxy: pip config set global.cert /path/to/its/ca.pem",
        3,
    ),
    (
        r"establish a new connection|Failed to resolve|Connection refused|Read timed out|ProxyError",
        "The package index cannot be reached.",
        "Connect to the network, or point pip to a mirror or a folder of wheels (`pip config list` shows\n"
        "where it looks now), then run the same command again.",
        3,
    ),
    (
        r"No matching distribution found",
        "The package index that pip is configured with lacks a locked package, or did not answer.",
        "Check the network, or point pip to a complete mirror (`pip config list` shows where it looks\n"
        "now), then run the same command again.",
        3,
    ),
]
UNREACHABLE, ABSENT = CAUSES[3], CAUSES[4]


def python_of(venv):
    return os.path.join(venv, "bin", "python")


def logged(venv, command):
    """Runs a command into the log.  Returns (exit status, what it wrote)."""
    path = os.path.join(venv, LOG)
    with open(path, "ab") as log:
        log.write(("\n$ %s\n" % " ".join(command)).encode("utf-8"))
        log.flush()
        start = log.tell()
        environ = clean_environment(os.environ)
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
        status = subprocess.call(command, cwd=ROOT, env=environ, **streams)
    with open(path, "rb") as log:
        log.seek(start)
        return status, log.read().decode("utf-8", "replace")


def clean_environment(environ):
    """The user's own, with their index settings, without what would send packages somewhere else."""
    places = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "PYTHONPATH", "PYTHONHOME")
    rules = ("PIP_CONSTRAINT", "PIP_REQUIREMENT", "PIP_REQUIRE_HASHES", "PIP_NO_BINARY", "PIP_DRY_RUN")
    kept = {name: value for name, value in environ.items() if name not in places + rules}
    kept.update(PIP_USER="0", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", LC_ALL="C.UTF-8")
    return kept


def try_pip(venv, *arguments):
    """(exit status, what pip wrote)."""
    command = [python_of(venv), "-I", "-m", "pip", "install", "--progress-bar", "off", "--no-deps"]
    return logged(venv, command + list(arguments))


def pip(venv, *arguments):
    """pip install; Stop with the reason and the end of its log when it fails."""
    status, text = try_pip(venv, *arguments)
    if status:
        raise explain(venv, text)


def explain(venv, text):
    """The Stop for a failed command, with the last lines of what it wrote."""
    meaning = [cause[1:] for cause in CAUSES if re.search(cause[0], text)]
    seen, do, exit_code = meaning[0] if meaning else ("The command failed.", "", 3)
    lines = [line for line in text.strip().splitlines() if not line.startswith("Ignoring ")]
    tail = "".join("\n  | " + line for line in lines[-8:])
    return Stop(seen + tail, (do + "\nThe whole log: %s" % os.path.join(venv, LOG)).strip(), exit_code)


def install_torch(venv, torch, lock, python):
    """Exactly the target's build: from where pip is configured, else from PyTorch's own index.

    torch is the target's table; python is what interpreters.probe returned.
    Returns {"requirement", "source", "hashed"}.  Never plain torch: that would bring gigabytes of CUDA.
    """
    minor = minor_of(python)
    hashed = any(
        (wheel["python"], wheel["platform"]) == (minor, python["platform"]) for wheel in torch["wheel"]
    )
    what = ["--require-hashes", "-r", lock] if hashed else [torch["requirement"]]
    sources = [
        ("pip's own configuration", []),
        (torch["index"], ["--index-url", torch["index"], "--retries", "1", "--timeout", "60"]),
    ]
    for source, options in sources:
        status, text = try_pip(venv, "--only-binary", ":all:", *(options + what))
        if status == 0:
            return {"requirement": torch["requirement"], "source": source, "hashed": hashed}
        if explain(venv, text).seen.splitlines()[0] not in (UNREACHABLE[1], ABSENT[1]):
            raise explain(venv, text)
    raise Stop(
        "%s for Python %s on %s is neither where pip looks here nor to be had from %s."
        % (torch["requirement"], minor, python["platform"], torch["index"]),
        "Connect to the network; or download that wheel elsewhere and name its folder to pip:\n"
        "  pip config set global.find-links FOLDER\nThe whole log: %s" % os.path.join(venv, LOG),
    )
