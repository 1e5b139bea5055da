"""`--from-log` and this machine: it would happen here, it would not, or nothing is known of that."""

import dataclasses
import io
import json
from pathlib import Path

import pytest

from bevrepro.cli.doctor_log import explain_log
from bevrepro.core import machine as records
from bevrepro.core.machine import Cpu, Cuda, Disk, Gpu, GpuProcess, Host, Machine, Python
from bevrepro.doctor.judge import judge_all
from bevrepro.doctor.logs.explain import explain_stream
from bevrepro.doctor.logs.failures import known_failures
from bevrepro.doctor.logs.known import NOTHING_THERE, _StandIn, lacks_facts
from bevrepro.doctor.record import load
from bevrepro.doctor.registry import CHECKS

ZOO = sorted((Path(__file__).parents[1] / "machines").glob("*.json"))
PREFACES = {id for failure in known_failures() for id in failure.preface}
GPU = Gpu("A100", memory_total_mib=40960, memory_free_mib=40000)


def explained(line: str, machine: Machine):
    return explain_stream(io.BytesIO(line.encode()), machine)[0]


@pytest.mark.parametrize(
    "line, machine, fires, told, unknown",
    [
        ("Illegal instruction", Machine(), None, (), ("cpu-no-avx", "torch-dies")),
        ("Illegal instruction", Machine(host=Host(arch="x86_64"), cpu=Cpu(flags=("sse4_2",))), True,
         ("cpu-no-avx",), ("torch-dies",)),
        ("Illegal instruction", Machine(host=Host(arch="x86_64"), cpu=Cpu(flags=("avx", "avx2")),
                                        python=Python(packages=())), False, ("cpu-no-avx", "torch-dies"), ()),
        ("OSError: [Errno 24] Too many open files", Machine(host=Host(open_files=65535)), False,
         ("open-files-low",), ()),
        ("OSError: [Errno 24] Too many open files", Machine(), None, (), ("open-files-low",)),
        ("No space left on device", Machine(host=Host(disks=(Disk("work", "/w", free_b=2**40),))), None,
         ("disk-low",), ("inodes-low",)),
        ("CUDA out of memory", Machine(cuda=Cuda(gpus=(GPU,))), False, ("gpu-memory", "gpu-occupied"), ()),
        ("CUDA out of memory", Machine(cuda=Cuda(gpus=(dataclasses.replace(
            GPU, processes=(GpuProcess(7, 30000, "python"),)),))), True, ("gpu-occupied",), ()),
        ("Transport endpoint is not connected", Machine(), None, (), ()),
    ],
)  # fmt: skip
def test_unknown_is_not_well(line, machine, fires, told, unknown):
    found = explained(line, machine)
    assert (found.fires_here, found.checks, found.unknown) == (fires, told, unknown)


def test_of_an_unknown_machine_no_check_says_that_all_is_well():
    quiet = [check for check in CHECKS if check.id in PREFACES and not lacks_facts(check, Machine())]
    assert quiet == []


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
def test_the_stand_in_changes_no_judgement(path):
    machine = load(path)
    assert judge_all(_StandIn(machine, set()), CHECKS) == judge_all(machine, CHECKS)


def test_a_check_that_stops_knows_nothing():
    def stop(machine):
        raise ValueError("no")

    assert lacks_facts(dataclasses.replace(CHECKS[0], judge=stop), Machine())


def test_fields_that_may_be_none_exist():
    for name in NOTHING_THERE:
        kind, field = name.split(".")
        assert field in {each.name for each in dataclasses.fields(getattr(records, kind))}


def test_it_is_said_in_words_and_as_null(tmp_path, capsys):
    log = tmp_path / "x.log"
    log.write_text("OSError: [Errno 28] No space left on device\n")
    explain_log(str(log), False, Machine())
    assert "Not known of this machine: what disk-low, inodes-low would look at." in capsys.readouterr().out
    explain_log(str(log), True, Machine())
    assert json.loads(capsys.readouterr().out)["failures"][0]["fires_here"] is None


def test_a_check_of_a_path_is_named_with_its_command(tmp_path, capsys):
    log = tmp_path / "x.log"
    log.write_text("warning: CAN bus data not found, zeros are used\n")
    explain_log(str(log), False, Machine())
    told = capsys.readouterr().out
    assert "bevrepro doctor data PATH foresees this: can-bus-missing, infos-zero-can." in told
