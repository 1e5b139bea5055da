"""What a work folder becomes: values, then one page that needs nothing else."""

import base64
import json
import re
import zlib

import pytest

from bevrepro.core.errors import DataError
from bevrepro.core.machine import Cpu, Host, Machine, Package, Python
from bevrepro.core.paths import atomic_write_text
from bevrepro.doctor.record import save
from bevrepro.drive import report, verdict_html
from bevrepro.drive.axes import round_ticks
from bevrepro.drive.report_html import log_ticks, loss_svg, render, step_ticks

ENTRY = {
    "mAP": 0.75,
    "NDS": 0.6,
    "num_samples": 40,
    "split": "mini_train",
    "errors": {"mATE": 0.3, "mASE": 0.1, "mAOE": 0.5, "mAVE": 0.9, "mAAE": 0.2},
    "class_ap": {"car": 0.8, "traffic_cone": 0.7},
    "detail": {"pts_bbox_NuScenes/car_trans_err": 0.25, "pts_bbox_NuScenes/traffic_cone_orient_err": None},
}


def png(width=4, height=3):
    """A red picture, written by hand."""

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    rows = (b"\x00" + b"\xff\x00\x00" * width) * height
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.fixture
def work(tmp_path):
    """A work folder with everything in it."""
    folder = tmp_path / "work"
    for name, subset in (
        ("unseen", "all"),
        ("before", "labelled"),
        ("after", "labelled"),
        ("after", "between"),
    ):
        path = folder / "eval" / name / "eval.json"
        held = json.loads(path.read_text()) if path.exists() else {}
        atomic_write_text(path, json.dumps({**held, subset: ENTRY}))
    (folder / "viz" / "trained").mkdir(parents=True)
    (folder / "viz" / "trained" / "scene-0061_003.png").write_bytes(png())
    run = {"config_name": "bevformer_micro", "status": "finished", "seed": 0, "steps": 30, "total_steps": 30}
    run.update(seconds_per_step=0.125, peak_rss_gib=0.7, ledger=[], sessions=[{"command": ["python", "x y"]}])
    (folder / "run.json").write_text(json.dumps(run))
    lines = [{"mode": "train", "step": step, "loss": 50.0 / step} for step in (10, 20, 30)]
    (folder / "20260101_000000.log.json").write_text(
        "\n".join(map(json.dumps, [{"seed": 0}, *lines])) + '\n{"mo'
    )
    packages = (Package("torch", "2.13.0", "/a"), Package("numpy", "1.26.4", "/a"))
    save(Machine(host=Host(system="Linux"), cpu=Cpu(model="Some CPU"), python=Python(packages=packages)),
         folder / "machine.json")  # fmt: skip
    return folder


def test_scores_come_in_the_order_they_are_told(work):
    scores = report.collect(work).scores
    assert [score.title for score in scores] == [
        "Before training, the frames to be trained on",
        "Trained frames",
        "Unlabelled frames between them",
        "Unseen scenes",
    ]
    assert scores[0].class_errors["car"]["trans_err"] == 0.25
    assert scores[0].class_errors["traffic_cone"]["orient_err"] is None


def test_half_a_log_line_of_a_killed_process_is_left_out(work):
    assert report.read_losses(work) == ((10, 5.0), (20, 2.5), (30, 50.0 / 30))


def test_resumed_session_replaces_the_steps_it_repeats(work):
    (work / "20260102_000000.log.json").write_text('{"mode": "train", "step": 20, "loss": 2.0}\n')
    assert dict(report.read_losses(work))[20] == 2.0


def test_recorded_machine_is_used_and_its_packages_digested(work):
    made = report.collect(work)
    assert "Some CPU" in made.machine["cpu"]
    assert made.environment.count == 2
    assert made.environment.digest == report.packages_digest(["numpy==1.26.4", "torch==2.13.0"])


def test_first_of_two_installed_versions_counts():
    packages = [Package("numpy", "1.26.4", "/first"), Package("numpy", "1.20.0", "/second")]
    assert report.package_lines(packages) == ["numpy==1.26.4"]


def test_commands_of_the_demo_come_before_those_of_the_training(work):
    assert report.collect(work).commands[0].text == "python 'x y'"
    (work / "commands.json").write_text('{"commands": [{"text": "bevrepro doctor", "seconds": 1.5}]}')
    assert report.collect(work).commands == (report.Command("bevrepro doctor", 1.5),)


def test_page_is_self_contained(work):
    page = render(report.collect(work))
    sources = re.findall(r'(?:src|href|url)\s*[=(]\s*"?([^">)\s]+)', page)
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<script" not in page and "default-src 'none'" in page
    assert base64.b64encode(png()).decode() in page


