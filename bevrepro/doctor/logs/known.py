"""Whether a check that says nothing of a machine knows enough to say so.

Unknown says nothing, and so does what is well. To tell the two apart, the check judges a stand-in for the
machine that notes every unknown value it is asked for. A value that is None because there is nothing to know
(`NOTHING_THERE`) is not unknown.
"""

import dataclasses
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

from bevrepro.core.machine import Machine
from bevrepro.doctor.check import Check
from bevrepro.doctor.judge import judge_all
from bevrepro.doctor.select import CRASHED

# Fields that are None for "none there", as core/machine.py says, and where that can be known.
NOTHING_THERE: dict[str, Callable[[Machine], bool]] = {
    "Host.memory_limit_b": lambda machine: True,
    "Cpu.quota": lambda machine: True,
    "Cuda.driver": lambda machine: machine.cuda.nvidia_smi == "absent",
    "Cuda.toolkit": lambda machine: machine.cuda.toolkit_searched is True,
    "Toolkit.nvcc": lambda machine: True,
    "Toolkit.version": lambda machine: machine.cuda.toolkit is not None and machine.cuda.toolkit.nvcc is None,
    "Toolkit.max_gcc": lambda machine: machine.cuda.toolkit is not None and machine.cuda.toolkit.nvcc is None,
    "Toolkit.real_path": lambda machine: True,
    "Gpu.processes": lambda machine: True,  # only asked where much of the GPU's memory is taken
    "Compiled.error": lambda machine: True,
    "Python.error": lambda machine: True,
    "Python.torch": lambda machine: machine.python.packages is not None,
    "Python.libgomp": lambda machine: machine.host.arch not in (None, "aarch64"),
    "Ascend.npus": lambda machine: machine.ascend.npu_smi == "absent",
    "Ascend.driver": lambda machine: machine.ascend.npu_smi == "absent",
    "Ascend.toolkit": lambda machine: machine.ascend.npu_smi is not None,
    "Ascend.cann": lambda machine: machine.ascend.npu_smi is not None and machine.ascend.toolkit is None,
}


def lacks_facts(check: Check, machine: Machine) -> bool:
    """Whether the check asked for something that is unknown of this machine, or stopped."""
    asked: set[str] = set()
    findings = judge_all(_StandIn(machine, asked), [check])
    if any(finding.id == CRASHED for finding in findings):
        return True
    return any(field not in NOTHING_THERE or not NOTHING_THERE[field](machine) for field in asked)


class _StandIn:
    """Answers for a record; notes the names of fields that are None."""

    def __init__(self, record: Any, asked: set[str]) -> None:
        self._record = record
        self._asked = asked

    def __getattr__(self, name: str) -> Any:
        kind = type(self._record)
        method = getattr(kind, name, None)
        if isinstance(method, FunctionType):  # it has to ask the stand-in, too
            return MethodType(method, self)
        value = getattr(self._record, name)
        if value is None:
            self._asked.add(f"{kind.__name__}.{name}")
        return self._instead_of(value)

    def _instead_of(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(self._instead_of(each) for each in value)
        return _StandIn(value, self._asked) if dataclasses.is_dataclass(value) else value
