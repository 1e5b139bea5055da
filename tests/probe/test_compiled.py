"""torch and its extensions as files, in made-up environments."""

import pytest

from bevrepro.core.machine import Machine, Package, Python, Torch
from bevrepro.doctor.diagnose import diagnose
from bevrepro.probe.compiled import probe_libstdcxx, read_compiled
from tests.probe.compiling import compile_library, gpu_code, needs_gcc

OLD, NEW = "_ZN3c106detail3oldEv", "_ZN3c106detail3newEv"
# Real libraries say "NCCL version" before, without a number.
NCCL = 'const char said[] = "Unknown NCCL version\\0NCCL version 2.7.8+cuda11.1";'


def environment(folder, symbol=OLD, extension=True):
    """A site-packages with a torch that defines c10::detail::old, and an extension that wants `symbol`."""
    lib = folder / "torch/lib"
    compile_library(lib / "libc10.so", f"int {OLD}(void) {{ return 1; }}")
    compile_library(lib / "libtorch_cuda.so", gpu_code(70, 80) + NCCL)
    compile_library(lib / "libtorch_python.so", "int p(void) { return 1; }", "-Wl,--no-as-needed", f"-L{lib}",
                    "-lc10", "-ltorch_cuda")  # fmt: skip
    names = "".join(f"torch/lib/{name},sha256=x,1\n" for name in ("libc10.so", "libtorch_cuda.so"))
    (folder / "torch-1.9.1.dist-info").mkdir()
    (folder / "torch-1.9.1.dist-info/RECORD").write_text(names)
    if extension:
        code = f"extern int {symbol}(void); int f(void) {{ return {symbol}(); }}"
        compile_library(folder / "mmcv/_ext.cpython-38-x86_64-linux-gnu.so", code + gpu_code(80))
    packages = (Package("torch", "1.9.1", str(folder)), Package("mmcv-full", "1.4.0", str(folder)))
    return Python(version="3.8.1", packages=packages, torch=Torch("1.9.1+cu111", "11.1"))


def ids(python) -> set[str]:
    return {each.id for each in diagnose(Machine(python=python))}


@needs_gcc
def test_a_torch_that_fits_its_extension(tmp_path):
    python = read_compiled(environment(tmp_path), environment={})
    assert python.torch.compiled.architectures == ("7.0", "8.0") and python.torch.compiled.missing == ()
    assert python.torch.nccl == "2.7.8" and python.torch.deleted == ()
    (extension,) = python.extensions
    assert extension.undefined_count == 0 and extension.architectures == ("8.0",)
    assert ids(python) == set()


LISTS = [
    # torch 1.10.2 of PyPI: what was linked in (magma, cuDNN, NCCL) has 3.5, 6.1 and 7.5, and PTX.
    ("sm_37 sm_50 sm_60 sm_70", (35, 37, 50, 60, 61, 70, 75), ("3.7", "5.0", "6.0", "7.0"), ()),
    ("sm_70 sm_80 compute_80", (70, 80), ("7.0", "8.0"), ("8.0",)),
    ("sm_80", (80,), ("8.0",), ()),
    ("sm_90 sm_100a", (90, "90a", "100a", 100), ("9.0", "10.0a"), ()),
    ("sm_99", (80,), ("8.0",), ("8.0",)),  # a list that fits nothing says nothing
    ("no list", (70, 80), ("7.0", "8.0"), ("8.0",)),
]


@needs_gcc
@pytest.mark.parametrize("listed, compiled, architectures, ptx", LISTS, ids=[row[0] for row in LISTS])
def test_torchs_own_list_tells_its_kernels_from_what_was_linked_in(
    tmp_path, listed, compiled, architectures, ptx
):
    python = environment(tmp_path, extension=False)
    lib = tmp_path / "torch/lib"
    compile_library(lib / "libtorch_cuda.so", gpu_code(*compiled, ptx=(80,)))
    said = f'const char a[] = "use sm_90 or newer", list[] = "c_h{listed}", other[] = "sm_61";'
    compile_library(lib / "libtorch_python.so", said, "-Wl,--no-as-needed", f"-L{lib}", "-ltorch_cuda")
    found = read_compiled(python, environment={}).torch.compiled
    assert found.architectures == architectures and found.ptx == ptx


