"""torch, numpy and OpenMMLab in the target interpreter, from metadata; torch itself where it was tried."""

from collections.abc import Iterator

from bevrepro import facts
from bevrepro.core.machine import Machine
from bevrepro.core.proc import signal_name
from bevrepro.doctor.architectures import runs_on
from bevrepro.doctor.check import Check, Verdict, fail, info, issue, warn
from bevrepro.doctor.installed import tested_together
from bevrepro.doctor.versions import major, older

CUDA_RUNTIME = ("libcudart", "libcublas", "libcudnn", "libcufft", "libcurand", "libcusparse", "libcusolver")
TORCH_AGAIN = "Reinstall torch in this environment, without pip's cache."


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
    if tested_together(machine, "numpy", row["package"]):
        return
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


def _no_kernels(machine: Machine) -> Iterator[Verdict]:
    torch = machine.python.torch
    compiled = torch.compiled if torch else None
    if torch is None or compiled is None or not compiled.architectures:
        return
    sure = facts.row("torch", "cubin-rule").get("status") != "unverified"
    for gpu in machine.cuda.gpus or ():
        if gpu.capability and runs_on(compiled.architectures, compiled.ptx or (), gpu.capability) is False:
            judge = fail if sure else warn
            yield judge(
                f"torch {torch.version} has code for {', '.join(compiled.architectures)}; "
                f"{gpu.name} has compute capability {gpu.capability}",
                _newer_torch(gpu.capability),
            )
            break


def _newer_torch(capability: str) -> str:
    for row in facts.table("torch"):
        if row["id"] in ("kernels-8", "kernels-9", "kernels-12") and row["major"] == major(capability):
            return f"From the package index torch {row['from']} is the first with code for this GPU."
    return "Install a torch that was built for this GPU."


def _deleted(machine: Machine) -> Iterator[Verdict]:
    torch = machine.python.torch
    if torch and torch.deleted:
        yield fail(f"torch {torch.version} lacks {', '.join(torch.deleted[:3])}", TORCH_AGAIN)
    elif torch and torch.compiled and torch.compiled.error:
        yield fail(f"torch {torch.version} is damaged: {torch.compiled.error}", TORCH_AGAIN)


def _needed(machine: Machine) -> Iterator[Verdict]:
    """Libraries that torch or an extension needs and that are nowhere."""
    python = machine.python
    torch = python.torch
    if torch and (torch.deleted or (torch.compiled and torch.compiled.error)):
        return  # told already, and everything else follows from it
    parts = [python.torch.compiled] if python.torch and python.torch.compiled else []
    for each in (*parts, *(python.extensions or ())):
        if not each.missing:
            continue
        cuda = any(name.startswith(CUDA_RUNTIME) for name in each.missing)
        split = any(name.startswith(("libtorch_cuda_cu", "libtorch_cuda_cpp")) for name in each.missing)
        remedy = "Install what holds them, or look at LD_LIBRARY_PATH."
        if each.name != "torch" and (cuda or split):
            remedy = "It was built for another CUDA or torch: build or install the one for this torch."
        elif cuda:
            remedy = "Install torch again with its dependencies (nvidia-*), or the CUDA runtime it names."
        yield fail(f"{each.name} needs {', '.join(each.missing[:3])}, which is nowhere", remedy)


def _libstdcxx(machine: Machine) -> Iterator[Verdict]:
    ours, python = machine.host.libstdcxx, machine.python
    parts = [python.torch.compiled] if python.torch and python.torch.compiled else []
    for each in (*parts, *(python.extensions or ())):
        for what in ("glibcxx", "cxxabi"):
            needs, has = getattr(each, what), getattr(ours, what) if ours else None
            if needs and older(has, needs):
                label = what.upper()
                yield fail(
                    f"{each.name} needs {label}_{needs}; {ours.path if ours else ''} offers {label}_{has}",
                    "Use a newer libstdc++ (conda's libstdcxx-ng), and keep older ones off LD_LIBRARY_PATH.",
                    "conda install -c conda-forge libstdcxx-ng",
                )
                break


def _glibc(machine: Machine) -> Iterator[Verdict]:
    host, python = machine.host, machine.python
    parts = [python.torch.compiled] if python.torch and python.torch.compiled else []
    for each in (*parts, *(python.extensions or ())):
        if host.libc == "glibc" and each.glibc and older(host.libc_version, each.glibc):
            yield fail(f"{each.name} needs glibc {each.glibc}, this system has {host.libc_version}",
                       "Use an older build of it, or a newer distribution or image.")  # fmt: skip


def _tf32(machine: Machine) -> Iterator[Verdict]:
    torch, row = machine.python.torch, facts.row("torch", "tf32-default")
    gpus = [gpu for gpu in machine.cuda.gpus or () if (major(gpu.capability) or 0) >= row["capability"]]
    if torch and gpus and older(torch.version, row["below"]) and older(torch.version, row["from"]) is False:
        yield info(
            f"torch {torch.version} multiplies matrices in TF32 by default on {gpus[0].name}",
            "Compare numbers only with runs of the same setting.",
        )


def _opencv_libgl(machine: Machine) -> Iterator[Verdict]:
    package = machine.python.package("opencv-python")
    if package and machine.host.has_libgl is False:
        yield fail(
            f"opencv-python {package.version} needs libGL.so.1, which this system has not",
            "Use the headless build, or install the library.",
            "python -m pip uninstall -y opencv-python && python -m pip install opencv-python-headless",
            "sudo apt install libgl1",
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
    Check("torch-no-kernels", "torch", "torch's compiled code against the GPU",
          "The first kernel stops with 'no kernel image is available for execution on the device'.",
          _no_kernels, (issue("open-mmlab/mmdetection", 7742),)),
    Check("torch-library-deleted", "torch", "whether all of torch's libraries are there and whole",
          "import torch stops at the missing file.", _deleted),
    Check("library-missing", "torch", "libraries that torch and its extensions need",
          "Importing them stops: 'cannot open shared object file: No such file or directory'.", _needed),
    Check("libstdcxx-old", "torch", "the C++ library that would be loaded",
          "Importing them stops: version `GLIBCXX_3.4.xx' not found.", _libstdcxx),
    Check("glibc-old", "torch", "the C library against compiled files",
          "Importing them stops: version `GLIBC_2.xx' not found.", _glibc),
    Check("torch-tf32", "torch", "TF32 as a default",
          "Products keep 10 bits of mantissa: numbers drift between environments.", _tf32,
          (issue("pytorch/pytorch", 79537),)),
    Check("opencv-libgl", "torch", "what opencv-python needs of the system",
          "import cv2 stops: 'libGL.so.1: cannot open shared object file'.", _opencv_libgl),
)  # fmt: skip
