"""Who walks from archives to a score: this user or an unprivileged one, with folders of their own."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
NOBODY = 65534
LIMIT_S = 300
PACKAGES = sysconfig.get_path("purelib")  # for a system Python, which has none of its own
PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "model"), PACKAGES])


@dataclass(frozen=True)
class Walker:
    """Runs programs as `uid` (None: as we are) with an interpreter they can start; `home` is theirs."""

    home: Path
    uid: int | None
    python: str

    def env(self) -> dict[str, str]:
        given = {"BEVREPRO_BUILDS"} if self.uid is None else set()  # compiled, by the same user
        kept = {key: value for key, value in os.environ.items() if key in given or key[:9] != "BEVREPRO_"}
        own = {
            "HOME": self.home,
            "TMPDIR": self.home / "tmp",
            "MPLCONFIGDIR": self.home / "mpl",
            "BEVREPRO_CACHE": self.home / "cache",
            "BEVREPRO_STATE": self.home / "state",
            "PATH": f"{self.home / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "BEVREPRO_PYTHON": self.python,
            "PYTHONPATH": PYTHONPATH,
        }
        return {**kept, **{key: str(value) for key, value in own.items()}}

    def start(self, argv: list[Any], **options: Any) -> "subprocess.Popen[str]":
        """A program in `home`, both ends of its talk kept."""
        who: dict[str, Any] = {} if self.uid is None else dict(user=self.uid, group=self.uid, extra_groups=[])
        pipes = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return subprocess.Popen(
            [str(word) for word in argv], **{**pipes, **options}, env=self.env(), cwd=self.home, **who
        )

    def run(self, *argv: Any) -> "subprocess.CompletedProcess[str]":
        with self.start(list(argv)) as child:
            out, err = child.communicate(timeout=LIMIT_S)
        return subprocess.CompletedProcess(argv, child.returncode, out, err)

    def bevrepro(self, *words: Any, rc: int = 0) -> str:
        """stdout of the command line; AssertionError with all of its talk when it ends otherwise."""
        done = self.run(self.python, "-m", "bevrepro", *words)
        assert done.returncode == rc, f"{words}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    def json(self, *words: Any) -> Any:
        return json.loads(self.bevrepro(*words, "--json"))


def walker(home: Path, unprivileged: bool) -> Walker:
    """A walker whose home is empty and theirs."""
    uid = NOBODY if unprivileged and os.geteuid() == 0 else None
    for folder in (home, home / "tmp", home / "mpl"):
        folder.mkdir(parents=True)
        if uid is not None:
            os.chown(folder, uid, uid)
    made = Walker(home, uid, sys.executable if uid is None else python_for_nobody() or sys.executable)
    if made.python != sys.executable:
        _install_ratarmount(made)
    return made


def _install_ratarmount(made: Walker) -> None:
    """What pip would have written for their interpreter."""
    script = made.home / "bin/ratarmount"
    script.parent.mkdir()
    script.write_text(f"#!{made.python}\nimport sys\nfrom ratarmount.cli import cli\nsys.exit(cli())\n")
    script.chmod(0o755)


@cache
def python_for_nobody() -> str:
    """Ours, or the system's of the same version with our packages, whichever an unprivileged user can use."""
    system = shutil.which(f"python{sys.version_info.major}.{sys.version_info.minor}", path=os.defpath)
    env = {"PATH": os.defpath, "PYTHONPATH": PYTHONPATH}
    for python in filter(None, (sys.executable, system)):
        try:
            done = subprocess.run(
                [python, "-c", "import bevrepro, bevformer, numpy, typer"],
                env=env,
                capture_output=True,
                cwd="/",
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
            )
        except PermissionError:
            continue
        if done.returncode == 0:
            return python
    return ""


def why_not(unprivileged: bool, fuse: bool) -> str:
    """Why this machine cannot show it; empty where it can."""
    from bevrepro.data import fuse as fusing

    if fuse and (missing := fusing.missing()):
        return "; ".join(missing)
    if not unprivileged or os.geteuid() != 0:
        return ""
    if not python_for_nobody():
        return f"an unprivileged user can start neither {sys.executable} nor a system Python like it"
    if fuse and not shutil.which("fusermount3") and not shutil.which("fusermount"):
        return "an unprivileged user needs fusermount3 to mount"
    if fuse and os.stat("/dev/fuse").st_mode & 0o006 != 0o006:
        return "/dev/fuse is closed to unprivileged users (chmod 666 /dev/fuse opens it)"
    return ""
