"""Plans of --fix: values made from findings, without touching anything."""

from dataclasses import replace
from pathlib import Path

import pytest

from bevrepro.core.finding import Finding, Severity
from bevrepro.core.machine import Cuda, Host, Machine, Python, Toolkit, Torch
from bevrepro.doctor.diagnose import diagnose
from bevrepro.doctor.fix import RULES, Around, Setting, merge, plan, propose_wslconfig, settings
from bevrepro.doctor.record import load
from bevrepro.doctor.registry import CHECKS

GIB = 1 << 30
SCRIPT = "/home/user/.config/bevrepro/env.sh"


def findings(*ids, commands=("export PYTHONNOUSERSITE=1",)):
    return [Finding(id, "host", Severity.WARN, "seen", "why", "remedy", commands) for id in ids]


def lines(machine, *ids, **around):
    return [each.line for each in settings(machine, findings(*ids), Around(SCRIPT, **around))]


@pytest.mark.parametrize(
    "home, torch, toolkits, line",
    [
        (":/opt/cuda-11.1:/usr", None, (("/opt/cuda-11.1", "11.1"),), "export CUDA_HOME=/opt/cuda-11.1"),
        ("/nonexistent", "11.3", (("/a", "12.4"), ("/b", "11.1"), ("/c", "11.3")), "export CUDA_HOME=/c"),
        ("/nonexistent", "11.3", (("/a", "12.4"), ("/b c", "11.1")), "export CUDA_HOME='/b c'"),
        ("/a:/b", None, (("/z", "9.0"), ("/b", "12.4")), "export CUDA_HOME=/b"),
        ("/nonexistent", None, (), "unset CUDA_HOME"),
    ],
)  # fmt: skip
def test_cuda_home_becomes_a_folder_that_has_nvcc(home, torch, toolkits, line):
    machine = Machine(
        cuda=Cuda(toolkit=Toolkit(home, "CUDA_HOME")),
        python=Python(torch=Torch("x", torch) if torch else None),
    )
    assert lines(machine, "cuda-home-missing", toolkits=toolkits) == [line]


def test_an_unset_cuda_home_is_set_only_where_there_is_a_toolkit():
    assert lines(Machine(), "cuda-home-unset") == []
    assert lines(Machine(), "cuda-home-unset", toolkits=(("/t", None),)) == ["export CUDA_HOME=/t"]


def test_a_host_compiler_is_named_only_where_it_is_installed():
    machine = Machine(cuda=Cuda(toolkit=Toolkit("/c", "CUDA_HOME", max_gcc=10)))
    assert lines(machine, "gcc-too-new", compilers=("g++-12",)) == []
    assert lines(machine, "gcc-too-new", compilers=("g++-9", "g++-10", "g++-12")) == [
        "export CUDAHOSTCXX=g++-10"
    ]


@pytest.mark.parametrize(
    "command, line",
    [
        ("unset HCCL_IF_IP", "unset HCCL_IF_IP"),
        ("export LD_PRELOAD=/a b/libgomp.so.1", "export LD_PRELOAD='/a b/libgomp.so.1'"),
        ("export X=$(rm -rf ~)", "export X='$(rm -rf ~)'"),
        ("ip -brief address", None),
        ("unset X; rm -rf ~", None),
        ("export 'X'=1", None),
        ("source /usr/local/Ascend/ascend-toolkit/set_env.sh", None),
    ],
)
def test_only_variables_are_taken_from_a_findings_commands_and_quoted(command, line):
    found = settings(Machine(), findings("hccl-if-ip", commands=(command,)), Around(SCRIPT))
    assert [each.line for each in found] == ([line] if line else [])


MACHINES = Path(__file__).parents[1] / "machines"
FIXABLE = {each.id for path in MACHINES.glob("*.json") for each in diagnose(load(path)) if each.fixable}


def test_what_is_called_fixable_has_a_rule():
    assert len(FIXABLE) > 5 and FIXABLE <= {*RULES, "wsl-memory"}