@needs_gcc
def test_an_extension_for_another_torch(tmp_path):
    python = read_compiled(environment(tmp_path, NEW), environment={})
    assert python.extensions[0].undefined == (NEW,)
    assert ids(python) == {"ext-other-torch"}


@needs_gcc
@pytest.mark.parametrize(
    "symbol, torchs",
    [  # as in extensions built beside torch 2.8 and 2.13
        ("_Z16THPVariable_WrapRKN2at10TensorBaseE", True),
        ("THPVariableClass", True),
        ("_ZN8pybind116detail11type_casterIN2at6TensorEvE4loadENS_6handleEb", True),
        ("_ZNK3c1010TensorImpl15incref_pyobjectEv", True),
        ("_ZTIN3c105ErrorE", True),
        ("_ZN6vision3opsEv", False),
        ("_ZN7c10_npu3getEv", False),
        ("PyObject_Call", False),
    ],
)
def test_only_torchs_own_symbols_are_held_against_torch(tmp_path, symbol, torchs):
    python = read_compiled(environment(tmp_path, symbol), environment={})
    assert python.extensions[0].undefined == ((symbol,) if torchs else ())


@needs_gcc
def test_a_deleted_library_is_told_once_and_blames_nobody_else(tmp_path):
    python = environment(tmp_path)
    (tmp_path / "torch/lib/libc10.so").unlink()
    read = read_compiled(python, environment={})
    assert read.torch.deleted == ("torch/lib/libc10.so",)
    assert ids(read) == {"torch-library-deleted"}


@needs_gcc
def test_a_cut_library_is_damage(tmp_path):
    python = environment(tmp_path, extension=False)
    path = tmp_path / "torch/lib/libtorch_cuda.so"
    path.write_bytes(path.read_bytes()[:60])
    assert "torch-library-deleted" in ids(read_compiled(python, environment={}))


@needs_gcc
def test_operators_that_were_never_built(tmp_path):
    assert ids(read_compiled(environment(tmp_path, extension=False), environment={})) == {"mmcv-no-ops"}


@needs_gcc
def test_a_missing_cuda_runtime(tmp_path):
    python = environment(tmp_path)
    compile_library(tmp_path / "libcudart.so.10.2", "int r(void) { return 1; }")
    compile_library(tmp_path / "mmcv/_ext.cpython-38-x86_64-linux-gnu.so", "int f(void) { return 1; }",
                    "-Wl,--no-as-needed", f"-L{tmp_path}", "-l:libcudart.so.10.2")  # fmt: skip
    assert read_compiled(python, environment={}).extensions[0].missing == ("libcudart.so.10.2",)
    assert read_compiled(python, environment={"LD_LIBRARY_PATH": str(tmp_path)}).extensions[0].missing == ()
    assert "library-missing" in ids(read_compiled(python, environment={}))


@needs_gcc
def test_a_library_that_a_wheel_renamed_is_found_by_its_own_name(tmp_path):
    """torch 1.10.0 brings libcudart-80664282.so.10.2; torchvision 0.11.1 needs libcudart.so.10.2."""
    python = environment(tmp_path)
    lib = tmp_path / "torch/lib"
    renamed = lib / "libcudart-80664282.so.10.2"
    compile_library(renamed, "int r(void) { return 1; }", "-Wl,-soname,libcudart.so.10.2")
    compile_library(tmp_path / "torchvision/_C.so", "int f(void) { return 1; }", "-Wl,--no-as-needed",
                    f"-L{lib}", "-l:libcudart-80664282.so.10.2")  # fmt: skip
    found = {each.name: each.missing for each in read_compiled(python, environment={}).extensions}
    assert found["torchvision/_C.so"] == ()


def test_no_torch_is_left_as_it_is(tmp_path):
    python = Python(packages=())
    assert read_compiled(python) == python


@needs_gcc
def test_the_library_path_comes_before_the_system(tmp_path):
    (tmp_path / "map").write_text("GLIBCXX_3.4.19 { global: f; };")
    compile_library(tmp_path / "libstdc++.so.6", "int f(void) { return 1; }",
                    f"-Wl,--version-script={tmp_path}/map")  # fmt: skip
    found = probe_libstdcxx(None, environment={"LD_LIBRARY_PATH": str(tmp_path)})
    assert found.glibcxx == "3.4.19" and found.path.startswith(str(tmp_path))
    assert probe_libstdcxx(None, root=tmp_path / "nowhere", environment={}) is None
