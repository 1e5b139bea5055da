"""One build under way: its folder, log, variables and listener, and what it needs to start programs."""

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bevrepro.core import proc
from bevrepro.core.errors import DiskError
from bevrepro.core.paths import cache_dir
from bevrepro.env.layout import LOG
from bevrepro.env.plan import Plan

Event = dict[str, Any]
OnEvent = Callable[[Event], None]
MARK = "BEVREPRO_BUILDING"  # in the environment of every program that a build starts
TAIL = 400


@dataclass
class Job:
    """`notes` and `stated` grow while steps run; they go into the receipt."""

    plan: Plan
    on_event: OnEvent
    afresh: bool = False  # compile again what was compiled before
    notes: list[str] = field(default_factory=list)
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        return self.plan.build / "bin/python"

    @property
    def log(self) -> Path:
        return self.plan.build / LOG

    @property
    def work(self) -> Path:
        """Scratch of this build that a rerun goes on with: sources, objects, build requirements.

        In the cache, under the name of the builds' folder: compilers stumble over spaces in a path, and
        what is compiled must not depend on where the environment lies.
        """
        return cache_dir() / "work" / self.plan.inputs_digest[:16]

    def note(self, text: str) -> None:
        """Something that the user should know; kept in the receipt."""
        self.notes.append(text)
        self.on_event({"event": "note", "text": text})

    def progress(self, done: int, total: int, task: str, text: str = "") -> None:
        self.on_event({"event": "progress", "task": task, "done": done, "total": total, "text": text})

    def write_log(self, text: str) -> None:
        """Append to the build's log. DiskError when it cannot."""
        try:
            with open(self.log, "a", encoding="utf-8") as log:
                log.write(text if text.endswith("\n") else text + "\n")
        except OSError as error:
            raise DiskError(
                f"could not write {self.log}: {error.strerror}",
                "The old environment was not touched.",
                "Free some space, then run the same command again: it goes on.",
            ) from error

    def run(
        self,
        argv: Sequence[str | Path],
        env: Mapping[str, str],
        cwd: Path | None = None,
        on_line: Callable[[str], None] = lambda line: None,
    ) -> tuple[int, str]:
        """Run into the log. Returns (exit status, the last lines of both streams)."""
        tail: deque[str] = deque(maxlen=TAIL)
        self.write_log(f"\n{time.strftime('%H:%M:%S')} $ {' '.join(str(word) for word in argv)}")
        with open(self.log, "a", encoding="utf-8", buffering=1) as log:

            def keep(line: str) -> None:
                tail.append(line)
                _write_if_room(log, line)
                on_line(line)

            marked = {**env, MARK: str(self.plan.place.builds)}
            with proc.stream(argv, env=marked, cwd=cwd or self.plan.build, on_stderr=keep) as child:
                for line in child:
                    keep(line)
        return child.rc if child.rc is not None else -signal.SIGKILL, "\n".join(tail)


def _write_if_room(log: Any, line: str) -> None:
    # A full disk fails the program itself; its words are in the tail.
    try:
        log.write(line + "\n")
    except OSError:
        return


def end_orphans(builds: Path) -> int:
    """End what a killed build left running in `builds`; how many programs. Call it with the lock held.

    Such a compiler or installer would go on writing into the folder that is built again.
    """
    wanted = f"{MARK}={builds}".encode()
    ended = 0
    for each in Path("/proc").glob("[0-9]*"):
        try:
            marked = wanted in (each / "environ").read_bytes().split(b"\0")
            if marked and int(each.name) != os.getpid():
                os.kill(int(each.name), signal.SIGKILL)
                ended += 1
        except OSError:
            continue  # gone, or somebody else's
    if ended:
        time.sleep(0.1)  # the kernel closes their files
    return ended
