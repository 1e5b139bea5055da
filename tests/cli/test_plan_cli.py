"""`bevrepro plan`: what is asked of the model plane, what is said, and the exit code."""

import json

import pytest

from bevrepro import cli
from bevrepro.core.machine import Cuda, Gpu
from bevrepro.drive import launch
from bevrepro.drive.plan import headroom
from bevrepro.probe import cuda

RESULT = {
    "event": "result",
    "config": "bevformer_base",
    "memory": {
        "peak_gib": 20.0, "worst_phase": "forward pass", "samples": 1, "queue_length": 4,
        "dcn_backend": "reference",
        "phases_gib": {"history": 3.0, "forward pass": 20.0, "backward pass": 19.0},
        "parts_gib": {"weights": 0.25, "backbone": 19.75, "branches": 0.0001},
        "measured": "How.", "not_included": "What not.",
    },
    "limit_gib": None,
    "smaller": [],
}  # fmt: skip
HALF = {
    "what": "half the BEV grid",
    "cfg_options": ["encoder.bev_h=100", "encoder.bev_w=100"],
    "peak_gib": 9.0,
}


@pytest.fixture
def run(monkeypatch):
    """Run a command on a machine with these GPUs' MiB; returns (exit code, argv of the model plane)."""

    def play(*words, gpus=(), smaller=()):
        seen = []

        def fake(verb, argv, **_):
            seen.append([verb, *argv])
            limit = float(argv[argv.index("--limit-gib") + 1]) if "--limit-gib" in argv else None
            return dict(RESULT, smaller=list(smaller), limit_gib=limit)

        found = Cuda(gpus=tuple(Gpu(name=f"Card {mib}", memory_total_mib=mib) for mib in gpus))
        monkeypatch.setattr(cuda, "probe_cuda", lambda: found)
        monkeypatch.setattr(launch, "run_model", fake)
        return cli.main(["plan", *words]), seen[0] if seen else None

    return play


def test_without_a_gpu_it_measures_and_asks_for_a_number(run, capsys):
    assert run("bevformer_base") == (0, ["plan", "bevformer_base"])
    out = capsys.readouterr().out
    assert (
        "20.00 GiB at its worst moment, in the forward pass" in out
        and "history (3 frames, one by one)" in out
    )
    assert "--gpu-memory GB" in out and "branches" not in out


def test_the_smallest_gpu_of_the_machine_is_the_limit(run, capsys):
    code, argv = run("bevformer_base", gpus=(81920, 24576))
    assert code == 0 and float(argv[3]) == pytest.approx(24 / headroom())
    assert "it fits in 24.0 GiB (Card 24576 in this machine)" in " ".join(capsys.readouterr().out.split())


def test_what_does_not_fit_exits_with_1_and_names_what_would(run, capsys):
    code, _ = run("bevformer_base", "--gpu-memory", "12", smaller=[HALF])
    out = capsys.readouterr().out
    assert code == 1 and "does not fit in 12.0 GiB" in " ".join(out.split())
    assert "9.00 GiB fits  half the BEV grid: --cfg-options encoder.bev_h=100 encoder.bev_w=100" in out
    assert "not the published ones" in out


def test_tensors_that_just_fit_are_close(run, capsys):
    code, _ = run("bevformer_base", "--gpu-memory", "21", "--json")
    result = json.loads(capsys.readouterr().out)
    assert (code, result["verdict"], result["limit"]) == (0, "close", {"gib": 21.0, "source": "--gpu-memory"})


def test_overrides_are_passed_on(run):
    _, argv = run("up.py", "--gpu-memory", "8", "--cfg-options", "a=1", "b=2")
    assert argv[:2] == ["plan", "up.py"] and argv[-3:] == ["--cfg-options", "a=1", "b=2"]


@pytest.mark.parametrize(
    "words", [("--gpu-memory", "0"), ("--gpu-memory", "-3"), ("--gpu-memory", "much"), ("x",)]
)
def test_nonsense_is_a_usage_error(run, words):
    assert run("bevformer_base", *words) == (2, None)
