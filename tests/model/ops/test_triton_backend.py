"""Where the Triton attentions run and what they refuse; none of it needs Triton."""

import ast
import itertools
import os
import sys
import tempfile
import types
from pathlib import Path

import pytest
import torch
from attention_cases import CASES, Inputs, apply, inputs_of

from bevformer.errors import ConfigError
from bevformer.ops import triton_backend
from bevformer.ops.triton_blocks import CHANNELS_PER_THREAD, block


@pytest.mark.parametrize(
    ("module", "device", "said"),
    [
        (None, "cuda", "triton"),
        (types.SimpleNamespace(__version__="2.3.1"), "cuda", "triton is 2.3.1"),
        (types.SimpleNamespace(__version__="3.7.1"), "cpu", "the device is cpu"),
    ],
    ids=["missing", "old", "cpu"],
)
def test_where_it_cannot_run_it_says_why_and_what_else_there_is(monkeypatch, module, device, said):
    monkeypatch.setitem(sys.modules, "triton", module)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ConfigError) as error:
        triton_backend.load(device)
    assert said in error.value.seen and error.value.why and "ops.attention=reference" in error.value.do


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_nothing_to_compile_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", types.SimpleNamespace(__version__="3.7.1"))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        triton_backend.load("cuda")


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    """A home in which nothing can be made, and the folder for temporary ones."""
    monkeypatch.setenv("TRITON_CACHE_DIR", "")
    monkeypatch.setenv("TRITON_HOME", "/dev/null")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_where_triton_cannot_write_its_cache_it_gets_the_same_folder_every_time(no_cache, monkeypatch):
    folders = []
    for _ in range(2):
        monkeypatch.setenv("TRITON_CACHE_DIR", "")
        with pytest.warns(UserWarning, match="cannot write /dev/null/.triton/cache"):
            triton_backend.find_cache()
        folders.append(os.environ["TRITON_CACHE_DIR"])
    assert folders[0] == folders[1] and os.stat(folders[0]).st_mode & 0o777 == 0o700
    triton_backend.find_cache()  # one that is named is left as it is
    assert os.environ["TRITON_CACHE_DIR"] == folders[0]


def test_a_folder_that_others_can_write_is_no_cache(no_cache):
    (no_cache / ("bevformer-triton-%d" % os.getuid())).mkdir()
    (no_cache / ("bevformer-triton-%d" % os.getuid())).chmod(0o777)
    with pytest.warns(UserWarning, match="TRITON_CACHE_DIR"):
        triton_backend.find_cache()
    assert "bevformer-triton" not in os.environ["TRITON_CACHE_DIR"]


def test_a_cache_that_can_be_written_stays_tritons(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", "")
    monkeypatch.setenv("TRITON_HOME", str(tmp_path))
    triton_backend.find_cache()
    assert os.environ["TRITON_CACHE_DIR"] == "" and (tmp_path / ".triton/cache").is_dir()


def constants_of(function):
    """Names of the arguments that are `tl.constexpr`."""
    return {each.arg for each in function.args.args if getattr(each.annotation, "attr", "") == "constexpr"}


def indexed(function):
    values = [each.value for each in ast.walk(function) if isinstance(each, ast.Subscript)]
    return constants_of(function) & {getattr(each, "id", "") for each in values}


def test_no_kernel_indexes_a_constant_which_triton_3_0_to_3_2_cannot():
    """They come with torch 2.4 to 2.6, and 3.0 is the oldest that `OLDEST_TRITON` lets in."""
    files = Path(triton_backend.__file__).parent.glob("triton_*.py")
    nodes = [each for file in files for each in ast.walk(ast.parse(file.read_text()))]
    functions = [each for each in nodes if isinstance(each, ast.FunctionDef)]
    assert sum(bool(constants_of(each)) for each in functions) > 5
    assert {each.name: indexed(each) for each in functions if indexed(each)} == {}


def bad_inputs(kind):
    given = inputs_of(CASES["decoder"])
    value, points, offsets, logits = given.value, given.points, given.offsets, given.logits
    return {
        "float64": Inputs(value.double(), offsets, logits, points),
        "heads": Inputs(value[..., :6], offsets, logits, points),
        "levels": Inputs(value[:, 1:], offsets, logits, points),
        "offsets": Inputs(value, offsets[:, 1:], logits, points),
        "points": Inputs(value, offsets, logits, points[:, 1:]),
        "huge": Inputs(torch.empty(2, 2**28, 8, device="meta"), offsets, logits, points),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("float64", ConfigError, "torch.float64"),
        ("heads", ConfigError, "6 channels in 2 heads"),
        ("huge", ConfigError, "2147483648 numbers"),
        ("levels", ValueError, "do not fit together"),
        ("offsets", ValueError, "do not fit together"),
        ("points", ValueError, "do not fit together"),
    ],
)
def test_what_the_kernels_do_not_take_is_refused(monkeypatch, kind, error, said):
    fake = types.SimpleNamespace(DeformAttn=None)  # never reached
    monkeypatch.setitem(sys.modules, "bevformer.ops.triton_autograd", fake)
    with pytest.raises(error, match=said):
        apply(triton_backend.make(False), CASES["decoder"], bad_inputs(kind))


def test_points_of_cameras_get_no_gradient(monkeypatch):
    monkeypatch.setitem(sys.modules, "bevformer.ops.triton_autograd", types.SimpleNamespace(SpatialAttn=None))
    given = inputs_of(CASES["tiny"])
    given.points.points_VZ2.requires_grad_()
    with pytest.raises(ConfigError, match="points require a gradient"):
        apply(triton_backend.make(False), CASES["tiny"], given)


@pytest.mark.parametrize(("which", "itemsize", "vector"), CHANNELS_PER_THREAD)
def test_blocks_are_powers_of_two_that_hold_every_sample(which, itemsize, vector):
    for D, samples in itertools.product((4, 32, 256), (4, 8, 12, 32)):
        size = block(which, itemsize, D, samples, 90 if vector else 86)
        assert size.width >= max(D, samples) and size.rows >= 1
        assert size.rows & (size.rows - 1) == size.width & (size.width - 1) == 0
