"""Facts of mmcv's sdists: which operators each has, and which functions are there for which device.

    python -m bevrepro.env.operator_facts SDIST...             writes facts/mmcv_operators.toml to stdout
    python -m bevrepro.env.operator_facts --devices SDIST...   writes model/bevformer/mm/devices.json

The names are those of the C++ files (operators.py); a device has what registers with mmcv's dispatcher for
it. The second is JSON, because the self-test reads it in a Python 3.8 without TOML.
"""

import json
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

from packaging.utils import parse_sdist_filename

from bevrepro.env import operators, sdists
from bevrepro.env.tree import sha256_of

REGISTERED = re.compile(r"REGISTER_DEVICE_IMPL\(\s*(\w+)\s*,\s*(CPU|CUDA)\s*,")
SOURCES = {"cpu": "*.cpp", "cuda": "*.cu"}  # the folder of each device
HEAD = """# mmcv's operators, as a target's `operators` and --operators name them: the files of its C++.
# Generated: python -m bevrepro.env.operator_facts SDIST... > bevrepro/facts/mmcv_operators.toml
"""


def on_devices(source: Path) -> dict[str, list[str]]:
    """cpu, cuda -> the functions of an unpacked mmcv that are implemented there.

    Those registered with the dispatcher, and those in the device's folder that are called without it.
    """
    folder = source / operators.FOLDER
    found: dict[str, set[str]] = {device: set() for device in SOURCES}
    for path in sorted(folder.rglob("*.cpp")):
        for name, device in REGISTERED.findall(path.read_text(encoding="utf-8")):
            found[device.lower()].add(name)
    direct = [each.name for path in folder.glob("*.cpp") for each in operators.declarations(path.read_text())]
    for device, pattern in SOURCES.items():
        bodies = "\n".join(path.read_text(encoding="utf-8") for path in (folder / device).glob(pattern))
        found[device].update(name for name in direct if operators.is_defined(name, bodies))
    return {device: sorted(names) for device, names in found.items()}


def _row(sdist: Path, names: Iterable[str], today: str) -> str:
    listed = "".join(f'    "{name}",\n' for name in sorted(names))
    return (
        f'\n[[row]]\nid = "{_id(sdist)}"\noperators = [\n{listed}]\n'
        f'source = "{sdist.name}, sha256 {sha256_of(sdist)}: {operators.FOLDER}"\nchecked = "{today}"\n'
    )


def _id(sdist: Path) -> str:
    name, version = parse_sdist_filename(sdist.name)
    return f"{name} {version}"


def main(words: Sequence[str]) -> int:
    """Write one of the two tables for these sdists, the oldest version first."""
    paths = sorted((Path(word) for word in words if word != "--devices"), key=_version)
    today, text, devices = date.today().isoformat(), HEAD, {}
    for path in paths:
        with tempfile.TemporaryDirectory() as scratch:
            source = sdists.unpack(path, Path(scratch) / "sdist")
            text += _row(path, operators.names(source), today)
            from_where = f"{path.name}, sha256 {sha256_of(path)}: REGISTER_DEVICE_IMPL in {operators.FOLDER}"
            devices[_id(path)] = {"source": from_where, "checked": today, **on_devices(source)}
    print(json.dumps(devices, indent=1) if "--devices" in words else text.rstrip("\n"))
    return 0


def _version(sdist: Path) -> tuple[int, ...]:
    return parse_sdist_filename(sdist.name)[1].release


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
