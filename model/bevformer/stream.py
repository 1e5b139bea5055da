"""Running a model over a split as video: frames in order, history handed on, results written as they come.

Several processes share the frames. Where they are cut decides what every frame remembers:

* `scene`: only where another scene begins, where history ends anyway. The results are those of one process.
* `upstream`: into pieces of equal length, as the reference's DistributedSampler does. A scene that is cut
  loses its history there, so the numbers depend on how many processes there are.
"""

import argparse
import glob
import os
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List, Optional, Sequence, Tuple

import torch
from torch.utils.data import DataLoader, Dataset

from .errors import DataError
from .prefetch import Prefetch, ToDevice
from .ranks import Ranks
from .results import ResultsWriter, RowsWriter, format_sample, join_rows
from .talk import Talk
from .types import Detections, Frame, VideoMemory

Step = Callable[[Frame, Optional[VideoMemory]], Tuple[Detections, VideoMemory]]
CUTS = ("scene", "upstream")
WORKERS = 4  # that load images beside a GPU


class _Frames(Dataset):  # type: ignore[type-arg]
    """Test frames of a stretch by position, for a DataLoader (which keeps the order)."""

    def __init__(self, dataset: Any, stretch: range) -> None:
        self._dataset, self._stretch = dataset, stretch

    def __len__(self) -> int:
        return len(self._stretch)

    def __getitem__(self, index: int) -> Frame:
        frame: Frame = self._dataset.test_frame(self._stretch[index])
        return frame


def _as_it_is(frame: Frame) -> Frame:
    return frame


def cut(scene_tokens: Sequence[str], processes: int, how: str) -> List[range]:
    """Which frames each process runs, in order; every frame once."""
    count = len(scene_tokens)
    if how == "upstream":
        length = -(-count // processes)
        return [range(min(k * length, count), min((k + 1) * length, count)) for k in range(processes)]
    begins = [i for i in range(count) if i == 0 or scene_tokens[i] != scene_tokens[i - 1]] + [count]
    ends = [min(begins, key=lambda begin: abs(begin - k * count / processes)) for k in range(processes + 1)]
    return [range(first, last) for first, last in zip(ends, ends[1:])]


def run_stream(
    step: Step,
    infos: Any,
    dataset: Any,
    path: str,
    device: torch.device,
    args: argparse.Namespace,
    ranks: Ranks,
    talk: Talk,
) -> List[str]:
    """Runs the frames in the order of the infos, writes the results file, returns the tokens in it.

    args: `limit`, `workers` and `cut` of the command line.
    """
    count = min(len(dataset), args.limit or len(dataset))
    if not count:
        raise DataError("the infos hold no frames", do="Prepare them again with `bevrepro data prepare`.")
    scenes = [str(info["scene_token"]) for info in infos.infos[:count]]
    stretches = cut(scenes, ranks.processes, args.cut)
    _say_what_is_lost(scenes, stretches, talk)
    workers = args.workers if args.workers is not None else (WORKERS if device.type == "cuda" else 0)
    mine = stretches[ranks.process]
    loader = DataLoader(_Frames(dataset, mine), batch_size=None, num_workers=workers, collate_fn=_as_it_is)
    if ranks.leads:
        _sweep(path)
    ranks.sum([1.0])  # swept before anybody writes
    memory: Optional[VideoMemory] = None
    part = "%s.part%d" % (path, ranks.process)
    with ResultsWriter(path) if ranks.processes == 1 else RowsWriter(part) as writer, _ahead(
        loader, device, workers
    ) as frames:
        for index, frame in zip(mine, frames):
            detections, memory = step(frame, memory)
            writer.add(frame.meta.sample_token, format_sample(detections.cpu(), infos.infos[index]))
            talk.progress("eval", min((index - mine.start + 1) * ranks.processes, count), count)
    ranks.sum([1.0])  # all have written
    if ranks.processes > 1 and ranks.leads:
        parts = ["%s.part%d" % (path, process) for process in range(ranks.processes)]
        join_rows([part for part, stretch in zip(parts, stretches) if len(stretch)], path)
        for part in parts:
            os.remove(part)
    return [str(info["token"]) for info in infos.infos[:count]]


@contextmanager
def _ahead(loader: Any, device: torch.device, workers: int) -> Iterator[Any]:
    """What the loader gives; for a GPU with workers, one frame is copied while it works on the one before."""
    if device.type != "cuda" or not workers:
        yield loader
        return
    moved = Prefetch(loader, ToDevice(device))
    try:
        yield moved
    finally:
        moved.close()


def _sweep(path: str) -> None:
    """What a killed evaluation has left beside the results."""
    for pattern in (".part*", ".[0-9]*.tmp"):
        for left in glob.glob(glob.escape(path) + pattern):
            os.remove(left)


def _say_what_is_lost(scenes: Sequence[str], stretches: Sequence[range], talk: Talk) -> None:
    switches = sum(1 for one, other in zip(scenes, scenes[1:]) if one != other)
    if switches + 1 > len(set(scenes)):
        talk.note(
            "Frames of %d scenes interleave in time: the history was dropped %d times more than needed."
            % (len(set(scenes)), switches + 1 - len(set(scenes)))
        )
    torn = [k for k in stretches if len(k) and k.start and scenes[k.start] == scenes[k.start - 1]]
    if torn:
        talk.note(
            "%d scenes are cut between processes and lose their history there, as upstream's evaluation does:"
            " compare only with results of %d processes." % (len(torn), len(stretches))
        )
