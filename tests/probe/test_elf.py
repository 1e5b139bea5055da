"""Reading shared libraries as files."""

import pytest

from bevrepro.probe.elf import Elf, NotElf, gnu_hash, newest, plain_name
from bevrepro.probe.fatbin import read_fatbin
from tests.probe.compiling import compile_library, gpu_code, needs_gcc

CODE = "extern int wanted(void); int defined(void) { return wanted(); } int other(void) { return 1; }"


@needs_gcc
@pytest.mark.parametrize("style", ["gnu", "sysv", "both"])
def test_a_library_tells_what_it_needs_and_defines(tmp_path, style):
    compile_library(tmp_path / "libdep.so", "int wanted(void) { return 1; }")
    path = compile_library(tmp_path / "liba.so", CODE, f"-L{tmp_path}", "-ldep", "-Wl,-rpath,$ORIGIN/lib",
                           f"-Wl,--hash-style={style}", "-Wl,-soname,liba.so.1")  # fmt: skip
    with Elf(path) as elf:
        assert elf.needed() == ("libdep.so",) and elf.soname() == "liba.so.1"
        assert elf.search_path() == (f"{tmp_path}/lib",)
        assert list(elf.undefined()) == ["wanted"]
        assert elf.defines("defined") and elf.defines("other")
        assert not elf.defines("wanted") and not elf.defines("nowhere")


@needs_gcc
def test_versions_are_read_from_both_sides(tmp_path):
    (tmp_path / "map").write_text("X_1.2 { global: f; }; X_1.10 { global: g; } X_1.2;")
    code = "int f(void) { return 1; } int g(void) { return 2; }"
    compile_library(tmp_path / "libx.so", code, f"-Wl,--version-script={tmp_path}/map")
    user = compile_library(tmp_path / "liby.so", "extern int g(void); int h(void) { return g(); }",
                           f"-L{tmp_path}", "-lx")  # fmt: skip
    with Elf(tmp_path / "libx.so") as elf:
        assert elf.version_definitions() == ("X_1.10", "X_1.2")
    with Elf(user) as elf:
        assert elf.version_needs() == ("X_1.10",)


@pytest.mark.parametrize("content", [b"", b"MZ\x90", b"\x7fELF\x01\x01", b"\x7fELF\x02\x01" + bytes(20)])
def test_what_is_no_library_is_refused(tmp_path, content):
    (tmp_path / "x.so").write_bytes(content)
    with pytest.raises(NotElf), Elf(tmp_path / "x.so") as elf:
        elf.sections()


def read_all(path):
    """Whatever is read of a library: it is there, or the file is told to be none."""
    try:
        with Elf(path) as elf:
            elf.needed(), list(elf.undefined()), elf.defines("defined"), elf.version_needs()
            elf.sections(), read_fatbin(elf)
    except NotElf:
        return


@needs_gcc
def test_a_cut_library_never_raises_anything_else(tmp_path):
    path = compile_library(tmp_path / "liba.so", CODE + gpu_code(80))
    whole = path.read_bytes()
    for size in range(0, len(whole), 257):
        path.write_bytes(whole[:size])
        read_all(path)


@needs_gcc
def test_flipped_bytes_never_raise_anything_else(tmp_path):
    path = compile_library(tmp_path / "liba.so", CODE + gpu_code(80))
    whole = path.read_bytes()
    for at in range(16, 1024, 5):
        path.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
        read_all(path)


@needs_gcc
def test_architectures_come_from_the_fat_binaries(tmp_path):
    path = compile_library(tmp_path / "liba.so", gpu_code(37, 70, 80, ptx=(80,)))
    with Elf(path) as elf:
        found = read_fatbin(elf)
    assert found.architectures == ("3.7", "7.0", "8.0") and found.intermediate == ("8.0",)
    with Elf(compile_library(tmp_path / "libb.so", CODE)) as elf:
        assert read_fatbin(elf) is None


@needs_gcc
def test_code_for_one_gpu_or_family_is_told_from_the_plain_architecture(tmp_path):
    path = compile_library(
        tmp_path / "liba.so", gpu_code(90, "90a", "100f", "120a", 120, ptx=("100f", "120a"))
    )
    with Elf(path) as elf:
        found = read_fatbin(elf)
    assert found.architectures == ("9.0", "9.0a", "10.0f", "12.0", "12.0a")
    assert found.intermediate == ("10.0f", "12.0a")


@needs_gcc
def test_a_few_parts_of_a_linked_in_library_are_not_torchs_architecture(tmp_path):
    path = compile_library(tmp_path / "liba.so", gpu_code(*[70] * 30, 75))
    with Elf(path) as elf:
        assert read_fatbin(elf).architectures == ("7.0",)


def test_the_hash_is_glibcs():
    assert gnu_hash(b"printf") == 0x156B2BB8 and gnu_hash(b"") == 5381


@pytest.mark.parametrize(
    "symbol, name",
    [
        ("_ZN3c106detail14torchCheckFailEPKcS2_jS2_", "c10::detail::torchCheckFail"),
        ("_ZNK2at6Tensor4viewEv", "at::Tensor::view"),
        ("_ZTIN3c105ErrorE", "c10::Error"),
        ("printf", "printf"),
    ],
)
def test_names_for_people(symbol, name):
    assert plain_name(symbol) == name


def test_versions_compare_as_numbers():
    assert newest(("GLIBCXX_3.4.9", "GLIBCXX_3.4.30", "GLIBCXX_DEBUG", "GLIBC_2.40"), "GLIBCXX") == "3.4.30"
    assert newest((), "GLIBCXX") is None
