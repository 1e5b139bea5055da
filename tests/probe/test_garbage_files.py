"""Files of the kernel with anything in them: no probe stops, what cannot be read is unknown."""

import pytest

from bevrepro.probe.ascend import parse_npu_smi, probe_ascend
from bevrepro.probe.cpu import probe_cpu
from bevrepro.probe.cuda import parse_nvidia_smi, probe_cuda
from bevrepro.probe.fuse import probe_fuse
from bevrepro.probe.host import probe_host

FILES = (
    "proc/meminfo", "proc/sys/kernel/osrelease", "proc/version", "proc/self/status", "proc/self/mounts",
    "proc/net/tcp", "proc/cpuinfo", "proc/1/cgroup", "etc/os-release", "etc/ld.so.cache",
    "proc/driver/nvidia/version", "sys/fs/cgroup/memory.max", "sys/fs/cgroup/cpu.max",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "sys/fs/cgroup/cpu/cpu.cfs_period_us",
    "usr/local/cuda/include/crt/host_config.h", "usr/local/Ascend/ascend-toolkit/latest/version.cfg",
)  # fmt: skip
NUMBERS = ("--1", "²", "0", "9" * 5000, "zz", "\x1b[31m")


@pytest.mark.parametrize(
    "form",
    [
        "{0}",
        "{0} {0}",
        "MemTotal: {0} kB\nCapEff: {0}\nCapBnd: {0}\nflags: {0}\nPRETTY_NAME={0}",
        "NVRM version: Kernel Module {0}.{0}\n/dev/{0} /\\999{0} ext4 rw\nversion=[{0}:8.2.RC{0}]",
        "sl local\n0: 0000:{0} 0:0 0A\n0: {0} {0} 0A",
    ],
)
@pytest.mark.parametrize("number", NUMBERS, ids=ascii)
def test_no_probe_stops_at_what_the_kernel_never_wrote(tmp_path, number, form):
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(form.format(number))
    (tmp_path / "proc/self/cgroup").write_text("0::/../..\n1:cpu:/\n2:memory:/a\n")
    for probe in (probe_host, probe_cpu, probe_cuda, probe_fuse, probe_ascend):
        assert probe(tmp_path) is not None
    assert probe_host(tmp_path, {"MASTER_PORT": number, "PORT": number}) is not None


def test_folders_in_place_of_the_kernels_files(tmp_path):
    for name in FILES:
        (tmp_path / name).mkdir(parents=True)
    host = probe_host(tmp_path)
    assert (host.memory_total_b, host.may_mount, host.distribution) == (None, None, None)
    assert probe_cpu(tmp_path).quota is None and probe_cuda(tmp_path).driver is None


def test_control_characters_and_long_numbers_of_a_tool_go_no_further():
    driver, gpus = parse_nvidia_smi(f"RTX\x1b[31m 3090, {'9' * 5000}, ², 0:0, 550\x07.1, 8.6\n")
    assert gpus[0].name == "RTX [31m 3090" and driver == "550 .1"
    assert (gpus[0].memory_total_mib, gpus[0].memory_free_mib) == (None, None)
    text = (
        "| npu-smi 24.1 Version: 25\x1b.0 |\n| 0  910B3\x1b | OK\x07 | 1 |\n| 0 0 | "
        + "9" * 5000
        + " | p | 1 |\n"
    )
    driver, npus = parse_npu_smi(text)
    assert driver == "25" and npus[0].processes == () and npus[0].health == "OK"
