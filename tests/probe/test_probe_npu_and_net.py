"""NPUs from recorded output and fake trees; ports, addresses and libraries."""

import socket
from pathlib import Path

import pytest

from bevrepro.core import proc
from bevrepro.core.machine import GpuProcess
from bevrepro.probe.ascend import parse_npu_smi, probe_ascend
from bevrepro.probe.cuda import _pci_path, parse_processes
from bevrepro.probe.libraries import has_library, shadowing
from bevrepro.probe.network import own_addresses, parse_listening, ports_in_use, proxies

NPU_SMI = """
+------------------------------------------------------------------------------------------------+
| npu-smi 25.0.rc1.1               Version: 25.0.rc1.1                                           |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B3               | OK            | 93.6        36                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3162 / 65536         |
+===========================+===============+====================================================+
| 1     910B3               | Alarm         | 90.1        36                0    / 0             |
| 0                         | 0000:01:00.0  | 0           0    / 0          3162 / 65536         |
+===========================+===============+====================================================+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| No running processes found in NPU 0                                                            |
+===========================+===============+====================================================+
| 1       0                 | 120034        | python                   | 2048                    |
+===========================+===============+====================================================+
"""


def test_the_table_of_npu_smi():
    driver, npus = parse_npu_smi(NPU_SMI)
    assert driver == "25.0.rc1.1" and [npu.name for npu in npus] == ["910B3", "910B3"]
    assert [npu.health for npu in npus] == ["OK", "Alarm"] and [npu.processes for npu in npus] == [
        (),
        (120034,),
    ]
    assert parse_npu_smi("dcmi module initialize failed") == (None, None)


@pytest.mark.parametrize(
    "done, state",
    [
        (proc.Done(0, NPU_SMI, ""), "ok"),
        (proc.Done(0, "\x1b[31m?\0", ""), "garbage"),
        (proc.Done(255, "dcmi module initialize failed. ret is -8005", ""), "failed"),
        (proc.Done(-9, "", "", timed_out=True), "hung"),
    ],
)
def test_npu_smi_in_all_its_moods(monkeypatch, tmp_path, done, state):
    monkeypatch.setattr(proc, "which", lambda name: Path("/usr/local/bin/npu-smi"))
    monkeypatch.setattr(proc, "run", lambda *args, **options: done)
    found = probe_ascend(tmp_path, {})
    assert found.npu_smi == state and (found.npu_smi_said or "x").isprintable()


@pytest.mark.parametrize(
    "name, text",
    [
        ("aarch64-linux/ascend_toolkit_install.info", "package_name=Ascend-cann-toolkit\nversion=8.1.RC1\n"),
        ("version.cfg", "runtime_running_version=[7.0.0.5.242:8.1.RC1]\n"),
    ],
)
def test_cann_is_read_from_its_tree(monkeypatch, tmp_path, name, text):
    monkeypatch.setattr(proc, "which", lambda name: None)
    path = tmp_path / "usr/local/Ascend/ascend-toolkit/latest" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    found = probe_ascend(tmp_path, {})
    assert found.cann == "8.1.RC1" and found.toolkit.endswith("latest") and found.npus == ()
    assert probe_ascend(tmp_path / "none", {}).toolkit is None


def test_a_listening_port_is_seen(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert port in ports_in_use(Path("/"), {"MASTER_PORT": str(port)})
    assert ports_in_use(tmp_path, {}) is None  # no /proc
    assert parse_listening("garbage\n 0: zz:xx yy 0A\n 1: 0100007F:733C 00000000:0000 0A\n") == {29500}


def test_whose_address_it_is():
    assert own_addresses("127.0.0.1%lo") == ("127.0.0.1",)
    assert own_addresses("192.0.2.77") == () and own_addresses(None) is None
    assert own_addresses("not an address") is None


def test_libraries_that_would_be_loaded_first(tmp_path):
    for name in ("libcudart.so.10.1", "libcudnn.so.7", "libfoo.so", "libstdc++.so.6"):
        (tmp_path / name).touch()
    found = shadowing(f"{tmp_path}/:/nonexistent:")
    assert {Path(each).name for each in found} == {"libcudart.so.10.1", "libcudnn.so.7", "libstdc++.so.6"}
    assert shadowing(None) == () and not has_library("libGL.so.1", tmp_path)


def test_the_pci_path_is_looked_up_as_nccl_does(tmp_path):
    device = tmp_path / "sys/devices/pci0000:00/0000:3b:00.0"
    (device / "pci_bus/0000:3c").mkdir(parents=True)
    (tmp_path / "sys/class/pci_bus").mkdir(parents=True)
    (tmp_path / "sys/class/pci_bus/0000:3c").symlink_to(device / "pci_bus/0000:3c")
    (device / "0000:3c:00.0").mkdir()
    assert _pci_path("00000000:3C:00.0", tmp_path) is True
    assert _pci_path("00000000:01:00.0", tmp_path) is False
    assert _pci_path(None, tmp_path) is None and _pci_path("garbage", tmp_path) is None


def test_programs_on_a_gpu():
    text = "00000000:3B:00.0, 4121, 3700, /usr/bin/python\x1b[31m\ngarbage\n00000000:3B:00.0, 7, [N/A], x\n"
    found = parse_processes(text)
    assert found == [("00000000:3B:00.0", GpuProcess(4121, 3700, "python [31m")),
                     ("00000000:3B:00.0", GpuProcess(7, None, "x"))]  # fmt: skip


@pytest.mark.parametrize(
    "value, kept",
    [
        ("http://bob:pass@corp.example:3128/x", "http://proxy"),
        ("SOCKS5H://127.0.0.1:7890", "socks5h://127.0.0.1:7890"),
        ("bob:p@ss@localhost:8080", "localhost:8080"),
        ("10.0.0.3:8080", "proxy"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("http://" + "9" * 5000, "http://proxy"),
        ("://", "unreadable"),
        ("http://a:b:c", "unreadable"),
    ],
)
def test_of_a_proxy_nothing_private_is_kept(value, kept):
    assert proxies({"https_proxy": value, "http_proxy": "", "HOME": "/x"}) == {"https_proxy": kept}
