"""Fixtures for all tests."""

import functools
import gc
import os
import signal
import sys
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # before anything imports torch: as many threads as there are tests
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ignored where a script started the tests with `&`, or nohup did, and so in what they start.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, usual)


@pytest.hookimpl(hookwrapper=True)
def pytest_collection():
    """What is made now, ten thousand tests and torch, stays to the end: no search for garbage looks there."""
    gc.disable()
    yield
    settle()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """Nor in what is imported later, where it is much, such as what torch's optimizers bring with them."""
    if (nextitem is None or nextitem.path != item.path) and len(sys.modules) > settled[-1] + 200:
        gc.collect()
        settle()


settled = []  # how many modules there were each time


def settle():
    settled.append(len(sys.modules))
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def builds(tmp_path_factory):
    """The CPU operators are compiled once for all tests, whichever cache a test gives to its programs."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "builds"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEVREPRO_BUILDS", str(folder))
        yield


@pytest.fixture(scope="session", autouse=True)
def commands():
    """typer's tree of our commands is made once: it makes it at each call, most of a short command's time."""
    try:
        from typer import main as typer
    except ImportError:  # an environment's own interpreter: without it, no command is called in here
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer, "get_command", functools.lru_cache(maxsize=None)(typer.get_command))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of measured facts and of a little real data; it never enters the repository."""
    folder = Path(os.environ.get("BEVREPRO_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(
            f"no folder {folder}: set BEVREPRO_SHARED to run the tests against recorded and real data"
        )
    return folder


@pytest.fixture(scope="session")
def built():
    """The folder of a target's finished environment, at its default prefix; the test skips without one."""

    def prefix(target):
        from bevrepro.core.errors import UserError
        from bevrepro.env import layout

        try:
            return layout.real(None, target)
        except UserError as error:
            pytest.skip(f"{error}: make test-openmmlab")

    return prefix
