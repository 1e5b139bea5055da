"""Single judgements on both sides of their bound."""

from dataclasses import replace

import pytest

from bevrepro.core.machine import Cpu, Cuda, Disk, Gpu, Host, Machine, Package, Python, Toolkit, Torch
from bevrepro.doctor.architectures import runs_on
from bevrepro.doctor.diagnose import diagnose
from bevrepro.doctor.versions import kernel_older, major, older

GIB = 1 << 30
GPU = (Gpu("NVIDIA A100", capability="8.0"),)


def ids(**parts) -> set[str]:
    return {f"{each.id}:{each.severity.value}" for each in diagnose(Machine(**parts))}


def only(**parts):
    found = diagnose(Machine(**parts))
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    "memory, limit, swap, expected",
    [
        (2.9, None, 0, "memory-low:fail"),
        (2.9, None, 1, None),
        (3.1, None, 0, None),
        (64, 2.9, 0, "memory-low:fail"),
        (64, 3.1, 0, None),
    ],
)
def test_memory_counts_swap_and_the_containers_limit(memory, limit, swap, expected):
    host = Host(
        memory_total_b=int(memory * GIB),
        memory_limit_b=None if limit is None else int(limit * GIB),
        swap_total_b=int(swap * GIB),
    )
    found = {each for each in ids(host=host) if each.startswith("memory-low")}
    assert found == ({expected} if expected else set())


@pytest.mark.parametrize(
    "driver, cuda, old",
    [
        ("450.80.01", "11.1", True),
        ("450.80.02", "11.1", False),
        ("524.99", "12.4", True),
        ("525.60.13", "12.4", False),
        ("579.1", "13.0", True),
        ("440.33", "10.2", False),
        ("440.32", "10.2", True),
        ("not a version", "12.4", False),
        ("1", "99.0", False),  # a CUDA that the table does not know
    ],
)
def test_the_driver_is_compared_with_torchs_cuda(driver, cuda, old):
    python = Python(torch=Torch("2.0", cuda))
    assert ("driver-old:fail" in ids(python=python, cuda=Cuda(driver=driver))) is old


def test_a_torch_without_cuda_asks_for_no_driver():
    assert ids(python=Python(torch=Torch("2.0", "")), cuda=Cuda(driver="390.1")) == set()


@pytest.mark.parametrize("gpus, severity", [(GPU, "fail"), ((), "warn")])
def test_a_broken_cuda_home_is_worse_where_it_is_used(gpus, severity):
    toolkit = Toolkit("/nonexistent", "CUDA_HOME", exists=False)
    cuda = Cuda(gpus=gpus, toolkit=toolkit, toolkit_searched=True)
    assert ids(cuda=cuda) == {f"cuda-home-missing:{severity}"}


def test_a_list_in_cuda_home_is_told_once_with_a_command():
    toolkit = Toolkit(":/usr/local/cuda-11.1:/usr", "CUDA_HOME", exists=False)
    found = only(cuda=Cuda(gpus=GPU, toolkit=toolkit, toolkit_searched=True))
    assert found.id == "cuda-home-list"
    assert found.commands == ("export CUDA_HOME=/usr/local/cuda-11.1",)


def test_no_toolkit_matters_only_where_something_would_be_built():
    assert ids(cuda=Cuda(toolkit_searched=True)) == set()
    assert ids(cuda=Cuda(gpus=GPU, toolkit_searched=True)) == {"cuda-home-unset:warn"}
    assert ids(cuda=Cuda(gpus=GPU)) == set()  # nobody looked


@pytest.mark.parametrize(
    "said, words",
    [
        ("Failed to initialize NVML: Driver/library version mismatch", "restart"),
        (
            "Failed to initialize NVML: GPU access blocked by the operating system",
            "no Linux driver inside WSL",
        ),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "kernel module"),
        ("something nobody has seen", "Run it yourself"),
    ],
)
def test_what_nvidia_smi_says_leads_to_its_remedy(said, words):
    assert words in only(cuda=Cuda(nvidia_smi="failed", nvidia_smi_said=said)).remedy


