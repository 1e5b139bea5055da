"""How several processes of one run are started: torchrun, on one machine or on several.

One process needs none of it: no launcher, no process group, no port (facts: reproduction.md).
"""

import os
import re
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from bevrepro.core.errors import ConfigError, MachineError

TORCHRUN = ("-m", "torch.distributed.run")  # its name since torch 1.10


@dataclass(frozen=True)
class Processes:
    """`here` of this machine, the same number on each of `nodes` machines, which meet at `rendezvous`
    (HOST:PORT of one of them)."""

    here: int = 1
    nodes: int = 1
    rendezvous: str | None = None

    @property
    def count(self) -> int:
        return self.here * self.nodes


ALONE = Processes()


def of_run(gpus: int | None, processes: int | None, nodes: int, rendezvous: str | None) -> Processes:
    """From the options of `train`. ConfigError for what does not go together."""
    if processes is not None and gpus and processes != gpus:
        raise ConfigError(
            f"--processes {processes} with --gpus {gpus}",
            "Every GPU needs a process of its own.",
            "Leave --processes out; it is for the CPU (--gpus 0).",
        )
    here = processes or max(gpus or 0, 1)
    if nodes > 1 and not rendezvous:
        raise ConfigError(
            f"--nodes {nodes} without --rendezvous",
            "The machines have to find each other.",
            "Run the same command on each, with --rendezvous HOST:PORT of one of them.",
        )
    if rendezvous and (":" not in rendezvous or not rendezvous.rpartition(":")[2].isdigit()):
        raise ConfigError(f"--rendezvous {rendezvous} is not HOST:PORT", do="For example: node0:29500")
    return Processes(here, nodes, rendezvous)


def launcher(processes: Processes, env: Mapping[str, str] | None = None) -> list[str]:
    """Words between the interpreter and `-m bevformer`. On one machine the port is a free one, unless
    PORT or MASTER_PORT asks for another, as dist_train.sh does."""
    if processes.count == 1:
        return []
    env = os.environ if env is None else env
    words = [*TORCHRUN, "--nproc_per_node", str(processes.here)]
    if processes.nodes > 1:
        meet = [
            "--rdzv_backend",
            "c10d",
            "--rdzv_id",
            "bevrepro",
            "--rdzv_endpoint",
            str(processes.rendezvous),
        ]
        return [*words, "--nnodes", str(processes.nodes), *meet]
    port = env.get("PORT") or env.get("MASTER_PORT")
    if port is None:
        return [*words, "--standalone"]
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"the port {port!r} is none", do="Unset PORT and MASTER_PORT: a free one is found.")
    require_free_port(int(port))
    return [*words, "--nnodes", "1", "--rdzv_backend", "c10d", "--rdzv_endpoint", f"localhost:{port}"]


def killed_in(tail: str) -> tuple[int, int] | None:
    """(rank, signal) of a process that something from outside ended, from what torchrun said last.

    Its own SIGTERM, which it sends to the others then, is no cause.
    """
    for rank, code in re.findall(r"rank\s*:\s*(\d+)[^\n]*\n\s*exitcode\s*:\s*-(\d+)", tail):
        if int(code) != signal.SIGTERM:
            return int(rank), int(code)
    return None


def require_free_port(port: int) -> None:
    """MachineError where another program listens on it: torchrun would wait for it to answer."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that has just been left is free
        try:
            probe.bind(("localhost", port))
        except OSError as error:
            raise MachineError(
                f"port {port} cannot be used: {error.strerror}",
                "Another program listens there, perhaps a run that was left over.",
                "Unset PORT and MASTER_PORT, so that a free one is found, or name another.",
            ) from error
