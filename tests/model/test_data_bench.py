"""data bench: the same files in every way, each byte of them consumed, verdicts from the rounds."""

import json

import pytest

from bevformer.data import bench_main, bench_measure, bench_set
from bevformer.data.store import open_store
from bevformer.errors import DataError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "set"
    bench_set.make(str(folder), 0.025, 0, lambda done, total: None)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "cache"))


def test_folder_tar_and_tgz_hold_the_same_files_of_both_sizes(made):
    folder, tar, tgz = (open_store([str(made / name)]) for name in ("extracted", "bench.tar", "bench.tgz"))
    assert folder.names() == tar.names() == tgz.names()
    assert all(folder.read(name) == tar.view(name) == tgz.read(name) for name in tar.names()[::20])
    assert len(tar.names("samples")) > 100 and len(tar.names("scaled")) > 100
    assert (made / "bench.tgz").stat().st_size > 0.95 * (made / "bench.tar").stat().st_size  # as pictures


def test_folder_and_tar_are_measured_warm_and_cold(made, heard):
    places = [str(made / name) for name in ("extracted", "bench.tar")]
    assert bench_main.main(["--measure", *places, "--rounds", "2"], heard) == 0
    (result,) = heard.results
    for one in result["classes"].values():
        assert {"extracted", "tar Store.view", "tar Store.view, again", "tar Store.read"} <= set(one["warm"])
        assert set(one["cold"]) == {"extracted", "tar Store.view", "tar Store.read"}
        assert set(one["cold"]) <= set(one["warm, read in order"]) < set(one["warm"])


@pytest.mark.slow
def test_every_reader_is_measured_warm_and_cold(made, heard, tmp_path):
    places = [str(made / name) for name in ("extracted", "bench.tar", "bench.tgz")]
    assert bench_main.main(["--measure", *places, "--rounds", "3"], heard) == 0
    (result,) = heard.results
    for one in result["classes"].values():
        assert {"extracted", "tar Store.view", "tar Store.view, again", "tar Store.read"} <= set(one["warm"])
        assert {"extracted", "tar Store.view", "tgz Store spacing 1 MiB"} <= set(one["cold"])
        assert one["warm"]["extracted"]["times_extracted"] == 1.0
    assert {row["files"] for row in result["wanted"]} == {"100-200 KB", "10-40 KB"}
    assert {row["state"] for row in result["wanted"]} == {"warm", "warm, read in order"}
    assert all(row["met"] == (row["times"] >= row["wanted"]) for row in result["wanted"])
    assert "every reader alike" in result["protocol"]["consumed"] and json.dumps(result)


def test_a_ratio_is_the_median_of_the_rounds_not_of_all_times():
    rates = {"a": [(1.0, 0), (9.0, 0), (2.0, 0)], "b": [(3.0, 0), (27.0, 0), (2.0, 0)]}
    assert bench_measure.ratio(rates, "a", "b") == 3.0


def test_consuming_looks_at_every_byte():
    data = bytes(range(1, 20))
    found = {bench_measure.consume(data[:i] + b"\0" + data[i + 1 :]) for i in range(19)}
    assert len(found) == 19 and bench_measure.consume(memoryview(data)) == bench_measure.consume(data)


@pytest.mark.parametrize(
    "names, match", [(["bench.tar", "bench.tar"], "both a tar"), ([], "nothing to read")]
)
def test_places_that_make_no_sense_are_said(made, heard, names, match):
    with pytest.raises(DataError, match=match):
        bench_main.main(["--measure", *(str(made / name) for name in names)] if names else [], heard)


@pytest.mark.slow
def test_an_index_of_200_000_files_takes_under_8_cpu_s_and_100_mb(tmp_path):
    found = bench_main.index_test(str(tmp_path))
    assert found["scanned"]["files"] == 200_000
    assert found["scanned"]["cpu_s"] < 8 and found["scanned"]["max_rss_mb"] < 100
    assert found["from_cache"]["cpu_s"] < 2 and found["from_cache"]["max_rss_mb"] < 100
