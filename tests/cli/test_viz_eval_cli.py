"""`viz` and `eval`: from words on the command line to what the model plane understands."""

import pytest

from bevrepro import cli
from bevrepro.drive import launch


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run a command; returns (exit code, argv of the model plane, None where it was not reached)."""
    seen = {}

    def fake(verb, argv, **more):
        seen.update(argv=argv)
        return {
            "video": "s.mp4",
            "frames": 12,
            "codec": "vp09",
            "pictures": [],
            "results": "r.json",
            "metrics": {},
        }

    monkeypatch.setattr(launch, "run_model", fake)
    (tmp_path / "i.pkl").write_bytes(b"")

    def play(*words):
        seen.clear()
        return cli.main([*words, "--infos", str(tmp_path / "i.pkl")]), seen.get("argv")

    return play


def test_a_film_is_asked_for_as_the_model_plane_reads_it(run, capsys):
    pytest.importorskip("cv2")
    from bevformer import viz

    code, argv = run(
        "viz", "--scene", "scene-0103", "--video", "s.mp4", "--fps", "4", "--style", "paper", "--dpi", "150"
    )
    args = viz.parse(argv)
    assert (code, args.scene, args.video, args.fps, args.out) == (0, "scene-0103", "s.mp4", 4.0, None)
    assert viz.style_of(args).dpi == 150 and viz.style_of(args).width_in < 8
    assert capsys.readouterr().out == "s.mp4 (12 pictures, vp09)\n"


def test_pictures_need_a_place(run):
    assert run("viz") == (2, None)


def test_a_results_file_takes_the_place_of_a_checkpoint(run):
    pytest.importorskip("torch")
    from bevformer import evaluate

    code, argv = run("eval", "bevformer_micro", "--results", "r.json", "--format-only")
    args = evaluate.parse(argv)
    assert (code, args.results, args.checkpoint, args.format_only) == (0, "r.json", None, True)


@pytest.mark.parametrize("words", [[], ["c.pth", "--results", "r.json"]])
def test_a_checkpoint_or_a_results_file_but_not_both(run, words):
    assert run("eval", "bevformer_micro", *words) == (2, None)