@pytest.mark.parametrize(
    "version, expected",
    [("1.6.0", "fail"), ("1.9.1+cu111", "warn"), ("2.13.0+cpu", "info"), (None, "warn")],
)
def test_a_cpu_without_avx_is_judged_by_what_was_measured(version, expected):
    parts = dict(host=Host(arch="x86_64"), cpu=Cpu(flags=("sse4_2",)))
    assert ids(**parts, python=Python(torch=Torch(version))) == {f"cpu-no-avx:{expected}"}
    assert ids(**{**parts, "host": Host(arch="aarch64")}) == {"host-arch:info"}


@pytest.mark.parametrize(
    "version, fires",
    [("3.7.17", True), ("3.8.0", False), ("3.12.9", False), ("3.13.0", True), ("3.14.0", True)],
)
def test_the_range_of_pythons(version, fires):
    assert ("python-version:fail" in ids(python=Python(version=version))) is fires


def packages(**versions) -> tuple[Package, ...]:
    return tuple(Package(name.replace("_", "-"), version, "/site") for name, version in versions.items())


@pytest.mark.parametrize(
    "installed, torch, expected",
    [
        (packages(numpy="2.0.0", nuscenes_devkit="1.2.0"), "2.13.0", {"devkit-numpy:fail"}),
        (packages(numpy="1.26.4", nuscenes_devkit="1.2.0"), "2.13.0", set()),
        (packages(numpy="2.0.0"), "2.2.2", {"torch-numpy2:fail"}),
        (packages(numpy="2.0.0"), "2.3.0", set()),
        (packages(mmcv="1.7.0", mmcv_full="1.4.0"), "1.9.1", {"mmcv-twice:fail"}),
        (packages(mmcv_full="1.4.0"), "1.9.1", set()),
        (packages(numpy="unreadable"), "1.9.1", set()),
    ],
)
def test_pairs_of_packages(installed, torch, expected):
    assert ids(python=Python(packages=installed, torch=Torch(torch))) == expected


@pytest.mark.parametrize(
    "name, version, fires",
    [
        ("mmcv-full", "1.4.0", True),
        ("mmcv", "2.1.0", True),
        ("mmcv", "1.7.2", False),
        ("mmcv-lite", "2.1", False),
    ],
)
def test_only_an_mmcv_that_comes_with_operators_is_missed_without_them(name, version, fires):
    """From 2.x on mmcv-full is called mmcv."""
    python = Python(packages=(Package(name, version, "/site"),), torch=Torch("1.13.1"), extensions=())
    found = [each for each in diagnose(Machine(python=python)) if each.id == "mmcv-no-ops"]
    assert bool(found) is fires and all(f"{name}=={version}" in each.commands[-1] for each in found)


@pytest.mark.parametrize(
    "free, role, expected", [(0.5, "work", "fail"), (3, "work", "warn"), (3, "home", None)]
)
def test_free_space_matters_most_where_the_work_is(free, role, expected):
    disks = (Disk(role, "/x", "ext4", 100 * GIB, int(free * GIB), 10**7, 10**7, True),)
    assert ids(host=Host(disks=disks)) == ({f"disk-low:{expected}"} if expected else set())


def test_a_file_system_without_inode_counts_is_not_full():
    disk = Disk("work", "/x", "btrfs", 100 * GIB, 90 * GIB, 0, 0, True)
    assert ids(host=Host(disks=(disk,))) == set()
    assert ids(host=Host(disks=(replace(disk, inodes_total=10**7),))) == {"inodes-low:warn"}


@pytest.mark.parametrize(
    "cubins, ptx, capability, expected",
    [
        (["8.0"], [], "8.6", True),
        (["8.6"], [], "8.0", False),
        (["8.0"], ["8.0"], "12.0", True),
        (["9.0a"], [], "9.0", True),
        (["10.0a"], [], "10.3", False),  # that GPU alone
        (["9.0a"], ["9.0a"], "12.0", False),  # no newer one can compile this PTX
        (["10.0f"], ["10.0f"], "10.3", True),
        (["10.3f"], [], "10.0", False),
        (["10.0f"], ["10.0f"], "12.0", False),  # another family
        (["10.0a", "10.0"], [], "10.3", True),
        (["12.0x"], [], "12.0", None),
        (["9.0"], [], "9.0a", None),
    ],
)
def test_code_runs_where_nvidia_says_so(cubins, ptx, capability, expected):
    assert runs_on(cubins, ptx, capability) is expected


