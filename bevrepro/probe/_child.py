# The target interpreter may be Python 3.6, and torch is what it is asked about:
# ruff: noqa: UP006, UP031, UP035, UP045, TID251
"""Runs in the target interpreter: `PYTHON _child.py [--torch]` prints JSON, one object per line.

Standard library only, nothing newer than Python 3.6, and no import of what it looks at - except with
`--torch`, which imports torch and computes a little, so that a crash happens here and not in the doctor.
"""

import json
import os
import re
import sys
from typing import Any, Dict, List, Optional
from urllib.parse import unquote

PACKAGES = frozenset(
    "torch torchvision torch-npu numpy nuscenes-devkit mmcv mmcv-full mmdet mmdet3d mmsegmentation mmengine "
    "opencv-python opencv-python-headless pillow setuptools numba llvmlite yapf protobuf shapely scipy "
    "matplotlib pyquaternion ratarmount networkx tensorboard triton detectron2 pandas scikit-image "
    "pycocotools spconv timm iopath pytorch-lightning nvidia-nccl-cu11 nvidia-nccl-cu12 "
    "nvidia-nccl-cu13 pysocks".split()
)
DIST = re.compile(r"(?P<name>.+?)-(?P<version>[^-]+)(?:-py[\d.]+)?\.(?:dist|egg)-info$")
# What `setup.py install` makes, and puts on sys.path itself: mmdet3d-0.17.1-py3.8-linux-x86_64.egg
EGG = re.compile(r"(?P<name>.+?)-(?P<version>[^-]+)-py[\d.]+(?:-.+)?\.egg$")


def packages() -> List[Dict[str, Optional[str]]]:
    """[{name, version, location}] of the listed distributions, in the order of sys.path."""
    found = []
    for location in sys.path:
        egg = EGG.match(os.path.basename(location))
        if egg:
            found.append(package(egg.group("name"), egg.group("version"), location))
        try:
            entries = sorted(os.listdir(location or "."))
        except OSError:
            continue
        for entry in entries:
            match = DIST.match(entry)
            folder = os.path.join(location, entry)
            if match and normal(match.group("name")) in PACKAGES:
                found.append(
                    package(match.group("name"), match.group("version"), sources(folder) or location)
                )
            elif match is None and entry.endswith(".egg-info"):
                found.append(package(entry[: -len(".egg-info")], developed_version(folder), location))
    return [each for each in found if each["name"] in PACKAGES and each["version"]]


def package(name: str, version: Optional[str], location: str) -> Dict[str, Optional[str]]:
    """One of the list."""
    return {"name": normal(name), "version": version, "location": location}


def normal(name: str) -> str:
    """As pip normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def developed_version(folder: str) -> Optional[str]:
    """Of `mmdet3d.egg-info`, which `setup.py develop` leaves beside the sources and on sys.path."""
    try:
        with open(os.path.join(folder, "PKG-INFO"), errors="replace") as file:
            version = re.search(r"^Version:\s*(\S+)", file.read(), re.M)
    except OSError:
        return None
    return version.group(1) if version else None


def sources(folder: str) -> Optional[str]:
    """Where the code of a package lies that `pip install -e` installed (PEP 610); None for others."""
    try:
        with open(os.path.join(folder, "direct_url.json"), errors="replace") as file:
            told = json.load(file)
        path = unquote(told["url"][len("file://") :]) if told["dir_info"].get("editable") else ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return path if os.path.isdir(path) else None


def torch_files() -> Optional[Dict[str, Optional[str]]]:
    """{version, cuda} from torch/version.py, read as text; None where there is no torch."""
    for location in sys.path:
        path = os.path.join(location, "torch", "version.py")
        if os.path.isfile(path):
            try:
                with open(path, errors="replace") as file:
                    text = file.read()
            except OSError:  # forbidden; what there is else may still be told
                text = ""
            version = re.search(r"^__version__.*?=\s*['\"]([^'\"]+)", text, re.M)
            cuda = re.search(r"^cuda\b.*?=\s*(?:['\"]([^'\"]+)|None)", text, re.M)
            return {
                "version": version.group(1) if version else None,
                "cuda": (cuda.group(1) or "") if cuda else None,
            }
    return None


def user_site() -> str:
    """The user's own site-packages where it is on sys.path, "" where it is not."""
    import site

    folder = site.getusersitepackages()
    return folder if folder in sys.path else ""


def built() -> Optional[Dict[str, str]]:
    """{package: version} from the receipt that `bevrepro env build` leaves; None in other environments."""
    try:
        with open(os.path.join(sys.prefix, "bevrepro-env.json"), encoding="utf-8") as file:
            told = json.load(file)["packages"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return {str(name): str(version) for name, version in told if name in PACKAGES}


def describe() -> Dict[str, Any]:
    """Everything that can be said without importing anything."""
    return {
        "executable": sys.executable,
        "version": "%d.%d.%d" % sys.version_info[:3],
        "implementation": sys.implementation.name,
        "prefix": sys.prefix,
        "isolated": sys.prefix != sys.base_prefix or os.path.isdir(os.path.join(sys.prefix, "conda-meta")),
        "user_site": user_site(),
        "packages": packages(),
        "built": built(),
        "torch": torch_files(),
    }


def try_torch() -> None:
    """Import torch and compute; printed in steps, so that the last line before a crash is there to read."""
    result = {"imports": False, "computes": False}  # type: Dict[str, Any]
    try:
        import torch

        result["imports"] = True
        result["cuda_available"] = bool(torch.cuda.is_available())
        result["gpu_count"] = int(torch.cuda.device_count())
        capability = getattr(getattr(torch.backends, "cpu", None), "get_cpu_capability", None)
        if capability is not None:
            result["cpu_capability"] = str(capability())
        print(json.dumps(result))
        sys.stdout.flush()
        image = torch.ones(1, 3, 16, 16)
        torch.nn.functional.conv2d(image, torch.ones(4, 3, 3, 3)).reshape(4, -1).matmul(torch.ones(196, 4))
        result["computes"] = True
    except Exception as error:
        result["error"] = "%s: %s" % (type(error).__name__, error)
    print(json.dumps(result))


def main(argv: List[str]) -> None:
    """One JSON object per line; the last one counts."""
    del sys.path[0]  # the script's own folder: it is bevrepro's, not the target's
    if "--torch" in argv:
        try_torch()
    else:
        print(json.dumps(describe()))


if __name__ == "__main__":
    main(sys.argv[1:])
