"""`bevrepro train` and `submit`: what is passed on, printed, or refused."""

import json
import subprocess

import pytest

from bevrepro import cli
from bevrepro.cli.progress import _PlainLines
from bevrepro.drive import launch

RESULT = {"event": "result", "checkpoint": "w/latest.pth", "steps": 20, "seconds_per_step": 0.125}


@pytest.fixture
def train(monkeypatch, tmp_path):
    """Run `train bevformer_tiny` with more words; returns (exit code, argv of the model plane, processes)."""
    seen = {}

    def fake(verb, argv, *, python=None, on_event=None, processes=None, inside=None):
        seen.update(argv=argv, processes=processes.count)
        return dict(RESULT)

    monkeypatch.setattr(launch, "run_model", fake)
    monkeypatch.delenv("BEVREPRO_DEBUG", raising=False)

    def play(*words):
        seen.clear()
        code = cli.main(["train", "bevformer_tiny", "--infos", str(tmp_path), *words])
        return code, seen.get("argv"), seen.get("processes")

    return play


def test_the_model_plane_understands_every_option(train):
    model_train = pytest.importorskip("bevformer.train")
    words = "--keep-last 3 --workers 2 --amp bf16 --profile --validate-every 2 --rank-timeout 60".split()
    parsed = model_train.parse(train(*words)[1])
    assert (parsed.keep_last, parsed.workers, parsed.amp, parsed.profile) == (3, 2, "bf16", True)
    assert (parsed.validate_every, parsed.rank_timeout) == (2, 60.0)


@pytest.mark.parametrize(
    "words", [["--amp", "fp8"], ["--allow", "all"], ["--keep-last", "-1"], ["--validate-every", "0"]]
)
def test_what_does_not_exist_is_wrong_usage(train, words):
    assert train(*words)[:2] == (2, None)


def test_debug_is_one_process_without_workers(train, monkeypatch, capsys):
    monkeypatch.setenv("BEVREPRO_DEBUG", "")
    code, argv, processes = train("--gpus", "8", "--debug")
    assert (code, processes) == (0, 1)
    assert argv[argv.index("--gpus") + 1] == "1" and argv[argv.index("--workers") + 1] == "0"
    assert "one process, its ranks one after another" in capsys.readouterr().err


def test_launch_file_runs_the_same_program_under_the_debugger(train, capsys):
    assert train("--gpus", "0", "--seed", "5", "--print-launch", "vscode") == (0, None, None)
    (entry,) = json.loads(capsys.readouterr().out)["configurations"]
    assert (entry["type"], entry["module"], entry["args"][:2]) == (
        "debugpy",
        "bevformer",
        ["train", "bevformer_tiny"],
    )
    assert entry["args"][-2:] == ["--workers", "0"] and entry["env"]["BEVREPRO_DEBUG"] == "1"
    pytest.importorskip("bevformer.train").parse(entry["args"][1:])


def test_another_editor_is_a_sentence(train, capsys):
    assert train("--print-launch", "ed")[0] == 6 and "vscode" in capsys.readouterr().err


def submit(capsys, *words):
    code = cli.main(["submit", "--slurm", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize(
    "words, said",
    [
        (["--target", "cpu-openmmlab"], "--gpus 1 with target cpu-openmmlab"),
        (["--target", "ascend910b"], "is for ascend accelerators"),
        (["--target", "a1000"], "is 'a100' meant?"),
    ],
)
def test_a_job_for_a_target_that_it_does_not_fit_is_refused_now(capsys, words, said):
    code, _, err = submit(capsys, "--", "bevformer_micro", "--infos", "i", *words)
    assert code == 6 and said in err
    code, text, _ = submit(capsys, "--gpus", "0", "--", "bevformer_micro", "--infos", "i", "--target", "cpu")
    assert code == 0 and "--target cpu" in text


def test_job_file_is_bash_and_starts_train_on_each_machine(capsys):
    words = ["bevformer_base", "--infos", "i n", "--gpus", "8", "--nodes", "2", "--cfg-options", "a=1", "b=2"]
    code, out, _ = submit(capsys, *words)
    assert code == 0 and "#SBATCH --gpus-per-node=8\n" in out and "#SBATCH --nodes=2\n" in out
    assert "#SBATCH --signal=TERM@180\n" in out
    assert "bevrepro train bevformer_base --infos 'i n' --cfg-options a=1 b=2 --gpus 8 --resume auto" in out
    assert '--nodes 2 --rendezvous "$head:$port"' in out
    assert subprocess.run(["bash", "-n"], input=out, text=True, capture_output=True).returncode == 0


def test_job_on_one_machine_meets_nobody(capsys):
    assert "rendezvous" not in submit(capsys, "bevformer_tiny", "--infos", "i")[1]


@pytest.mark.parametrize(
    "words, code",
    [
        (["bevformer_tiny"], 2),  # no --infos: said now, not in the queue
        (["bevformer_tiny", "--infos", "i", "--resume", "auto"], 2),
        (["bevformer_tiny", "--infos", "i", "--epochs", "9"], 2),
        (["bevformer_tiny", "--infos", "i", "--time", "two days"], 6),
        (["bevformer_tiny", "--infos", "i", "--partition", "a b\n#SBATCH"], 6),
    ],
)
def test_a_job_that_would_fail_is_not_printed(capsys, words, code):
    assert submit(capsys, *words)[:2] == (code, "")


def test_plain_lines_say_how_long_it_still_takes(monkeypatch, capsys):
    now_s = iter([0.0, 0.0, 20.0, 20.0, 40.0, 40.0])
    monkeypatch.setattr("bevrepro.cli.progress.time.monotonic", lambda: next(now_s))
    show = _PlainLines("train")
    for done in (10, 20, 100):
        show({"event": "progress", "task": "train", "done": done, "total": 100, "text": "loss 3"})
    assert capsys.readouterr().err.splitlines() == [
        "train 10/100 loss 3", "train 20/100 loss 3  eta 0:02:40", "train 100/100 loss 3"]  # fmt: skip
