"""Which g++ a toolkit gets."""

from pathlib import Path

import pytest

from bevrepro.core import proc
from bevrepro.env import host_compiler
from bevrepro.env.host_compiler import found


@pytest.fixture
def machine(monkeypatch):
    """Programs on PATH by name, each with its major version; "clang" for clang under that name."""

    def set_up(**compilers):
        names = {name.replace("gxx", "g++").replace("_", "-"): major for name, major in compilers.items()}
        names |= {name.replace("g++", "gcc"): major for name, major in names.items()}
        monkeypatch.setattr(proc, "which", lambda name: Path(f"/bin/{name}") if name in names else None)

        def run(argv, **more):
            major = names[argv[0].name]
            extra = "#define __clang__ 1\n" if major == "clang" else ""
            return proc.Done(0, f"{extra}#define __GNUC__ {4 if extra else major}\n", "")

        monkeypatch.setattr(proc, "run", run)

    return set_up


@pytest.mark.parametrize(
    "compilers, newest, chosen",
    [
        ({"gxx": 12}, 13, "/bin/g++"),
        ({"gxx": 12, "gxx_12": 12, "gxx_11": 11}, 13, "/bin/g++-12"),
        ({"gxx": 12, "gxx_11": 11, "gxx_9": 9}, 11, "/bin/g++-11"),
        ({"gxx": 9}, 11, "/bin/g++"),
    ],
)
def test_the_newest_that_nvcc_takes_is_chosen(machine, compilers, newest, chosen):
    machine(**compilers)
    compiler, said = found(newest)
    assert compiler is not None and str(compiler.gxx) == chosen and "takes" in said


@pytest.mark.parametrize("compilers", [{}, {"gxx": 12}, {"gxx": 4}, {"gxx": "clang"}])
def test_none_that_fits_is_said_with_what_was_seen(machine, compilers):
    machine(**compilers)
    compiler, said = found(11)
    assert compiler is None and "looked for g++-11 down to g++-7" in said
    assert ("gcc 12" in said) == (compilers == {"gxx": 12})


def test_a_toolkit_finds_the_machines_compiler_by_links(tmp_path):
    pair = host_compiler.HostCompiler(Path("/bin/gcc-11"), Path("/bin/g++-11"), 11)
    host_compiler.install_links(tmp_path / "host", pair)
    assert str((tmp_path / "host/bin/g++").readlink()) == "/bin/g++-11"