@pytest.mark.parametrize("listed, warned", [("10.0a", True), ("10.0f", False), ("10.0a;10.3", False)])
def test_an_arch_list_of_suffixed_names_is_judged_as_well(listed, warned):
    host, cuda = (
        Host(environment={"TORCH_CUDA_ARCH_LIST": listed}),
        Cuda(gpus=(Gpu("B300", capability="10.3"),)),
    )
    assert ("arch-list-gpu:warn" in ids(host=host, cuda=cuda)) is warned


@pytest.mark.parametrize(
    "release, older",
    [
        ("4.18.0-553.el8_10.x86_64", True),
        ("5.4.0-182-generic", True),
        ("5.5.0-rc1", False),
        ("6.18.44-fc-v669", False),
        ("linux", None),
        (None, None),
    ],
)
def test_kernels_compare_by_their_numbers(release, older):
    assert kernel_older(release, "5.5") is older


@pytest.mark.parametrize("gpus, wsl, expected", [(2, 0, {"kernel-hang:info"}), (1, 0, set()), (2, 2, set())])
def test_an_old_kernel_is_worth_a_word_where_several_gpus_wait_for_each_other(gpus, wsl, expected):
    host = Host(system="Linux", kernel="5.4.0-182-generic", wsl=wsl)
    assert {each for each in ids(host=host, cuda=Cuda(gpus=GPU * gpus)) if "hang" in each} == expected


@pytest.mark.parametrize(
    "kernel, expected",
    [("5.10.16.3-microsoft-standard-WSL2", True), ("5.10.43.3-mine", False), ("mine", False)],
)
def test_wsl2_has_to_have_a_kernel_that_cuda_works_in(kernel, expected):
    assert ("wsl-kernel-old:warn" in ids(host=Host(system="Linux", kernel=kernel, wsl=2))) is expected


@pytest.mark.parametrize(
    "found, limit, expected",
    [("1.9.1+cu111", "1.10", True), ("1.10.0", "1.9", False), (None, "1", None), ("x", "1", None)],
)
def test_versions_compare_as_versions(found, limit, expected):
    assert older(found, limit) is expected
    assert (major("12.4"), major("x"), major(None)) == (12, None, None)


def test_packages_of_one_folder_on_the_pythonpath_are_told_together():
    many = tuple(Package(f"p{number}", "1", "/mine") for number in range(9))
    python = Python(packages=(*many, Package("q", "2", "/other"), Package("r", "3", "/site")))
    host = Host(environment={"PYTHONPATH": "/mine:/other::/mine"})
    found = [
        each.seen for each in diagnose(Machine(host=host, python=python)) if each.id == "pythonpath-leak"
    ]
    assert found == [
        "p0 1, p1 1, p2 1, p3 1, p4 1, p5 1 and 3 more would come from PYTHONPATH (/mine)",
        "q 2 would come from PYTHONPATH (/other)",
    ]


@pytest.mark.parametrize(
    "host, expected",
    [
        (dict(wsl=0, container=""), {"proxy-set:info"}),
        (dict(wsl=2), {"proxy-set:info", "proxy-localhost:warn"}),
        (dict(wsl=0, container="docker"), {"proxy-set:info", "proxy-localhost:warn"}),
    ],
)
def test_a_proxy_at_localhost_is_another_place_inside(host, expected):
    host = {**host, "environment": {"https_proxy": "http://127.0.0.1:7890"}}
    assert ids(host=Host(**host)) == expected
    assert ids(host=Host(**{**host, "environment": {"https_proxy": "http://proxy"}})) == {"proxy-set:info"}


@pytest.mark.parametrize("installed, fires", [(None, False), ((), True), (packages(pysocks="1.7.1"), False)])
def test_pip_needs_pysocks_for_a_socks_proxy(installed, fires):
    found = ids(host=Host(environment={"ALL_PROXY": "socks5h://proxy"}), python=Python(packages=installed))
    assert ("proxy-socks:warn" in found) is fires


@pytest.mark.parametrize(
    "mib, count, fires", [(81920, 1, True), (40960, 7, True), (81920, 8, False), (24268, 1, False)]
)
def test_two_weeks_of_training_are_told_where_they_could_begin(mib, count, fires):
    found = ids(cuda=Cuda(gpus=(Gpu("A100", mib),) * count))
    assert ("train-days:info" in found) is fires
