"""Finds a Python that the target can live on.  Python 3.6 syntax: it runs before anything is known."""

import glob
import json
import os
import subprocess
import sys

# Run inside a candidate. `venv` and `ensurepip` are what Debian splits into another package.
PROBE = """
import json, platform, struct, sys
missing = []
for name in ("venv", "ensurepip", "ssl", "zlib"):
    try:
        __import__(name)
    except ImportError:
        missing.append(name)
base = getattr(sys, "_base_executable", None) or sys.executable
print(json.dumps({"path": base, "version": platform.python_version(), "missing": missing,
                  "implementation": platform.python_implementation(), "bits": 8 * struct.calcsize("P"),
                  "platform": platform.system().lower() + "-" + platform.machine()}))
"""


def probe(path, run=subprocess.run):
    """What the interpreter says of itself, or None where it does not start (a pyenv shim, say)."""
    try:
        done = run([path, "-I", "-c", PROBE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30)
        return json.loads(done.stdout.decode("utf-8")) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def places(version, environ=os.environ):
    """Paths where a Python of this version may lie, likeliest first; each exists."""
    home = os.path.expanduser("~")
    name = "python" + version
    found = [sys.executable] if sys.executable and version == "%d.%d" % sys.version_info[:2] else []
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        found += [os.path.join(folder, name)] if folder else []
    pyenv = environ.get("PYENV_ROOT") or os.path.join(home, ".pyenv")
    found += _newest_first(os.path.join(pyenv, "versions", version + ".*", "bin", name))
    data = environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    uv = environ.get("UV_PYTHON_INSTALL_DIR") or os.path.join(data, "uv", "python")
    found += _newest_first(os.path.join(uv, "cpython-" + version + ".*", "bin", name))
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        found += [os.path.join(folder, "python3")] if folder else []
    return [path for path in dict.fromkeys(found) if os.access(path, os.X_OK) and os.path.isfile(path)]


def _newest_first(pattern):
    def numbers(path):
        return [
            int(part) if part.isdigit() else -1
            for part in path.replace("-", ".").replace(os.sep, ".").split(".")
        ]

    return sorted(glob.glob(pattern), key=numbers, reverse=True)


def minor_of(seen):
    return ".".join(seen["version"].split(".")[:2])


def judge(seen, versions):
    """Why this interpreter cannot carry the target, as a sentence; "" when it can."""
    if seen["implementation"] != "CPython":
        return "is %s, not CPython" % seen["implementation"]
    if minor_of(seen) not in versions:
        return "is Python %s" % seen["version"]
    if seen["bits"] != 64:
        return "is a %d-bit Python" % seen["bits"]
    if seen["missing"]:
        return "is Python %s without %s" % (seen["version"], " and ".join(seen["missing"]))
    return ""


def find(versions, environ=os.environ, probe=probe):
    """(the first interpreter that will do or None, those that will not), by order of versions."""
    seen_at = {}
    for version in versions:
        for path in places(version, environ):
            if path not in seen_at:
                seen_at[path] = probe(path)
            if seen_at[path] and not judge(seen_at[path], [version]):
                return seen_at[path], []
    refused = {seen["path"]: seen for seen in seen_at.values() if seen}
    return None, list(refused.values())