@pytest.mark.parametrize(
    "words",
    ["0.750", "Trained frames", "not the demo&#x27;s claim|not the demo's claim", "0.125 s", "mini_train",
     "Some CPU", "sha256", "<svg", "python &#x27;x y&#x27;", "Trained frame: scene-0061", "DetectionEval"],
)  # fmt: skip
def test_page_shows(work, words):
    assert re.search(words, render(report.collect(work)))


def test_names_are_escaped(work):
    (work / "commands.json").write_text('{"commands": [{"text": "<script>alert(1)</script>"}]}')
    assert "<script>alert" not in render(report.collect(work))


def test_the_verdict_stands_on_the_page_with_its_cause_and_the_next_command(work):
    cause = {"name": "box convention", "seen": "mASE <0.71>", "where": "metrics", "sure": False}
    verdict = {"recipe": "bevformer_tiny", "kind": "eval-verified", "word": "below", "passed": False,
               "sentence": "below it", "map": 0.252, "nds": 0.256, "wanted_map": [0.251, 0.253],
               "wanted_nds": None, "causes": [cause], "next": "bevrepro data prepare"}  # fmt: skip
    (work / "verdict.json").write_text(json.dumps(verdict))
    text = render(report.collect(work))
    for words in (
        "BELOW",
        "0.2510 to 0.2530",
        "box convention",
        "mASE &lt;0.71&gt;",
        "bevrepro data prepare",
    ):
        assert words in text
    (work / "verdict.json").write_text("{}")
    assert "<h2>Verdict</h2>" in render(report.collect(work))


def test_another_run_is_laid_over_this_one(work, tmp_path):
    lines = [{"mode": "train", "step": step, "iter": step, "loss": 51.0 / step} for step in (10, 20, 30)]
    (tmp_path / "other.log.json").write_text("\n".join(map(json.dumps, lines)))
    page = report.write_report(work, against=tmp_path / "other.log.json").read_text()
    assert "Compared step by step" in page and "parts first at" in page


def test_broken_parts_are_named_and_the_rest_shown(work):
    (work / "viz" / "trained" / "half.png").write_bytes(png()[:30])
    (work / "eval" / "after" / "eval.json").write_text('{"labelled": ')
    made = report.collect(work)
    assert len(made.pictures) == 1 and len(made.scores) == 2
    assert any("half.png" in gap for gap in made.gaps) and any("eval.json" in gap for gap in made.gaps)
    assert "Not in this report" in render(made)


def test_missing_or_empty_folder_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        report.collect(tmp_path / "nowhere")
    with pytest.raises(DataError, match="nothing to report"):
        report.collect(tmp_path)


def test_report_lands_in_the_work_folder_or_where_told(work, tmp_path):
    assert report.write_report(work) == work / "report.html"
    assert report.write_report(work, tmp_path / "page.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("low, high", [(3.0, 70.0), (0.004, 0.0041), (9.0, 9.0), (1e-7, 1e4)])
def test_loss_axis_encloses_the_values(low, high):
    ticks = log_ticks(low, high)
    assert ticks[0] <= low * 1.001 and ticks[-1] >= min(high, low * 1e11) * 0.999 or low == high
    assert "nan" not in loss_svg([(1, low), (2, high)])


def test_step_axis_has_round_numbers():
    assert step_ticks(10, 1900) == [500, 1000, 1500]


def test_the_numbers_stand_on_their_band_with_what_was_published():
    verdict = {"recipe": "micro_synth", "kind": "train-verified", "word": "below", "map": 0.001, "nds": 0.2,
               "wanted_map": [0.029, 0.3604], "wanted_nds": [0.168, 0.3034]}  # fmt: skip
    text = verdict_html.section(verdict)
    assert text.count("<circle") == 16 and text.count("<rect") == 2 and "Dots: what was published" in text
    assert "0.0010, wanted 0.0290 to 0.3604" in text and "nan" not in text
    assert "<circle" not in verdict_html.section({**verdict, "recipe": "unknown"})
    assert "<rect" not in verdict_html.band_svg("mAP", 0.1, None, [], "#000")


@pytest.mark.parametrize(
    "low, high", [(3.1, 70.0), (0.0041, 0.0042), (-3.0, 4.0), (1e-7, 1e4), (24.0, 24.001)]
)
def test_round_ticks_enclose_both_and_are_few(low, high):
    ticks = round_ticks(low, high)
    assert ticks[0] <= low and ticks[-1] >= high and 3 <= len(ticks) <= 9
    assert all(len(f"{tick:g}") <= 7 for tick in ticks)


def test_a_verdict_alone_makes_a_page(tmp_path):
    (tmp_path / "verdict.json").write_text('{"word": "not reached", "recipe": "micro_synth"}')
    assert "<h1>micro_synth</h1>" in render(report.collect(tmp_path))
