"""`bevrepro plan`: what is asked of the model plane, what is said, and the exit code."""

import json
from types import SimpleNamespace

import pytest

from bevrepro import cli
from bevrepro.core.machine import Cuda, Gpu, Host
from bevrepro.core.units import GIB
from bevrepro.drive import inside, launch
from bevrepro.drive.plan import headroom
from bevrepro.probe import cuda, host

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
    "rungs": [
        {"name": "encoder-layers", "what": "runs again", "effect": "identical", "peak_gib": 12.0},
        {"name": "frozen-norms", "what": "one product", "effect": "equal up to rounding", "peak_gib": 9.0},
    ],
    "limit_gib": None,
    "chosen": None,
    "others": [],
    "as_published": True,
    "schedule": {"max_epochs": 24, "max_steps": 0, "batch": 8},
}  # fmt: skip
HALF = {
    "name": "half-grid", "what": "half the BEV grid", "effect": "changes the result", "peak_gib": 5.0,
    "ask": "--cfg-options encoder.bev_h=100 encoder.bev_w=100",
}  # fmt: skip
STEP = {"device": "the CPU", "threads": 2, "samples": 1, "kind": "measured", "step_s": 2.0, "rungs": []}
MAIN_MEMORY_GIB = 30.0


@pytest.fixture
def run(monkeypatch, request):
    """Run a command on a machine with these GPUs' MiB; returns (exit code, argv of the model plane)."""

    def play(*words, gpus=(), others=(), **more):
        seen = []
        places = request.getfixturevalue("places") if "places" in request.fixturenames else []

        def fake(verb, argv, inside=None, **_):
            seen.append([verb, *argv])
            places.append(inside)
            limit = float(argv[argv.index("--limit-gib") + 1]) if "--limit-gib" in argv else None
            fits = [n for n, peak in enumerate((20.0, 12.0, 9.0)) if limit and peak <= limit]
            chosen = [row["name"] for row in RESULT["rungs"][: fits[0]]] if fits else None
            pace = {"pace": STEP} if "--time" in argv else {}
            return dict(RESULT, others=list(others), limit_gib=limit, chosen=chosen, **pace, **more)

        found = Cuda(gpus=tuple(Gpu(name=f"Card {mib}", memory_total_mib=mib) for mib in gpus))
        monkeypatch.setattr(cuda, "probe_cuda", lambda: found)
        host_found = Host(memory_total_b=int(MAIN_MEMORY_GIB * GIB))
        monkeypatch.setattr(host, "probe_host", lambda: host_found)
        monkeypatch.setattr(launch, "run_model", fake)
        return cli.main(["plan", *words]), seen[0] if seen else None

    return play


def said(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_without_a_gpu_main_memory_is_the_limit(run, capsys):
    code, argv = run("bevformer_base")
    assert code == 0 and float(argv[3]) == pytest.approx(MAIN_MEMORY_GIB / headroom())
    out = capsys.readouterr().out
    assert (
        "20.00 GiB at its worst moment, in the forward pass" in out
        and "history (3 frames, one by one)" in out
    )
    assert "main memory of this machine" in " ".join(out.split()) and "branches" not in out


@pytest.fixture
def places(monkeypatch):
    """The environment of each call; a target is entered with this many GPUs."""
    monkeypatch.setattr(inside, "enter", lambda name, gpus: SimpleNamespace(title=name, gpus=gpus))
    return []


@pytest.mark.parametrize(
    "target, limit", [("cpu-openmmlab-torch2", "main memory of this machine)"), ("a100-torch2", "Card 24576")]
)
def test_a_target_is_planned_in_its_environment_without_a_gpu(run, places, capsys, target, limit):
    code, _ = run("bevformer_base", "--target", target, gpus=(24576,))
    assert code == 0 and [(each.title, each.gpus) for each in places] == [(target, 0)]
    out, err = capsys.readouterr()
    assert limit in " ".join(out.split()) and f"In {target}" in err


def test_an_unknown_target_is_refused(run, capsys):
    assert run("bevformer_base", "--target", "cpu-openmmlap") == (6, None)
    assert "is 'cpu-openmmlab' meant?" in capsys.readouterr().err


def test_the_smallest_gpu_of_the_machine_is_the_limit(run, capsys):
    code, argv = run("bevformer_base", gpus=(81920, 24576))
    assert code == 0 and float(argv[3]) == pytest.approx(24 / headroom())
    assert "it fits in 24.0 GiB (Card 24576 in this machine)" in said(capsys).replace(
        "is about 23.4 GiB: ", ""
    )


@pytest.mark.parametrize(
    "memory, names, same",
    [("16", "encoder-layers", "to the bit"), ("11", "encoder-layers,frozen-norms", "up to rounding")],
)
def test_the_fewest_rungs_are_chosen_and_what_they_do_is_said(run, capsys, memory, names, same):
    code, _ = run("bevformer_base", "--gpu-memory", memory)
    out = capsys.readouterr().out
    assert code == 0 and "* encoder-layers" in out and ("* frozen-norms" in out) is ("frozen" in names)
    assert f"with --memory {names}, which leaves the result as it is, {same}." in " ".join(out.split())


def test_what_does_not_fit_exits_with_1_and_names_what_would(run, capsys):
    code, _ = run("bevformer_base", "--gpu-memory", "8", others=[HALF])
    out = said(capsys)
    assert code == 1 and "It does not fit in 8.0 GiB" in out and "never chosen" in out
    assert "half-grid 5.00 GiB changes the result: half the BEV grid (--cfg-options encoder.bev_h=100" in out


def test_tensors_that_just_fit_are_close(run, capsys):
    code, _ = run("bevformer_base", "--gpu-memory", "10", "--json")
    result = json.loads(capsys.readouterr().out)
    assert (code, result["verdict"], result["limit"]) == (0, "close", {"gib": 10.0, "source": "--gpu-memory"})


def test_time_is_that_of_a_step_here(run, capsys):
    _, argv = run("bevformer_base", "--time")
    out = said(capsys)
    assert argv[-1] == "--time" and "Time on the CPU: 0.5 samples per second, 16 days" in out
    assert "measured here just now" in out


def test_time_on_a_named_gpu_is_a_span_with_its_evidence(run, capsys):
    _, argv = run("bevformer_base", "--gpu-memory", "80", "--gpu", "A100", "--time")
    out = said(capsys)
    assert "--time" not in argv and "14-19 days" in out and "1.8-2.3 days on 8" in out
    assert "reported by the authors" in out and "BEVFormer#101" in out


def test_time_on_a_gpu_nobody_reported_is_unknown(run, capsys):
    run("bevformer_base", "--gpu", "RTX 5090", "--gpu-memory", "32", "--time")
    out = said(capsys)
    assert "Time on RTX 5090: unknown" in out and "A100 1.8-2.4 s per sample" in out


def test_reports_are_about_published_configurations_only(run, capsys):
    run("bevformer_base", "--gpu", "A100", "--time", "--json", as_published=False)
    assert json.loads(capsys.readouterr().out)["time"]["days"] is None


def test_overrides_are_passed_on(run):
    _, argv = run("up.py", "--gpu-memory", "8", "--cfg-options", "a=1", "b=2")
    assert argv[:2] == ["plan", "up.py"] and argv[-3:] == ["--cfg-options", "a=1", "b=2"]


@pytest.mark.parametrize(
    "words", [("--gpu-memory", "0"), ("--gpu-memory", "-3"), ("--gpu-memory", "much"), ("x",)]
)
def test_nonsense_is_a_usage_error(run, words):
    assert run("bevformer_base", *words) == (2, None)
