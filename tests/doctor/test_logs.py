"""`--from-log`: every known failure is told from its log, and a healthy log tells none."""

import functools
import importlib.util
import io
import json
from pathlib import Path

import pytest

from bevrepro.core.machine import Machine
from bevrepro.doctor.logs.explain import explain_stream
from bevrepro.doctor.logs.failures import Tier, compiled, known_failures
from bevrepro.doctor.registry import ALL_CHECKS
from bevrepro.facts import tomllib

ROOT = Path(__file__).parents[2]
LOGS = ROOT / "tests" / "logs"
LABELS = tomllib.loads((LOGS / "labels.toml").read_text(encoding="utf-8"))
DEV = {name: label for name, label in LABELS.items() if name.startswith("dev/")}
FAILURES = known_failures()
NOT_TOLD = {
    "dev/123-tf32-warning-29.log": "healthy logs of torch 2.9 carry the same two warnings",
    "dev/231-stale-notfound.log": "told as DATA-MISSINGFILE: whose path it is cannot be seen",
    "dev/603-check-infos.log": "only the user's own remark says so",
}


@functools.cache
def measured(split: str):
    """What benchmarks/log_recognition.py says of one part of the set."""
    spec = importlib.util.spec_from_file_location("log_recognition", ROOT / "benchmarks/log_recognition.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.measure(split)


def ids(text: str | bytes) -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    return [each.id for each in explain_stream(io.BytesIO(data), Machine())]


def marked(name: str):
    reason = NOT_TOLD.get(name)
    return pytest.param(name, marks=pytest.mark.xfail(strict=True, reason=reason)) if reason else name


def test_every_sample_of_the_catalogue_is_its_own_root(shared):
    samples = json.loads((shared / "facts/failure_catalogue.json").read_text(encoding="utf-8"))
    found = {entry["id"]: ids(entry["sample"]) for entry in samples}
    assert len(found) == 95
    assert {id: told[:1] for id, told in found.items()} == {id: [id] for id in found}


@pytest.mark.parametrize("name", [marked(name) for name in DEV])
def test_a_log_of_the_development_part_has_its_root(name):
    told = ids((LOGS / name).read_bytes())
    assert told[:1] == ([DEV[name]["root"]] if DEV[name]["root"] else [])


@pytest.mark.parametrize("split", ["dev", "heldout"])
def test_recall_and_precision(split):
    figures = measured(split)
    assert figures["recall"] >= 0.95 and figures["precision"] >= 0.95, figures


@pytest.mark.parametrize("split", ["dev", "heldout"])
def test_no_healthy_log_is_flagged(split):
    assert measured(split)["healthy_flagged"] == 0


@pytest.mark.parametrize(
    "text, root",
    [
        ("[rank3]: RuntimeError: CUDA error: an illegal memory access was encountered", "GPU-ILLEGAL"),
        ("RuntimeError: cuDNN error: CUDNN_STATUS_NOT_INITIALIZED", "CUDNN-INIT"),
        ("WorkNCCL(SeqNum=5) ran for 600013 milliseconds before timing out.", "NCCL-WATCHDOG"),
        ("Expected to have finished reduction in the prior iteration before starting", "DDP-UNUSED"),
        ("torch.distributed.elastic: Received 1 death signal, shutting down workers", "RUN-SIGHUP"),
        ("  exitcode  : -11 (pid: 4242)", "RUN-SEGV"),
        ("N > 0 assert faild. CUDA kernel launch blocks must be positive, but got N= 0", "SPCONV-EMPTY"),
        ("ModuleNotFoundError: No module named 'projects'", "PKG-PROJECTS"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'data/nuscenes_infos_temporal_val.pkl'",
         "DATA-NOINFOS"),
        ("There are not enough slots available in the system to satisfy the 8 slots", "MPI-SLOTS"),
        ("OSError: [Errno 122] Disk quota exceeded: 'work_dirs/epoch_3.pth'", "FS-QUOTA"),
        ("sqlite3.OperationalError: database is locked", "SQLITE-LOCKED"),
        ("ModuleNotFoundError: No module named 'mmengine'", "PKG-MMENGINE"),
        ("RuntimeError: ACL stream synchronize failed, error code:507015", "NPU-ACL"),
    ],
)  # fmt: skip
def test_failures_beyond_the_catalogue(text, root):
    assert ids(text)[:1] == [root]


@pytest.mark.parametrize(
    "text, root",
    [
        ("RuntimeError: The detected CUDA\n    version (12.4) mismatches the version   that was used to\n"
         "compile PyTorch (11.3).", "CUDA-MISMATCH"),
        ("\x1b[31mnvcc fatal   : Unsupported gpu architecture 'compute_90'\x1b[0m", "CUDA-ARCHNVCC"),
        ("[1,0]<stderr>:2024-01-02 10:00:00,123 - mmdet - ERROR - libGL.so.1: cannot open shared object file",
         "ABI-LIBGL"),
        ("python: 写入错误: 设备上没有空间", "FS-SPACE"),
        ("train.sh: 第 3 行: 12345 已杀死               python tools/train.py", "RAM-KILLED"),
        ("torch: CUDA error: no kernel image is availab\nle for execution on the device", "GPU-NOKERNEL"),
        ("  3%|#  | 10/300\r  4%|#  | 12/300\rOSError: [Errno 30] Read-only file system: 'x'", "FS-RO"),
    ],
)  # fmt: skip
def test_what_stands_around_a_message_does_not_hide_it(text, root):
    assert ids(text)[:1] == [root]


def test_a_wrapper_stands_behind_its_cause():
    text = "c++: fatal error: Killed signal terminated program cc1plus\nninja: build stopped.\n"
    told = explain_stream(io.BytesIO(text.encode()), Machine())
    assert [each.id for each in told] == ["CC-OOM", "CC-NINJA"]
    assert told[1].explained_by == "CC-OOM" and told[0].lines == (1,)


def test_shared_memory_outranks_a_full_disk():
    text = 'File "multiprocessing/synchronize.py", in __init__\n_multiprocessing.SemLock(\n'
    assert ids(text + "OSError: [Errno 28] No space left on device")[0] == "NCCL-SHM"


@pytest.mark.parametrize(
    "text",
    [
        "state dict do not match exactly\n\nunexpected key in source state_dict: fc.weight, fc.bias",
        "mAP: 0.0123\nmATE: 1.0\nmASE: 0.70\nmAOE: 1.5\n",
        "Could not load dynamic library 'libcudart.so.11.0'; dlerror: libcudart.so.11.0: cannot open",
        "RuntimeWarning: numpy.ufunc size changed, may indicate binary incompatibility.",
        "NCCL INFO NCCL_IB_TIMEOUT set by environment to 22.\nProcessGroupNCCL options: TIMEOUT(ms): 1800000",
        "Unmount it with: fusermount -u mnt\ndocker run --device /dev/fuse image",
        "The detected CUDA version (11.3) has a minor version mismatch with the version",
        "2022-08-30 - mmdet - INFO - Saving checkpoint at 20 epochs",
        "",
    ],
)
def test_what_only_looks_like_a_failure_tells_nothing(text):
    assert ids(text) == []


def test_rows_refer_to_each_other_and_to_checks_that_exist():
    known, checks = {failure.id for failure in FAILURES}, {check.id for check in ALL_CHECKS}
    evidence = {failure.id for failure in FAILURES if failure.tier is Tier.EVIDENCE}
    assert not {id for failure in FAILURES for id in failure.follows} - known
    assert not {id for failure in FAILURES for id in failure.preface} - checks
    rules = {id for failure in FAILURES for each in failure.matchers for id in (*each.having, *each.lacking)}
    assert rules == evidence


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.id)
def test_a_row_has_words_patterns_and_a_way_out(failure):
    assert all(word == word.lower() and not any(c.isdigit() for c in word) for word in failure.words)
    assert all(word.isascii() or not any(c.isascii() for c in word) for word in failure.words)
    for matcher in failure.matchers:
        assert matcher.any or matcher.all
        assert all(compiled(each) for each in (*matcher.any, *matcher.all, *matcher.none))
    assert failure.tier is Tier.EVIDENCE or (failure.title and failure.cause and failure.fix)
