"""NPUs (npu-smi), and CANN from the files of /usr/local/Ascend."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from bevrepro.core import proc
from bevrepro.core.errors import MachineError
from bevrepro.core.machine import Ascend, Npu
from bevrepro.probe.files import READ, first_lines, globbed, integer, printable, read_text

TIMEOUT_S = 5.0
TOOLKITS = ("usr/local/Ascend/ascend-toolkit/latest", "usr/local/Ascend/latest", "usr/local/Ascend/cann")
# Where releases write their version: {arch}-linux/ascend_toolkit_install.info, version.cfg of older ones.
CANN = re.compile(r"version\w*=\[?(?:[\d.]+:)?(\d+\.\d+\.(?:RC\d+|\d+)\w*)", re.IGNORECASE)
VERSION_FILES = ("*-linux/ascend_toolkit_install.info", "version.cfg", "*/version.info")


def probe_ascend(root: Path = Path("/"), environment: Mapping[str, str] | None = None) -> Ascend:
    """No NPU is a fine answer: `npu_smi` is then "absent"."""
    environment = os.environ if environment is None else environment
    toolkit = _toolkit(root, environment)
    state, said, text = _npu_smi()
    driver, npus = parse_npu_smi(text) if text is not None else (None, None)
    if state == "ok" and npus is None:
        state, said = "garbage", first_lines(text or "")
    return Ascend(
        npu_smi=state,
        npu_smi_said=said,
        driver=driver,
        npus=() if state == "absent" else npus,
        toolkit=None if toolkit is None else str(toolkit),
        cann=None if toolkit is None else _cann(toolkit),
    )


def _npu_smi() -> tuple[str, str | None, str | None]:
    program = proc.which("npu-smi")
    if program is None:
        return "absent", None, None
    try:
        done = proc.run([program, "info"], timeout_s=TIMEOUT_S)
    except MachineError as error:
        return "failed", error.seen, None
    if done.timed_out:
        return "hung", None, None
    if not done.ok:
        return "failed", first_lines(done.stdout + done.stderr) or f"exit status {done.rc}", None
    return "ok", None, done.stdout


def parse_npu_smi(text: str) -> tuple[str | None, tuple[Npu, ...] | None]:
    """(driver, NPUs) of the table; (None, None) where it is none.

    A device has two lines, `| 0     910B3     | OK      | ...` and `| 0         | 0000:C1:00.0 | ...`;
    below them a second table lists `| 0       0   | 12345   | python  | 2048 |`.
    """
    lines = [printable(line) for line in text[:READ].splitlines()]
    version = re.search(r"npu-smi\s+\S+.*?Version:\s*(\S+)", "\n".join(lines))
    npus: dict[str, Npu] = {}
    held: dict[str, list[int]] = {}
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        device = re.fullmatch(r"(\d+)\s+([0-9]{3}\S*|Ascend\S*)", cells[0])
        user = re.fullmatch(r"(\d+)\s+\d+", cells[0])
        if device and len(cells) == 3:
            npus[device[1]] = Npu(device[2], cells[1] or None)
        elif user and len(cells) == 4 and (pid := integer(cells[1])) is not None:
            held.setdefault(user[1], []).append(pid)
    if version is None and not npus:
        return None, None
    return version[1] if version else None, tuple(
        Npu(npu.name, npu.health, tuple(held.get(index, ()))) for index, npu in npus.items()
    )


def _toolkit(root: Path, environment: Mapping[str, str]) -> Path | None:
    named = environment.get("ASCEND_HOME_PATH") or environment.get("ASCEND_TOOLKIT_HOME")
    places = [Path(named)] if named else []
    places += [root / place for place in TOOLKITS]
    return next((place for place in places if os.path.isdir(place)), None)


def _cann(toolkit: Path) -> str | None:
    """`8.2.RC1`."""
    for pattern in VERSION_FILES:
        for path in globbed(toolkit, pattern):
            match = CANN.search(read_text(path) or "")
            if match:
                return match[1]
    return None
