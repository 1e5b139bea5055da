"""The self-test of a toolkit: nvcc's errors as sentences. The texts are what broken toolkits printed."""

import pytest

from bevrepro.env.nvcc_check import NEEDED, ToolkitError, check, explain

SAID = {
    "gcc is too new": "host_config.h:132:2: error: #error -- unsupported GNU version! gcc versions later",
    "found no usable g++": "gcc: No such file or directory\nnvcc fatal   : Failed to preprocess host",
    "no linker": "collect2: fatal error: cannot find ‘ld’\ncompilation terminated.",
    "C library": "host_config.h:208:10: fatal error: features.h: No such file or directory",
    "no CUDA runtime": "/usr/bin/ld: cannot find -lcudart: No such file or directory\ncollect2: error: ld",
    "does not know sm_80": "nvcc fatal   : Value 'sm_120' is not defined for option 'gpu-architecture'",
    "does not know": "nvcc fatal   : Unsupported gpu architecture 'sm_70'",
    "lacks a part": "sh: 1: cicc: not found",
    "a part of its own": "sh: 1: cicc: Permission denied",
    "part of its": "cuda_runtime.h:83:10: fatal error: crt/host_config.h: No such file or directory",
    "temporary files": "fatal error: when writing output to /tmp/x.ii: No space left on device",
    "its temporary": "nvcc fatal   : Could not open output file '/none/tmpxft_000024a3_0000000a'",
    "failed for sm_80": "something nobody has seen",
}


@pytest.mark.parametrize("sentence, text", SAID.items(), ids=SAID)
def test_nvccs_errors_are_told_in_a_sentence(sentence, text, tmp_path):
    error = explain(text, tmp_path, "sm_80")
    assert sentence in error.seen and error.do


@pytest.fixture
def toolkit(tmp_path):
    """A whole toolkit whose nvcc is a script."""

    def made(script):
        for name in NEEDED:
            (tmp_path / "home" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "home" / name).touch()
        nvcc = tmp_path / "home/bin/nvcc"
        nvcc.write_text("#!/bin/sh\n" + script)
        nvcc.chmod(0o755)
        return tmp_path / "home"

    return made


VERSION = '[ "$1" = --version ] && echo "Cuda compilation tools, release 11.8, V11.8.89" && exit 0\n'
WRITES = 'while [ "$1" != -o ]; do shift; done\n'


def test_a_cubin_and_a_library_are_made_and_removed_again(toolkit, tmp_path):
    home = toolkit(VERSION + WRITES + 'printf "\\177ELF" > "$2"\n')
    (tmp_path / "scratch").mkdir()
    done = check(home, "sm_80", tmp_path / "scratch")
    assert (done.nvcc, done.arch, done.cubin_b) == ("11.8.89", "sm_80", 4)
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    "script, sentence",
    [
        ("exit 1\n", "failed for"),
        (VERSION + "echo 'sh: 1: cicc: not found' >&2; exit 1\n", "lacks a part"),
        (VERSION + "exit 0\n", "left no cubin behind"),
        (VERSION + WRITES + 'echo text > "$2"\n', "left no cubin behind"),
    ],
)
def test_an_nvcc_that_does_not_work_is_no_success(toolkit, script, sentence, tmp_path):
    with pytest.raises(ToolkitError, match=sentence):
        check(toolkit(script), "sm_80", tmp_path)


@pytest.mark.parametrize("missing", ["nvvm/libdevice/libdevice.10.bc", "bin/ptxas", "include/cuda_runtime.h"])
def test_half_a_toolkit_is_named_before_nvcc_borrows_from_elsewhere(toolkit, missing, tmp_path):
    home = toolkit(VERSION)
    (home / missing).unlink()
    with pytest.raises(ToolkitError, match=f"half a toolkit: it lacks {missing}"):
        check(home, "sm_80", tmp_path)
