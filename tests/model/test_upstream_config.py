"""Upstream-style configurations, written for this test, are read without being executed."""

import dataclasses

import pytest
from upstream_files import TEMPLATE, TINY, VARIANTS, write

from bevformer.config import preset
from bevformer.errors import ConfigError
from bevformer.upstream_config import read_config
from bevformer.upstream_reader import read_upstream


def tiny(folder, old="", new=""):
    text = TEMPLATE.format(**TINY)
    assert old in text
    return write(folder, text.replace(old, new, 1))


@pytest.mark.parametrize("name", list(VARIANTS))
def test_each_upstream_file_gives_its_preset(tmp_path, name):
    config, notes = read_config(write(tmp_path, TEMPLATE.format(**VARIANTS[name]), name))
    assert config == preset(name)
    assert bool(notes) == (name != "bevformer_tiny")  # the initial weights are named, not followed


def test_a_changed_number_is_taken_over(tmp_path):
    config, _ = read_config(tiny(tmp_path, "lr=2e-4", "lr=1e-4 * 4"))
    assert config.schedule == dataclasses.replace(preset("bevformer_tiny").schedule, lr=4e-4)


@pytest.mark.parametrize(
    "old, new, named",
    [
        ("norm_eval=True", "norm_eval=False", "norm_eval"),
        ("use_shift=True", "use_shift=False", "use_shift"),
        ("num_points_in_pillar=4", "num_points_in_pillar=4, surprise=1", "surprise"),
        ("embed_dims=dim, num_heads=8", "embed_dims=128, num_heads=8", "embed_dims"),
        ("dict(type='PhotoMetricDistortionMultiViewImage')", "dict(type='RandomFlip')", "RandomFlip"),
        ("'car', 'truck'", "'truck', 'car'", "classes"),
        ("scales=[0.5]", "scales=[0.5, 0.6]", "scales"),
        ("policy='CosineAnnealing'", "policy='step'", "policy"),
        ("type='AdamW'", "type='SGD'", "optimizer.type"),
        ("num_query=900", "num_query='many'", "num_query"),
    ],
)
def test_a_line_that_cannot_be_honoured_is_named(tmp_path, old, new, named):
    with pytest.raises(ConfigError) as caught:
        read_config(tiny(tmp_path, old, new))
    assert named in caught.value.seen and "bevformer_tiny.py:" in caught.value.seen


@pytest.mark.parametrize(
    "line",
    [
        "import os",
        "x = open('/etc/passwd')",
        "x = __import__('os')",
        "x = [i for i in (1, 2)]",
        "x = (1).real",
        "x = lambda: 1",
        "x = [0] * 10**9",
        "x = [0] * 999999999",
        "x = 1 / 0",
        "x = y",
        "x += 1",
        "x = f'{1}'",
        "def f(): pass",
        "x = 'a' - 1",
        "x = dict([('a', 1)])",
        "x = {**3}",
    ],
)
def test_nothing_is_executed(tmp_path, line):
    with pytest.raises(ConfigError) as caught:
        read_upstream(write(tmp_path, line + "\n", "hostile"))
    assert "hostile.py" in caught.value.seen


@pytest.mark.parametrize(
    "text",
    [
        "x = (",
        "\0",
        "_base_ = 3",
        "_base_ = ['gone.py']",
        "_base_ = ['hostile.py']",
        "x = " + "(" * 5000 + ")" * 5000,
    ],
)
def test_a_broken_file_is_a_sentence(tmp_path, text):
    with pytest.raises(ConfigError):
        read_config(write(tmp_path, text, "hostile"))


def test_children_win_over_bases_key_by_key_and_delete_starts_afresh(tmp_path):
    path = write(tmp_path, "_base_ = 'base.py'\ndata = dict(train=dict(_delete_=True, a=1))\n", "child")
    data = read_upstream(path)["data"]
    assert data["train"] == {"a": 1} and data["samples_per_gpu"] == 4
