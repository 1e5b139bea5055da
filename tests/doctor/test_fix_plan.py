"""Plans of --fix: values made from findings, without touching anything."""

import pytest

from bevrepro.core.finding import Finding, Severity
from bevrepro.core.machine import Cuda, Host, Machine, Python, Toolkit, Torch
from bevrepro.doctor.fix import RULES, Around, Setting, merge, plan, propose_wslconfig, settings
from bevrepro.doctor.registry import CHECKS

GIB = 1 << 30
SCRIPT = "/home/user/.config/bevrepro/env.sh"


def findings(*ids):
    return [Finding(id, "host", Severity.WARN, "seen", "why", "remedy") for id in ids]


def lines(machine, *ids, **around):
    return [each.line for each in settings(machine, ids, Around(SCRIPT, **around))]


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
