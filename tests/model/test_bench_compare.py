"""Two documents side by side, and their picture."""

import json

import pytest
import torch

from bevformer import bench, bench_common, bench_plot
from bevformer.errors import ConfigError, UserError


def write(folder, name, seconds, kind="ops", **changes):
    header = bench_common.begin(kind, [], torch.device("cpu"), 0.0)
    rows = [bench_common.row("base spatial", "forward", who, [s], right=s < 9) for who, s in seconds.items()]
    made = bench_common.finish(header, rows)
    made["host"].update(changes)
    path = folder / name
    path.write_text(json.dumps(made))
    return str(path)


def test_the_same_rows_are_set_against_each_other(tmp_path, heard):
    first = write(tmp_path, "a.json", {"cpp": 4.0, "mmcv": 1.0}, threads=2)
    second = write(tmp_path, "b.json", {"cpp": 2.0, "triton": 1.0}, threads=8)
    assert bench.main(["--compare", first, second], heard) == 0
    result = heard.results[0]
    assert [(row["who"], row["times"]) for row in result["rows"]] == [("cpp", 2.0)]
    assert result["alone"] == {"a": ["base spatial, forward, mmcv"], "b": ["base spatial, forward, triton"]}
    assert result["differ"] == ["threads: 2 / 8"] and any("threads: 2 / 8" in note for note in heard.notes)


def test_two_kinds_are_not_compared(tmp_path, heard):
    paths = [write(tmp_path, f"{kind}.json", {"cpp": 1.0}, kind) for kind in ("ops", "step")]
    with pytest.raises(ConfigError, match="of `bench ops`.* of `bench step`"):
        bench.main(["--compare", *paths], heard)


@pytest.mark.parametrize("ending, magic", [("png", b"\x89PNG"), ("svg", b"<?xml"), ("PDF", b"%PDF-")])
def test_a_plot_is_drawn_in_the_format_of_its_name(tmp_path, heard, ending, magic):
    path = write(tmp_path, "a.json", {"grid_sample": 10.0, "cpp": 4.0})
    out = tmp_path / f"plot.{ending}"
    assert bench.main(["--plot", str(out), path, path], heard) == 0
    assert out.read_bytes().startswith(magic)


def test_wrong_numbers_are_said_in_the_picture_and_contenders_keep_their_colour(tmp_path):
    rows = json.loads(open(write(tmp_path, "a.json", {"grid_sample": 10.0, "cpp": 4.0})).read())
    figure = bench_plot.draw([rows])
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert any("10 s" in text and "wrong!" in text for text in texts) and any("4 s" in text for text in texts)
    assert list(bench_plot.colours_of(rows["rows"])) == ["cpp"]  # what others are measured against is grey


@pytest.mark.parametrize(
    "words, said",
    [
        (["--plot", "a.json"], "--plot a.json"),
        (["--plot", "a.png"], "names no file"),
        (["nothing"], "no such benchmark: 'nothing'"),
    ],
)
def test_words_that_make_no_sense_are_refused(heard, words, said):
    with pytest.raises(ConfigError, match=said):
        bench.main(words, heard)


def test_words_are_drawn_as_they_are_and_what_no_picture_holds_is_refused(tmp_path, heard):
    words = {"a $x_{$ b": 1.0, "half \ud800": 2.0}
    path = write(tmp_path, "a.json", words, cpu="$\\frac{$ \ud83d")
    assert bench.main(["--plot", str(tmp_path / "plot.png"), path], heard) == 0
    many = write(tmp_path, "many.json", {"who %d" % place: 1.0 for place in range(2600)})
    with pytest.raises(ConfigError, match="2600 rows are too much for one picture"):
        bench.main(["--plot", str(tmp_path / "many.png"), many], heard)


def test_without_matplotlib_it_says_what_to_install(tmp_path, heard, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match="nothing can be drawn") as caught:
        bench.main(["--plot", str(tmp_path / "a.png"), write(tmp_path, "a.json", {"cpp": 1.0})], heard)
    assert "pip install matplotlib" in caught.value.do
