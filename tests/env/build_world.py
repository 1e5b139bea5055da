"""A target so small that building it takes a second: packages, lock and self-test made for a test."""

import atexit
import base64
import functools
import hashlib
import io
import json
import os
import select
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
DRIVER = (
    "import sys, pathlib; from bevrepro.core import paths; paths.PACKAGE_DIR = pathlib.Path(sys.argv.pop(1));"
    "from bevrepro.cli import main; sys.exit(main())"
)
SELFTEST = """
import json, os, sys
for name in sys.argv[1:]:
    if os.environ.get("FAKE_DIES"):
        os.kill(os.getpid(), int(os.environ["FAKE_DIES"]))
    import alpha
    ok = not os.environ.get("FAKE_FAILS")
    print(json.dumps({"name": name, "ok": ok, "seconds": 0.0, "said": "alpha %s" % alpha.answer}))
"""
SETUP = "from setuptools import setup\nsetup(name={name!r}, version={version!r}, py_modules=[{name!r}])\n"
# Builds a wheel with nothing but the standard library, as a backend inside the sdist.
BACKEND = """
import base64, hashlib, os, zipfile
def build_wheel(out, settings=None, metadata=None):
    name, version = {name!r}, {version!r}
    if os.environ.get("BACKEND_FAILS"):
        raise SystemExit("tool.cpp:3: fatal error: nothing.h: not found")
    info = "%s-%s.dist-info" % (name, version)
    files = {{name + ".py": open(name + ".py").read() + "built_with = %r\\n" % os.environ.get("MAX_JOBS"),
             info + "/METADATA": "Metadata-Version: 2.1\\nName: %s\\nVersion: %s\\n" % (name, version),
             info + "/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"}}
    for each in os.listdir(name) if os.path.isdir(name) else ():
        files[name + "/" + each] = open(name + "/" + each).read()
    if name + "/__init__.py" in files:
        del files[name + ".py"]
    rows = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append("%s,sha256=%s,%d" % (path, digest, len(text)))
    files[info + "/RECORD"] = "\\n".join(rows + [info + "/RECORD,,"]) + "\\n"
    wheel = "%s-%s-py3-none-any.whl" % (name, version)
    with zipfile.ZipFile(os.path.join(out, wheel), "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel
"""


