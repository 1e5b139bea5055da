"""nvidia-smi, nvcc and gcc as recorded; toolkits as folders."""

from pathlib import Path

import pytest

from bevrepro.core.errors import MachineError
from bevrepro.core.proc import Done
from bevrepro.probe import cuda

A100 = "NVIDIA A100-SXM4-80GB, 81920, 81251, 00000000:07:00.0, 535.183.01, 8.0\n"


def answer(monkeypatch, programs):
    """Programs on PATH and what they say: a Done, or a function of argv."""
    monkeypatch.setattr(cuda.proc, "which", lambda name: Path("/bin") / name if name in programs else None)

    def run(argv, **_):
        said = programs[Path(argv[0]).name]
        return said(argv) if callable(said) else said

    monkeypatch.setattr(cuda.proc, "run", run)
    monkeypatch.setattr(cuda, "WSL_NVIDIA_SMI", Path("/nonexistent"))


def test_no_nvidia_smi_means_no_gpu(monkeypatch, tmp_path):
    answer(monkeypatch, {})
    found = cuda.probe_cuda(tmp_path, {})
    assert (found.nvidia_smi, found.gpus, found.driver, found.toolkit) == ("absent", (), None, None)
    assert found.toolkit_searched


def test_gpus_and_driver_are_read(monkeypatch, tmp_path):
    answer(monkeypatch, {"nvidia-smi": Done(0, A100 * 2, "")})
    found = cuda.probe_cuda(tmp_path, {})
    assert (found.nvidia_smi, found.driver, len(found.gpus)) == ("ok", "535.183.01", 2)
    assert (found.gpus[0].memory_total_mib, found.gpus[0].capability) == (81920, "8.0")


def test_an_old_driver_that_does_not_know_compute_cap_is_asked_again(monkeypatch, tmp_path):
    def old(argv):
        if "compute_cap" in argv[1]:
            return Done(2, 'Field "compute_cap" is not a valid field to query.\n', "")
        return Done(0, "Tesla V100-SXM2-16GB, 16160, 16000, 00000000:1A:00.0, 440.33.01\n", "")

    answer(monkeypatch, {"nvidia-smi": old})
    found = cuda.probe_cuda(tmp_path, {})
    assert (found.nvidia_smi, found.driver, found.gpus[0].capability) == ("ok", "440.33.01", None)


@pytest.mark.parametrize(
    "done, state, said",
    [
        (Done(-9, "", "", timed_out=True), "hung", None),
        (Done(9, "NVIDIA-SMI has failed because it couldn't communicate\n", ""), "failed", "communicate"),
        (Done(18, "", "Failed to initialize NVML: Driver/library version mismatch"), "failed", "mismatch"),
        (Done(0, "\x00\x01 segmentation, fault", ""), "garbage", "segmentation"),
        (Done(9, "\x1b[31mred\x00 alert\n", ""), "failed", "[31mred alert"),
        (Done(255, "", ""), "failed", "exit status 255"),
    ],
)
def test_a_broken_nvidia_smi_is_recorded_as_such(monkeypatch, tmp_path, done, state, said):
    answer(monkeypatch, {"nvidia-smi": done})
    found = cuda.probe_cuda(tmp_path, {})
    assert (found.nvidia_smi, found.gpus) == (state, None)
    assert said is None or said in found.nvidia_smi_said


def test_an_nvidia_smi_that_may_not_be_started_is_recorded(monkeypatch, tmp_path):
    def refuse(argv):
        raise MachineError("could not start nvidia-smi: Permission denied")

    answer(monkeypatch, {"nvidia-smi": refuse})
    assert cuda.probe_cuda(tmp_path, {}).nvidia_smi == "failed"


def test_cells_without_a_value_are_unknown():
    driver, gpus = cuda.parse_nvidia_smi("GRID, [N/A], [Not Supported], 00:00.0, 550.1, [N/A]\n")
    assert (driver, gpus[0].memory_total_mib, gpus[0].capability) == ("550.1", None, None)


@pytest.mark.parametrize(
    "text, version",
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30", "550.54.14"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  560.35.03  Release Build", "560.35.03"),
        ("", None),
        (None, None),
    ],
)
def test_the_loaded_module_tells_the_driver(text, version):
    assert cuda.driver_of_module(text) == version


def toolkit(folder, limit=13):
    for name, text in {"bin/nvcc": "", "include/crt/host_config.h": f"#if __GNUC__ > {limit}\n"}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


NVCC = {"nvcc": Done(0, "Cuda compilation tools, release 12.4, V12.4.131\n", "")}


def test_cuda_home_comes_before_everything_else(monkeypatch, tmp_path):
    answer(monkeypatch, NVCC)
    home = toolkit(tmp_path / "mine")
    toolkit(tmp_path / "usr/local/cuda")
    found = cuda.probe_cuda(tmp_path, {"CUDA_HOME": home, "CUDA_PATH": "/other"}).toolkit
    assert (found.home, found.source, found.version, found.max_gcc) == (home, "CUDA_HOME", "12.4", 13)


def test_an_empty_cuda_home_counts_as_unset(monkeypatch, tmp_path):
    answer(monkeypatch, NVCC)
    assert cuda.probe_cuda(tmp_path, {"CUDA_HOME": ""}).toolkit.source == "PATH"
    assert cuda.probe_cuda(tmp_path, {"CUDA_HOME": "", "CUDA_PATH": "/p"}).toolkit.source == "CUDA_PATH"


@pytest.mark.parametrize("value", ["/nonexistent", ":/usr/local/cuda-11.0:/usr/local/cuda-11.0"])
def test_a_cuda_home_that_is_no_folder_is_kept_as_written(monkeypatch, tmp_path, value):
    answer(monkeypatch, {})
    found = cuda.probe_cuda(tmp_path, {"CUDA_HOME": value}).toolkit
    assert (found.home, found.exists, found.nvcc) == (value, False, None)


def test_the_host_compiler_is_the_one_nvcc_would_call(monkeypatch, tmp_path):
    answer(monkeypatch, {"gcc": Done(0, "13.2.0\n", ""), "g++-10": Done(0, "10.5.0\n", "")})
    assert cuda.probe_cuda(tmp_path, {}).gcc == "13.2.0"
    assert cuda.probe_cuda(tmp_path, {"CUDAHOSTCXX": "g++-10"}).gcc == "10.5.0"
