"""The small TOML reader that also works where tomllib does not exist."""

from pathlib import Path

import pytest
import target_file

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib to compare with")
TARGETS = sorted((Path(target_file.ENVS) / "targets").glob("*.toml"))


@pytest.mark.parametrize("path", TARGETS, ids=lambda path: path.stem)
def test_every_target_reads_as_tomllib_reads_it(path):
    assert target_file.parse(path.read_text()) == tomllib.loads(path.read_text())


@pytest.mark.parametrize(
    "text",
    [
        'a = "x # y" # z',
        "a = [\n  1, # one\n  2,\n]",
        "[t.u]\nb = true\n[[t.v]]\nc = 1\n[[t.v]]\nc = 2.5",
        "",
    ],
)
def test_the_subset_reads_as_tomllib_reads_it(text):
    assert target_file.parse(text) == tomllib.loads(text)


@pytest.mark.parametrize("text", ["nonsense", "a = [\n 1,", "a = 'single quotes'"])
def test_what_is_outside_the_subset_is_refused(text):
    with pytest.raises(ValueError):
        target_file.parse(text)
