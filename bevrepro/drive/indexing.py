"""Index archives ahead of time, one process per archive and use, after a look at what that will take."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bevrepro.core.errors import DataError, UserError
from bevrepro.core.machine import Machine
from bevrepro.data import fuse, index, preflight, room
from bevrepro.data.archives import Archive, recognise
from bevrepro.data.preflight import MOUNT, READER, Forecast, Judgement, Task
from bevrepro.data.watch import watched
from bevrepro.drive.launch import OnEvent, run_model
from bevrepro.probe.fuse import probe_fuse
from bevrepro.probe.host import probe_host

ENDINGS = (".tgz", ".tar.gz", ".tar", ".zip")
USES = (READER, MOUNT)


@dataclass(frozen=True)
class Plan:
    """tasks are what is left to do; done are paths and uses that were indexed before."""

    archives: tuple[Archive, ...]
    done: tuple[tuple[Path, str], ...]
    forecast: Forecast
    judgement: Judgement
    notes: tuple[str, ...]

    @property
    def tasks(self) -> tuple[Task, ...]:
        return self.forecast.tasks


@dataclass(frozen=True)
class Outcome:
    """What became of one archive for one use: `indexed`, `was done`, `failed` (with the error)."""

    path: Path
    use: str
    state: str
    error: UserError | None = None

    def to_json(self) -> dict[str, Any]:
        said = {"error": self.error.seen, "do": self.error.do} if self.error else {}
        return {"path": str(self.path), "use": self.use, "state": self.state, **said}


def archives_of(places: Sequence[Path]) -> tuple[Archive, ...]:
    """Archives as given; of a folder, those that lie in it. DataError where there are none."""
    paths: list[Path] = []
    for place in places:
        inside = sorted(place.iterdir()) if place.is_dir() else [place]
        paths += [path for path in inside if path == place or path.name.endswith(ENDINGS)]
    if not paths:
        raise DataError(
            f"no archive in {', '.join(map(str, places))}", do="Name archives, or a folder that holds some."
        )
    found = {archive.path: archive for archive in map(recognise, paths)}
    return tuple(found.values())


def plan(places: Sequence[Path], uses: Sequence[str] | None = None, machine: Machine | None = None) -> Plan:
    """Look at everything and change nothing. `uses` None: the reader's, and the mount's where one can be."""
    archives = archives_of(places)
    notes: tuple[str, ...] = ()
    if uses is None:
        missing = fuse.missing()
        uses = (READER,) if missing else USES
        notes = tuple(f"only for the in-process reader: {sentence}" for sentence in missing)
    done, tasks = _split(archives, uses)
    around = room.look([task.archive for task in tasks])
    wanted = preflight.forecast(tasks, archives, around.read_b_per_s)
    machine = machine or Machine(host=probe_host(), fuse=probe_fuse())
    judgement = preflight.judge(machine, wanted, around)
    return Plan(archives, tuple(done), wanted, judgement, (*notes, *judgement.notes))


def _split(archives: Sequence[Archive], uses: Sequence[str]) -> tuple[list[tuple[Path, str]], list[Task]]:
    """What was done before, and what is left. Archive by archive: one is ready for both before the next."""
    readable = _readable(archives) if READER in uses else {}
    done, tasks = [], []
    for archive in archives:
        for use in uses:
            task = preflight.task(archive, use)
            fresh = readable.get(archive.path, True) if use == READER else index.is_fresh(archive)
            if task is not None and not fresh:
                tasks.append(task)
            else:
                done.append((archive.path, use))
    return done, tasks


def _readable(archives: Sequence[Archive]) -> dict[Path, bool]:
    """Which .tgz the in-process reader has seek points of; it knows its cache itself."""
    packed = [archive.path for archive in archives if archive.kind == "tgz"]
    if not packed:
        return {}
    said = run_model("index", ["--check", *packed])
    return {Path(one["path"]): bool(one["was_done"]) for one in said["archives"]}


def carry_out(plan: Plan, on_event: OnEvent) -> list[Outcome]:
    """All that is left, one after another. An archive that is cut or broken does not stop the others.

    Raises the judgement's refusal before anything starts; stops at a full disk or a missing program.
    """
    if plan.judgement.refusal is not None:
        raise plan.judgement.refusal
    outcomes = [Outcome(path, use, "was done") for path, use in plan.done]
    for number, task in enumerate(plan.tasks, 1):
        name = f"{task.archive.path.name} ({task.use}, {number} of {len(plan.tasks)})"
        outcomes.append(_one(task, name, on_event))
    return outcomes


def _one(task: Task, name: str, on_event: OnEvent) -> Outcome:
    path, total_mb = task.archive.path, max(1, task.archive.size_bytes // 1_000_000)

    def tell(done_mb: int) -> None:
        on_event({"event": "progress", "task": name, "done": done_mb, "total": total_mb, "text": "MB"})

    tell(0)
    try:
        # What a program reads beside the archive, or twice, must not look as if it were done.
        with watched(lambda done_b: tell(min(done_b // 1_000_000, total_mb - 1))):
            if task.use == MOUNT:
                index.ensure(task.archive, lambda: on_event(_waiting(name)))
            else:
                run_model("index", [path], on_event=on_event)
    except DataError as error:
        return Outcome(path, task.use, "failed", error)
    tell(total_mb)
    return Outcome(path, task.use, "indexed")


def _waiting(name: str) -> dict[str, Any]:
    return {"event": "note", "text": f"{name}: another command indexes it right now, waiting for that"}