@functools.cache
def forks_with(path):
    """The process that forks the commands; it ends when its input does."""
    command = [sys.executable, Path(__file__).parent / "command_forks.py"]
    env = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    child = subprocess.Popen(
        command, env=env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    atexit.register(child.communicate)
    return child


@dataclass
class World:
    """`root` holds envs/, model/, patches/ and wheels/; `env` is what a command in it needs."""

    root: Path
    env: dict = field(default_factory=dict)

    @property
    def package_dir(self) -> Path:
        return self.root / "bevrepro"

    @property
    def wheels(self) -> Path:
        return self.root / "wheels"

    def argv(self, *words):
        return [sys.executable, "-c", DRIVER, str(self.package_dir), *map(str, words)]

    def start(self, *words, **env):
        """The real command in a process of its own."""
        return subprocess.Popen(
            self.argv(*words), env={**self.env, **env}, cwd=ROOT, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, *words, **env):
        """(exit code, stdout, stderr) of the command, in a fork of one process for all of them."""
        job = {"package": str(self.package_dir), "words": list(map(str, words)), "env": {**self.env, **env}}
        with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
            forks = forks_with(self.env["PYTHONPATH"])
            forks.stdin.write(json.dumps({**job, "out": out.name, "err": err.name}) + "\n")
            forks.stdin.flush()
            assert select.select([forks.stdout], [], [], 120)[0], f"{words} takes more than two minutes"
            return int(forks.stdout.readline()), out.read().decode(), err.read().decode()

    def build(self, prefix, *words, **env):
        return self.run("env", "build", "--target", "tiny", "--prefix", prefix, "--python", sys.executable,
                        *words, **env)  # fmt: skip

    def answer(self, prefix):
        """What alpha says inside the environment; None where there is none."""
        python = Path(prefix) / "bin/python"
        if not python.exists():
            return None
        code = "import alpha; print(alpha.answer)"
        done = subprocess.run([python, "-I", "-B", "-c", code], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else f"broken: {done.stderr[-300:]}"

    def lock(self, *files, name="tiny.txt"):
        """A lock that pins these wheels and sdists."""
        lines = []
        for file in files:
            package, version = file.name.removesuffix(".tar.gz").split("-")[:2]
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            lines.append(f"{package}=={version} \\\n    --hash=sha256:{digest}\n")
        (self.root / "envs/locks" / name).write_text("".join(lines))

    def target(self, extra="", build=""):
        (self.root / "envs/targets/tiny.toml").write_text(
            TARGET.format(python=PYTHON, extra=extra, build=build)
        )


TARGET = """
name = "tiny"
title = "made for a test"
stack = "torch2"
source = "a test"
checked = "2026-11-21"
{extra}
[hardware]
kind = "cpu"
[python]
order = ["{python}"]
[platform]
verified = ["linux-x86_64"]
[disk]
needs_gib = 0.0
[requirements]
model = ["alpha"]
[environment]
TINY = "is set"
{build}
[selftest]
checks = ["torch", "devkit"]
"""


def make_wheel(folder: Path, name: str, version: str, files: dict, script: str | None = None) -> Path:
    """A wheel with these files; `script`: a console script `name` that calls it."""
    info = f"{name}-{version}.dist-info"
    content = dict(files)
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    content[f"{info}/WHEEL"] = (
        "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    if script:
        content[f"{info}/entry_points.txt"] = f"[console_scripts]\n{name} = {script}\n"
    rows = []
    for path, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(text.encode())}\n")
    content[f"{info}/RECORD"] = "".join(rows) + f"{info}/RECORD,,\n"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name_inside, text in content.items():
            archive.writestr(zipfile.ZipInfo(name_inside), text)
    return path


def make_sdist(folder: Path, name: str, version: str, files: dict | None = None) -> Path:
    """An sdist whose own backend needs nothing; `files` are added to it."""
    content = {
        f"{name}.py": "value = 'from source'\n",
        "backend.py": BACKEND.format(name=name, version=version),
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        **(files or {}),
    }
    path = folder / f"{name}-{version}.tar.gz"
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for inside, text in content.items():
            member = tarfile.TarInfo(f"{name}-{version}/{inside}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def make_world(folder: Path, files: int = 30) -> World:
    """alpha (with many files) and beta (with a script), locked; nothing of it needs the network."""
    world = World(folder)
    for name in ("envs/targets", "envs/locks", "patches", "model/bevformer", "bevrepro"):
        (folder / name).mkdir(parents=True)
    (folder / "envs/interpreters.py").symlink_to(ROOT / "envs/interpreters.py")
    (folder / "model/bevformer/__init__.py").touch()
    (folder / "patches/README.md").touch()
    (folder / "envs/slips.toml").write_text("slip = []\n")
    (folder / "model/bevformer/selftest.py").write_text(SELFTEST)
    many = {f"alpha/part{number}.py": f"number = {number}\n" for number in range(files)}
    alpha = make_wheel(world.wheels, "alpha", "1.0", {"alpha/__init__.py": "answer = 'one'\n", **many})
    beta = make_wheel(
        world.wheels, "beta", "2.0", {"beta.py": "def main():\n    print('beta')\n"}, "beta:main"
    )
    world.target()
    world.lock(alpha, beta)
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ}
    world.env = {
        **kept,
        "BEVREPRO_DATA": str(folder / "data"),
        "BEVREPRO_CACHE": str(folder / "cache"),
        "UV_CACHE_DIR": str(folder / "uv"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(world.wheels),
        "UV_PYTHON_DOWNLOADS": "never",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return world


def newer_alpha(world: World) -> None:
    """A lock with alpha 1.1, whose answer is another: the next environment."""
    alpha = make_wheel(world.wheels, "alpha", "1.1", {"alpha/__init__.py": "answer = 'two'\n"})
    world.lock(alpha, world.wheels / "beta-2.0-py3-none-any.whl")


def receipt(prefix) -> dict:
    return json.loads((Path(prefix) / "bevrepro-env.json").read_text())
