"""The report as a browser shows it: the pictures are there, light, and within the page."""

import os
import shutil
import subprocess

import pytest

from bevrepro.drive.report import Picture, Report, Score
from bevrepro.drive.report_html import render

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
WIDTH, HEIGHT = 1000, 2200
# Colours that nothing else on the page has, as BGR.
COLOURS = ((20, 200, 250), (200, 30, 180), (60, 160, 10))


@pytest.fixture(scope="module")
def browser():
    found = next((shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")), None)
    if found is None:
        pytest.skip("no Chromium here: apt-get install chromium to run this test")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with three pictures of one colour each, larger than the page is wide."""
    cv2, np = pytest.importorskip("cv2"), pytest.importorskip("numpy")
    pictures = []
    for number, colour in enumerate(COLOURS):
        image = np.full((300, 1600, 3), colour, np.uint8)
        pictures.append(Picture(f"picture {number}", cv2.imencode(".png", image)[1].tobytes(), 1600, 300))
    scores = (
        Score("after", "labelled", 0.75, 0.6, 40, "mini_train", class_ap={"car": 0.8}),
        Score("unseen", "all", 0.01, 0.1, 20, "mini_val"),
    )
    folder = tmp_path_factory.mktemp("page")
    losses = tuple((step, 60.0 / (1 + step / 40)) for step in range(10, 500, 10))
    made = Report(folder, "now", "0", (), {"cpu": "a CPU"}, None, None, losses, scores, tuple(pictures), ())
    (folder / "report.html").write_text(render(made), encoding="utf-8")
    return folder / "report.html"


@pytest.fixture(scope="module")
def screen(browser, page, tmp_path_factory):
    """The page as BGR pixels, (HEIGHT, WIDTH, 3)."""
    import cv2

    shot, profile = page.with_suffix(".png"), tmp_path_factory.mktemp("profile")
    command = [browser, *FLAGS, f"--user-data-dir={profile}", f"--window-size={WIDTH},{HEIGHT}",
               f"--screenshot={shot}", page.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    kept = os.environ.get("BEVREPRO_SCREENSHOT")  # to look at it
    if kept and shot.exists():
        shutil.copy(shot, kept)
    assert shot.exists(), done.stderr[-2000:]
    return cv2.imread(str(shot))


def places(screen, colour):
    """(rows, columns) of the pixels of that colour."""
    import numpy as np

    return np.nonzero((np.abs(screen.astype(int) - colour) <= 3).all(axis=2))


def test_every_picture_is_shown_in_its_order_and_proportions(screen):
    tops = []
    for colour in COLOURS:
        rows, columns = places(screen, colour)
        width, height = columns.max() - columns.min() + 1, rows.max() - rows.min() + 1
        assert width > 0.85 * WIDTH and abs(width / height - 1600 / 300) < 0.2
        tops.append(rows.min())
    assert tops == sorted(tops)


def test_nothing_runs_over_the_edge(screen):
    assert (screen[:, -8:] >= 250).all() and (screen[:, :8] >= 250).all()


def test_loss_curve_is_drawn_across_the_page(screen):
    rows, columns = places(screen, (0xEB, 0x6F, 0x1F))  # its blue
    assert columns.max() - columns.min() > 0.7 * WIDTH and rows.max() - rows.min() > 80


def test_page_is_light_and_has_text(screen):
    assert (screen.min(axis=2) > 240).mean() > 0.5
    assert 0.001 < (screen.max(axis=2) < 100).mean() < 0.2
