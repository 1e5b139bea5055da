"""Memory that runs out in a training: the same step again with less of it, as long as the result stays.

The ladder's rungs of the classes identical and rounding (`rungs`) are taken without being asked for, one by
one and by all processes together; each is said in a sentence and entered in the ledger.  Everything else has
to be allowed, and is only ever chosen before the first step.
"""

import gc
import re
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, TypeVar

import torch
from torch import nn

from .config import Config
from .errors import UserError
from .ladder import ALLOW, OFF, every_rung, rung_entry, word_for
from .ledger import CHANGES, IDENTICAL, ROUNDING
from .ranks import Ranks
from .rungs import Rung, apply_rungs, rungs_for, rungs_up_to
from .runstate import Options
from .talk import Talk

RESULT = {IDENTICAL: "the result is the same to the bit", ROUNDING: "the result is equal up to rounding"}
WORDS = (
    "out of memory",  # CUDA's caching allocator, the driver, NPUs
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",  # Windows
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "ALLOCATION_FAILED",  # cuDNN 9: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED, ..._HOST_...
    # A convolution for which no algorithm's workspace could be had: torch tries one after the other, drops
    # what each said and raises this (pytorch#108645; torch before 2.0 the second).
    "unable to find an engine to execute this computation",
    "Unable to find a valid cuDNN algorithm to run convolution",
    "could not create a memory",  # oneDNN
)
T = TypeVar("T")


class OutOfMemory(UserError):
    """No memory for a step, and no rung left that would leave the result as it is."""

    exit_code = 3


class DoesNotFit(OutOfMemory):
    """The same before the first step of a run: nothing is written yet."""


def is_out_of_memory(error: BaseException) -> bool:
    """By type where there is one (torch >= 1.13), else by what allocators say; NumPy's too."""
    kind = getattr(torch.cuda, "OutOfMemoryError", None)
    if isinstance(error, MemoryError) or (kind is not None and isinstance(error, kind)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)


def told_by(error: BaseException) -> str:
    """`8.4 MiB more could not be had`, or the first line of what the allocator said."""
    found = re.search(r"(?:[Tt]ried|[Uu]nable) to allocate ([\d.]+) (bytes|[KMG]iB)", str(error))
    if found is None:
        return (str(error).strip().split("\n")[0] or type(error).__name__)[:160]
    shift = {"bytes": 0, "KiB": 10, "MiB": 20, "GiB": 30}[found.group(2)]
    size_mib = float(found.group(1)) * (1 << shift) / 2**20
    size = "%.2f GiB" % (size_mib / 1024) if size_mib >= 1024 else "%.1f MiB" % size_mib
    return size + " more could not be had"


def plan_command(options: Options, config: Config, device: torch.device) -> str:
    """The words that say what would fit."""
    words = [word for word in options.command[1:2] if not word.startswith("-")] or [config.name]
    if device.type == "cuda":
        gib = torch.cuda.get_device_properties(device).total_memory / 2**30
        words += ["--gpu-memory", "%.0f" % gib]
    return " ".join(["bevrepro plan"] + words)


