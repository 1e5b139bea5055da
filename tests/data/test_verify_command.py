"""`bevrepro data verify` as it is typed, and stopped at any moment."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from bevrepro.cli import app

from . import published


def run(*words):
    return CliRunner().invoke(app, ["data", "verify", *map(str, words)])


@pytest.fixture
def root(tmp_path):
    return published.extract(tmp_path / "nuscenes")


def test_it_reports_as_text_and_as_json_and_into_a_file(root, tmp_path):
    done = run(root, "--json", "--out", tmp_path / "data.json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told == json.loads((tmp_path / "data.json").read_text()) and told["verdict"] == "whole"
    assert "36 of 36 files" in run(root, "--fast").stdout


def test_a_missing_file_ends_in_exit_code_1_and_is_named(root):
    (root / "samples/CAM_BACK/0.jpg").unlink()
    done = run(root)
    assert done.exit_code == 1 and "samples/CAM_BACK/0.jpg" in done.stdout.replace("\n", "").replace(" ", "")


def test_the_report_is_never_written_into_the_data(root):
    done = run(root, "--out", root / "data.json")
    assert done.exit_code != 0 and not (root / "data.json").exists()


def test_a_dry_run_says_what_would_be_read_and_reads_nothing(tmp_path):
    folder = published.archives(tmp_path / "downloads")
    told = json.loads(run(folder, "--dry-run", "--json").stdout)
    assert {row["inside"] for row in told["archives"]} == {True}
    assert not (tmp_path / "home/cache/verify").exists()


@pytest.mark.parametrize("words", [["--files", "cats"], ["--jobs", "0"]])
def test_wrong_words_are_told(root, words):
    assert run(root, *words).exit_code == 2


def test_nothing_to_verify_is_an_error_in_words(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bevrepro", "data", "verify", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 4 and "nothing of nuScenes" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_killed_or_stopped_at_any_moment_it_goes_on(tmp_path):
    """20 tries: SIGKILL and Ctrl-C, at random moments of a run over four archives."""
    rng, content = random.Random(5), {}
    for number in range(400):
        content[f"samples/RADAR_FRONT/{number}.pcd"] = rng.randbytes(30_000)
    for number in range(4):
        published.pack(tmp_path / f"v1.0-trainval{number + 1:02}_blobs_radar.tgz", content, list(content))
    archives = sorted(tmp_path.glob("*.tgz"))
    before = [(path.stat().st_mtime_ns, path.read_bytes()) for path in archives]
    words = ["data", "verify", "--json", *map(str, archives)]
    command = [sys.executable, "-m", "bevrepro", *words]
    told = "from bevrepro.__main__ import main; print('up', flush=True); raise SystemExit(main())"
    seen = set()
    for number in range(20):
        child = subprocess.Popen(
            [sys.executable, "-c", told, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        child.stdout.readline()  # before it Python itself answers to Ctrl-C
        time.sleep(rng.uniform(0.05, 2.2))
        os.killpg(child.pid, signal.SIGKILL if number % 2 else signal.SIGINT)
        out, said = child.communicate(timeout=60)
        seen.add(child.returncode)
        assert "Traceback" not in said and child.returncode in (-9, 130, 0), (child.returncode, said)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [row["files"] for row in json.loads(done.stdout)["archives"]] == [400] * 4
    assert [(path.stat().st_mtime_ns, path.read_bytes()) for path in archives] == before
    assert len(seen) > 1
