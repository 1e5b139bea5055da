"""All probes together: a full machine whatever breaks, and quickly."""

import subprocess
import sys

from bevrepro.core.machine import Cpu
from bevrepro.probe import machine


def test_this_machine_is_described():
    found = machine.collect()
    assert found.trouble == ()
    assert found.host.system == "Linux" and found.host.memory_total_b and found.python.version


def test_a_probe_that_fails_leaves_its_part_unknown_and_is_named(monkeypatch):
    def broken():
        raise PermissionError(13, "Permission denied", "/proc/cpuinfo")

    monkeypatch.setattr(machine, "probe_cpu", broken)
    found = machine.collect()
    assert found.cpu == Cpu() and found.host.system == "Linux"
    assert len(found.trouble) == 1 and found.trouble[0].startswith("cpu: PermissionError")


def test_probing_and_judging_import_no_heavy_module():
    code = (
        "import sys\n"
        "from bevrepro.probe.machine import collect\n"
        "from bevrepro.doctor.diagnose import diagnose\n"
        "diagnose(collect())\n"
        "print(sorted({'torch', 'numpy', 'cv2', 'nuscenes', 'psutil'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
