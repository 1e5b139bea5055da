"""Permission denied, wherever a probe looks: said where it decides, unknown elsewhere, no stopped probe."""

import os

import pytest

from bevrepro.core.machine import Cuda, Machine
from bevrepro.doctor.ckpt import examine_ckpt
from bevrepro.doctor.config import examine_config
from bevrepro.doctor.data import examine_data
from bevrepro.doctor.diagnose import diagnose
from bevrepro.doctor.env import examine_env
from bevrepro.doctor.metrics import examine_metrics
from bevrepro.probe.ascend import probe_ascend
from bevrepro.probe.compiled import probe_libstdcxx, read_compiled
from bevrepro.probe.config import probe_config
from bevrepro.probe.cpu import probe_cpu
from bevrepro.probe.cuda import probe_cuda
from bevrepro.probe.environment import probe_env
from bevrepro.probe.fuse import probe_fuse
from bevrepro.probe.host import probe_host
from bevrepro.probe.metrics import probe_metrics
from bevrepro.probe.nuscenes import probe_data
from tests.probe.compiling import needs_gcc
from tests.probe.test_compiled import environment
from tests.probe.unprivileged import as_nobody


def seen(machine) -> dict[str, str]:
    return {each.id: each.seen for each in diagnose(machine)}


@needs_gcc
@pytest.mark.parametrize(
    "name", ["torch/lib", "torch", "torch/lib/libc10.so", "torch/lib/libtorch_python.so"]
)
def test_a_torch_that_may_not_be_read_is_told_and_nothing_else_blamed(open_folder, name):
    python = environment(open_folder)
    (open_folder / name).chmod(0)
    found = seen(Machine(python=as_nobody(lambda: read_compiled(python, environment={}))))
    assert set(found) == {"torch-library-deleted"} and "Permission denied" in found["torch-library-deleted"]


@needs_gcc
def test_operators_that_may_not_be_looked_at_are_not_called_missing(open_folder):
    python = environment(open_folder)
    (open_folder / "mmcv").chmod(0)
    found = seen(Machine(python=as_nobody(lambda: read_compiled(python, environment={}))))
    assert found == {"ext-unreadable": "mmcv/_ext*.so cannot be read: Permission denied"}


def test_variables_that_name_a_forbidden_folder(open_folder):
    closed = open_folder / "closed"
    (closed / "a").mkdir(parents=True)
    closed.chmod(0)
    names = "CUDA_HOME LD_LIBRARY_PATH ASCEND_HOME_PATH FUSE_LIBRARY_PATH CONDA_PREFIX TMPDIR".split()
    variables = dict.fromkeys(names, f"{closed}/a")
    probes = (probe_host, probe_cuda, probe_fuse, probe_ascend)
    host, cuda, *_ = as_nobody(lambda: [probe(open_folder, variables) for probe in probes])
    assert (
        host.shadowing == () and as_nobody(lambda: probe_libstdcxx(f"{closed}/a", closed, variables)) is None
    )
    judged = seen(Machine(cuda=Cuda(gpus=(), toolkit=cuda.toolkit, toolkit_searched=True)))
    assert judged["cuda-home-missing"] == f"CUDA_HOME={closed}/a may not be looked into"


def test_a_proc_and_a_sys_that_may_not_be_read(open_folder):
    for name in ("proc", "sys", "dev", "etc", "usr", "lib", "run"):
        (open_folder / name).mkdir(mode=0)
    host, cpu, *_ = as_nobody(
        lambda: [
            probe(open_folder) for probe in (probe_host, probe_cpu, probe_cuda, probe_fuse, probe_ascend)
        ]
    )
    assert (host.memory_total_b, host.ports_in_use, host.may_mount, cpu.flags) == (None, None, None, None)


EXAMINERS = [examine_data, examine_ckpt, examine_config, examine_metrics, examine_env]


@pytest.mark.parametrize("examine", EXAMINERS, ids=lambda each: each.__name__)
@pytest.mark.parametrize("below", ["", "/x", "/x/y.json"])
def test_a_path_that_may_not_be_read_is_a_finding(open_folder, examine, below):
    closed = open_folder / "closed"
    closed.mkdir(mode=0)
    (found,) = as_nobody(lambda: examine(open_folder / f"closed{below}"))
    assert found.id.endswith("-unreadable") and "Permission denied" in found.seen


@pytest.mark.parametrize("probe", [probe_data, probe_config, probe_metrics, probe_env])
def test_a_folder_with_closed_parts_is_looked_at_as_far_as_it_goes(open_folder, probe):
    names = "v1.0-mini samples maps can_bus lib lib/python3.8/site-packages work_dirs".split()
    for name in names:
        (open_folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "metrics_summary.json", "nuscenes_infos_val.pkl", "can_bus.zip"):
        (open_folder / name).write_text("{}")
        os.chmod(open_folder / name, 0)
    for name in reversed(names):
        (open_folder / name).chmod(0)
    assert as_nobody(lambda: probe(open_folder)) is not None