@pytest.mark.parametrize("path", sorted(MACHINES.glob("*.json")), ids=lambda path: path.stem)
def test_a_recorded_host_is_planned_for_and_planned_once(path):
    machine = load(path)
    found = diagnose(machine)
    around = Around(SCRIPT, proposal="/p" if machine.host.wsl else "")
    for fix in plan(machine, found, around):
        again = replace(around, **{"script_text" if fix.path == SCRIPT else "proposal_text": fix.after})
        assert fix.after and fix.path not in [each.path for each in plan(machine, found, again)]


def test_every_rule_is_for_a_check_that_exists():
    assert set(RULES) <= {check.id for check in CHECKS}


def test_a_script_keeps_foreign_lines_and_replaces_ours():
    text = "# mine\nalias ll='ls -l'\nexport CUDA_HOME=/old\nunset PYTHONPATH\n"
    new = [
        Setting("cuda-home-list", "export CUDA_HOME=/new"),
        Setting("user-site-leak", "export PYTHONNOUSERSITE=1"),
    ]
    assert merge(text, new, SCRIPT).splitlines() == [
        "# mine",
        "alias ll='ls -l'",
        "export CUDA_HOME=/new  # cuda-home-list",
        "unset PYTHONPATH",
        "export PYTHONNOUSERSITE=1  # user-site-leak",
    ]


def test_what_is_written_already_is_no_plan():
    (fix,) = plan(Machine(), findings("user-site-leak"), Around(SCRIPT))
    assert fix.before is None and fix.after is not None and fix.findings == ("user-site-leak",)
    assert plan(Machine(), findings("user-site-leak"), Around(SCRIPT, script_text=fix.after)) == ()


def test_findings_without_a_rule_are_no_plan():
    assert plan(Machine(), findings("driver-old", "memory-low", "nothing-such"), Around(SCRIPT)) == ()


def test_dead_mounts_are_detached():
    (fix,) = plan(Machine(), (), Around(SCRIPT, dead_mounts=("/data/nuscenes",)))
    assert (fix.path, fix.mount, fix.after) == ("/data/nuscenes", True, None)


@pytest.mark.parametrize(
    "text, kept",
    [
        (None, []),
        ("[wsl2]\nMemory = 2GB\nprocessors=4\n", ["processors=4"]),
        ("[experimental]\nsparseVhd=true\n", ["[experimental]", "sparseVhd=true"]),
        ("[wsl2]\nswap=0\n[experimental]\nmemory=odd\n", ["[experimental]", "memory=odd"]),
        ("[WSL2]\r\nlocalhostForwarding=true\r\n", ["localhostForwarding=true"]),
    ],
)
def test_a_wslconfig_proposal_sets_memory_and_swap_and_keeps_the_rest(text, kept):
    proposal = propose_wslconfig(text, 4 * GIB)
    assert proposal.count("\nmemory=6GB\nswap=12GB\n") == 1 and all(
        line in proposal.splitlines() for line in kept
    )
    assert propose_wslconfig(proposal, 4 * GIB) == proposal
    assert "2GB" not in proposal.replace("12GB", "") and "swap=0" not in proposal


def test_the_proposal_lies_beside_and_never_replaces():
    machine = Machine(host=Host(wsl=2, memory_total_b=4 * GIB))
    around = Around(SCRIPT, wslconfig="/mnt/c/Users/u/.wslconfig", wslconfig_text="[wsl2]\n", proposal="/p")
    (fix,) = plan(machine, findings("wsl-memory"), around)
    assert fix.path == "/p" and "/mnt/c/Users/u/.wslconfig" in fix.what


@pytest.mark.parametrize(
    "id", sorted({*RULES, "wsl-memory"} - {"cuda-home-unset", "cuda-link", "gcc-too-new"})
)
def test_what_has_a_rule_is_called_fixable(id):
    """Left out: what depends on a toolkit or compiler that may be there or not, and a remark."""
    assert id in FIXABLE
