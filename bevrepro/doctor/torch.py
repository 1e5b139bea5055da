"""torch, numpy and OpenMMLab in the target interpreter, from metadata; torch itself where it was tried."""

from collections.abc import Iterator

from bevrepro import facts
from bevrepro.core.machine import Machine
from bevrepro.core.proc import signal_name
from bevrepro.doctor.check import Check, Verdict, fail, issue, warn
from bevrepro.doctor.versions import older


def _missing(machine: Machine) -> Iterator[Verdict]:
    python = machine.python
    if python.packages is not None and python.torch is None:
        yield warn(f"{python.executable} has no torch", "Install the project's environment.", "make demo")


def _dies(machine: Machine) -> Iterator[Verdict]:
    torch = machine.python.torch
    died = signal_name(torch.child_rc) if torch and torch.child_rc is not None else None
    if torch is None or died is None:
        return
    when = "computing" if torch.imports else "importing torch"
    if died == "SIGILL":
        remedy = "It uses instructions that this CPU lacks: take another build of torch or another CPU."
    else:
        remedy = "Reinstall torch; look at the kernel's log when it happens again."
    yield fail(f"torch {torch.version}: {when} died of {died} in a child process", remedy)


def _broken(machine: Machine) -> Iterator[Verdict]:
    torch = machine.python.torch
    if torch and torch.tried and not torch.computes and signal_name(torch.child_rc or 0) is None:
        when = "computes nothing" if torch.imports else "cannot be imported"
        yield fail(f"torch {torch.version} {when}: {torch.error or 'no reason given'}",
                   "Reinstall torch in this environment.")  # fmt: skip


def _gpu_idle(machine: Machine) -> Iterator[Verdict]:
    torch, gpus = machine.python.torch, machine.cuda.gpus
    if not torch or not gpus:
        return
    if torch.cuda == "":
        yield warn(f"{gpus[0].name} is there, but torch {torch.version} is built without CUDA",
                   "Install a CUDA build of torch to use the GPU.")  # fmt: skip
    elif torch.tried and torch.cuda_available is False:
        hidden = machine.host.environment is not None and "CUDA_VISIBLE_DEVICES" in machine.host.environment
        yield warn(
            f"torch {torch.version} sees no GPU, nvidia-smi lists {gpus[0].name}",
            "Look at CUDA_VISIBLE_DEVICES." if hidden else "Compare the driver with torch's CUDA version.",
            "nvidia-smi",
        )


def _numpy2(machine: Machine) -> Iterator[Verdict]:
    numpy, torch = machine.python.package("numpy"), machine.python.torch
    row = facts.row("torch", "numpy-2")
    if numpy and torch and older(numpy.version, "2") is False and older(torch.version, row["below"]):
        yield fail(f"numpy {numpy.version} with torch {torch.version}", "Use numpy below 2.",
                   'python -m pip install "numpy<2"')  # fmt: skip


def _devkit_numpy(machine: Machine) -> Iterator[Verdict]:
    row = facts.row("packages", "devkit-numpy")
    numpy, devkit = machine.python.package("numpy"), machine.python.package(row["package"])
    if numpy and devkit and older(numpy.version, row["numpy_below"]) is False:
        yield fail(
            f"numpy {numpy.version} with nuscenes-devkit {devkit.version}",
            f"The devkit wants numpy below {row['numpy_below']}.",
            'python -m pip install "numpy<2"',
        )


def _mmcv_twice(machine: Machine) -> Iterator[Verdict]:
    found = [machine.python.package(name) for name in facts.row("packages", "mmcv-twice")["packages"]]
    both = [f"{package.name} {package.version}" for package in found if package]
    if len(both) == len(found):
        yield fail(
            f"both {' and '.join(both)} are installed, into the same folder",
            "Remove both, then install the one that the target names.",
            "python -m pip uninstall -y mmcv mmcv-full",
        )


CHECKS = (
    Check("torch-missing", "torch", "whether torch is installed", "train and eval need it.", _missing),
    Check("torch-dies", "torch", "whether torch survives its import (--deep)",
          "Every command that computes would end the same way, without a message.", _dies,
          (issue("pytorch/pytorch", 43551),)),
    Check("torch-broken", "torch", "whether torch computes (--deep)",
          "Every command that computes would stop there.", _broken),
    Check("torch-gpu-idle", "torch", "whether torch can use the GPU",
          "Training falls back to the CPU, many times slower.", _gpu_idle),
    Check("torch-numpy2", "torch", "numpy against torch",
          "torch built for numpy 1 cannot exchange arrays with numpy 2.", _numpy2),
    Check("devkit-numpy", "torch", "numpy against nuscenes-devkit",
          "The devkit breaks while it scores, after the evaluation has run.", _devkit_numpy,
          (issue("fundamentalvision/BEVFormer", 203),)),
    Check("mmcv-twice", "torch", "mmcv and mmcv-full together",
          "They overwrite each other's files: 'No module named mmcv._ext'.", _mmcv_twice,
          (issue("fundamentalvision/BEVFormer", 271),)),
)  # fmt: skip
