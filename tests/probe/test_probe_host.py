"""The host's files, read from a made-up root."""

import pytest

from bevrepro.probe import cgroup
from bevrepro.probe.cpu import probe_cpu
from bevrepro.probe.host import filesystem_of, mount_of, parse_meminfo, probe_host, wsl_version


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    "kernel, version, expected",
    [
        ("6.1.0-18-amd64", "Linux version 6.1.0-18-amd64 (debian-kernel@lists.debian.org)", 0),
        ("4.4.0-19041-Microsoft", "Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com)", 1),
        ("5.15.153.1-microsoft-standard-WSL2", None, 2),
        ("6.6.0-mine", "Linux version 6.6.0-mine (me@wsl2-builder)", 2),
        ("", None, None),
    ],
)
def test_wsl_is_told_from_the_kernel(kernel, version, expected):
    assert wsl_version(kernel, version) == expected


def test_memory_is_read_in_bytes_and_other_lines_are_left_out():
    text = "MemTotal:  1024 kB\nHugePages_Total:       0\nnonsense\nMemAvailable: many kB\n"
    assert parse_meminfo(text) == {"MemTotal": 1 << 20}


def test_an_empty_root_is_unknown_not_an_error(tmp_path):
    host = probe_host(tmp_path, {})
    assert host.memory_total_b is None and host.shm_total_b is None and host.may_mount is None
    assert host.system == "Linux" and host.environment == {}


def test_binary_junk_in_proc_is_unknown(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_bytes(b"\xff\x00MemTotal\xfe: \n\x80")
    assert probe_host(tmp_path, {}).memory_total_b is None


def test_only_listed_variables_are_recorded(tmp_path):
    environment = {"CUDA_HOME": "/usr/local/cuda", "AWS_SECRET_ACCESS_KEY": "secret", "PYTHONPATH": ""}
    assert probe_host(tmp_path, environment).environment == {"CUDA_HOME": "/usr/local/cuda", "PYTHONPATH": ""}


@pytest.mark.parametrize(
    "marker, kind", [(".dockerenv", "docker"), ("run/.containerenv", "podman"), ("etc/hostname", "")]
)
def test_containers_are_told_by_their_markers(tmp_path, marker, kind):
    assert probe_host(write(tmp_path, {marker: ""}), {}).container == kind


@pytest.mark.parametrize(
    "path, kind",
    [("/mnt/d/data", "9p"), ("/mnt/data", "ext4"), ("/mnt/with space/x", "xfs"), ("/mnt/d", "9p")],
)
def test_the_longest_mount_point_names_the_file_system(path, kind):
    mounts = "/dev/sdc / ext4 rw 0 0\nD:\\134 /mnt/d 9p rw 0 0\n/dev/sdd /mnt/with\\040space xfs rw 0 0\n"
    assert filesystem_of(path, mounts) == kind


V2 = {
    "proc/self/cgroup": "0::/job/step\n",
    "sys/fs/cgroup/job/memory.max": "2147483648\n",
    "sys/fs/cgroup/job/step/memory.max": "max\n",
    "sys/fs/cgroup/job/step/cpu.max": "150000 100000\n",
}
V1 = {
    "proc/self/cgroup": "5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "2147483648\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "150000\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
}
UNLIMITED = {
    "proc/self/cgroup": "5:memory:/\n3:cpu:/\n0::/\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu.max": "max 100000\n",
}


@pytest.mark.parametrize(
    "files, memory_b, cores",
    [(V2, 2 << 30, 1.5), (V1, 2 << 30, 1.5), (UNLIMITED, None, None), ({}, None, None)],
    ids=["v2", "v1", "unlimited", "none"],
)
def test_limits_of_the_control_group(tmp_path, files, memory_b, cores):
    write(tmp_path, files)
    assert cgroup.memory_limit_b(tmp_path) == memory_b
    assert cgroup.cpu_quota(tmp_path) == cores


def test_the_flags_that_matter_are_kept(tmp_path):
    write(
        tmp_path, {"proc/cpuinfo": "model name\t: Pentium\nflags\t\t: fpu sse4_1 sse4_2 lm\n\nflags\t: avx\n"}
    )
    cpu = probe_cpu(tmp_path)
    assert (cpu.model, cpu.flags) == ("Pentium", ("sse4_1", "sse4_2"))


def test_a_cpu_without_a_flags_line_is_unknown(tmp_path):
    assert probe_cpu(write(tmp_path, {"proc/cpuinfo": "processor: 0\n"})).flags is None


def test_a_mount_is_told_by_its_source_too(tmp_path):
    mounts = f"/dev/a / ext4 rw 0 0\nFuseMount {tmp_path}/m fuse rw 0 0\n"
    assert mount_of(tmp_path / "m/v1.0-mini", mounts) == ("FuseMount", "fuse")
    assert mount_of(tmp_path, mounts) == ("/dev/a", "ext4") and mount_of(tmp_path, None) == (None, None)


@pytest.mark.parametrize(
    "line, folder, files",
    [
        ("0::/work\n", "", ("memory.max", "memory.current", "")),
        ("5:memory:/work\n", "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")),
    ],
)
def test_pages_of_files_count_as_room_below_the_limit(tmp_path, line, folder, files):
    limit, used, prefix = files
    group = tmp_path / "sys/fs/cgroup" / folder / "work"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(line)
    assert cgroup.memory_room_b(tmp_path) is None
    (group / limit).write_text("1000\n")
    (group / used).write_text("900\n")
    (group / "memory.stat").write_text(f"{prefix}active_file 100\n{prefix}inactive_file 300\nanon 5\n")
    assert cgroup.memory_room_b(tmp_path) == 500
    (group / limit).write_text("max\n")
    assert cgroup.memory_room_b(tmp_path) is None