class Memory:
    """The rungs that a run uses.  `entries`: of the ledger, in the order in which they came into use."""

    def __init__(
        self,
        model: Optional[nn.Module] = None,
        entries: Iterable[Mapping[str, Any]] = (),
        falls: bool = False,
        plan: str = "bevrepro plan CONFIG",
        others: Sequence[Rung] = (),
        tell: Callable[[Dict[str, Any], str], None] = lambda entry, sentence: None,
    ) -> None:
        """falls: whether it may take rungs by itself.  others: what may be allowed besides.  tell: gets each
        new entry, and a sentence about it.
        """
        self.entries: List[Dict[str, Any]] = [dict(entry) for entry in entries]
        self.tell, self.plan, self._others = tell, plan, others
        self._model, self._falls = model, falls
        self._live: Optional[List[nn.Module]] = None
        if model is not None:
            same = {each.name for each in rungs_up_to(ROUNDING)}
            apply_rungs(model, [name for name in self.rungs if name in same])

    @property
    def rungs(self) -> List[str]:
        """Their names."""
        return [str(entry["rung"]) for entry in self.entries]

    def tried(self, attempt: Callable[[], T], ranks: Ranks, step: int, phase: str = "") -> T:
        """`attempt()`, again with one rung more each time that memory runs out in any process.

        `attempt` may leave nothing behind but gradients and the statistics of live batch norms, which are put
        back.  step: from 0; phase: what it is called where it is not that step.  Raises OutOfMemory.
        """
        while True:
            said, before = "", self._statistics()
            result: Optional[T] = None
            try:
                result = attempt()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                said = told_by(error)
            # From here on nothing holds the failed attempt: the exception and its frames are gone.
            said = self._agreed(said, ranks)
            if not said:
                return result  # type: ignore[return-value]
            self._undo(before)
            self._fall(step, phase or "step %d" % (step + 1), said)

    def too_late(self, error: BaseException, step: int) -> OutOfMemory:
        """For memory that ran out while the weights were being changed: the step cannot be repeated."""
        left = ",".join(self.rungs + [each.name for each in self._left()])
        return OutOfMemory(
            "out of memory in step %d, while the weights were being changed: %s" % (step + 1, told_by(error)),
            "Half a step cannot be repeated in place.",
            "Go on with --resume auto%s." % (" --memory " + left if left else "; see %s" % self.plan),
        )

    def _agreed(self, said: str, ranks: Ranks) -> str:
        """What the first process that ran out said; the same answer, empty or not, in all of them."""
        if ranks.processes == 1:
            return said
        out = ranks.sum([float(bool(said)) if p == ranks.process else 0.0 for p in range(ranks.processes)])
        if not any(out):
            return ""
        return said or "process %d has none left" % next(p for p, flag in enumerate(out) if flag)

    def _statistics(self) -> List[Tuple[torch.Tensor, torch.Tensor]]:
        """Buffers that a forward pass in training mode changes, with copies; none in the models shipped."""
        if self._live is None:
            kind = nn.modules.batchnorm._BatchNorm
            modules = self._model.modules() if self._model is not None else ()
            self._live = [each for each in modules if isinstance(each, kind) and each.training]
        return [(buffer, buffer.clone()) for module in self._live for buffer in module.buffers()]

    def _undo(self, before: Sequence[Tuple[torch.Tensor, torch.Tensor]]) -> None:
        if self._model is not None:
            forget_gradients(self._model)
        with torch.no_grad():
            for buffer, copy in before:
                buffer.copy_(copy)
        give_back()

    def _left(self) -> List[Rung]:
        """What may still be taken, mildest first."""
        if not self._falls or self._model is None:
            return []
        return [each for each in rungs_for(self._model, ROUNDING) if each.name not in self.rungs]

    def _fall(self, step: int, phase: str, said: str) -> None:
        left = self._left()
        if not left or self._model is None:
            raise self._exhausted(step, phase, said)
        entry = rung_entry(left[0], step + 1, "out of memory in %s: %s" % (phase, said))
        apply_rungs(self._model, [left[0].name])
        self.entries.append(entry)
        self.tell(
            entry,
            "Out of memory in %s (%s): it is repeated with less (%s: %s); %s."
            % (phase, said, left[0].name, left[0].what, RESULT[left[0].effect]),
        )

    def _exhausted(self, step: int, phase: str, said: str) -> OutOfMemory:
        used = " In use already: %s." % ", ".join(self.rungs) if self.rungs else ""
        why = "Nothing is left that would keep the result as it is." + used
        if not self._falls:
            why = "With --memory off nothing that needs less is tried." + used
        do = "See what would fit: %s" % self.plan
        named = [
            "--memory %s --allow %s" % (each.name, word_for(each.effect))
            for each in self._others
            if each.name not in self.rungs
        ]
        if named:
            where = ", in a new --work-dir" if step else ""
            do += "\nWhat changes the result is yours to allow%s: %s" % (where, " or ".join(named))
        return OutOfMemory("out of memory in %s: %s" % (phase, said), why, do)


def memory_of(
    model: nn.Module,
    entries: Sequence[Mapping[str, Any]],
    options: Options,
    config: Config,
    device: torch.device,
    talk: Talk,
) -> Memory:
    """For a run that uses the rungs of these entries; a rung that finds nothing in this model is left out."""
    useful = {each.name for each in rungs_for(model, CHANGES)}
    idle = [each.name for each in rungs_up_to(CHANGES) if each.name not in useful]
    left_out = [str(entry["rung"]) for entry in entries if entry["rung"] in idle]
    if left_out:
        talk.note("--memory: %s has nothing to save in this model, so it is left out." % ", ".join(left_out))
    return Memory(
        model,
        [entry for entry in entries if entry["rung"] not in idle],
        options.memory != OFF,
        plan_command(options, config, device),
        [each for each in every_rung(config) if each.effect in ALLOW.values()],
        lambda entry, sentence: talk.note(sentence),
    )


def give_back() -> None:
    """What nothing holds any more, and what the allocator keeps of it."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def forget_gradients(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = None


NOTHING = Memory()
