"""What stands between the interpreter and the program when a run has several processes."""

import socket

import pytest

from bevrepro.core.errors import ConfigError
from bevrepro.drive.launch import model_argv
from bevrepro.drive.processes import Processes, killed_in, launcher, of_run, require_free_port


def test_one_process_needs_no_launcher():
    assert launcher(of_run(None, None, 1, None), {}) == []
    assert model_argv("train", ["c"], "py", of_run(1, None, 1, None)) == [
        "py",
        "-m",
        "bevformer",
        "train",
        "c",
    ]


def test_one_machine_takes_a_free_port():
    words = launcher(of_run(8, None, 1, None), {})
    assert words == ["-m", "torch.distributed.run", "--nproc_per_node", "8", "--standalone"]


@pytest.mark.parametrize("name", ["PORT", "MASTER_PORT"])
def test_a_port_that_was_asked_for_is_taken(name):
    words = launcher(Processes(2), {name: "29501"})
    assert words[-2:] == ["--rdzv_endpoint", "localhost:29501"] and "--standalone" not in words


def test_several_machines_meet_at_one_of_them():
    words = launcher(of_run(8, None, 2, "node0:29500"), {})
    assert words[words.index("--nnodes") + 1] == "2" and words[-1] == "node0:29500"


@pytest.mark.parametrize(
    "options, words",
    [
        ((2, 4, 1, None), "--processes 4 with --gpus 2"),
        ((8, None, 2, None), "without --rendezvous"),
        ((8, None, 2, "node0"), "is not HOST:PORT"),
    ],
)
def test_what_does_not_go_together_is_a_sentence(options, words):
    with pytest.raises(ConfigError, match=words):
        of_run(*options)


@pytest.mark.parametrize("port", ["", "0", "x", "70000"])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(ConfigError, match="port"):
        launcher(Processes(2), {"PORT": port, "MASTER_PORT": "x"})


TORCHRUN_SAYS = """
Failures:
[1]:
  time      : 2026-11-21_16:26:00
  rank      : 1 (local_rank: 1)
  exitcode  : {one} (pid: 15909)  (X)
Root Cause (first observed failure):
[0]:
  time      : 2026-11-21_16:26:00
  rank      : 0 (local_rank: 0)
  exitcode  : {root} (pid: 15908)
"""


@pytest.mark.parametrize(
    "one, root, killed", [(-9, 9, (1, 9)), (-15, -7, (0, 7)), (-15, 1, None), (9, 9, None)]
)
def test_the_process_that_was_killed_is_found_in_what_torchrun_says(one, root, killed):
    assert killed_in(TORCHRUN_SAYS.format(one=one, root=root)) == killed


def test_a_free_port_is_taken_as_it_is():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    require_free_port(port)
