"""Kills a short training before each operation on a file of its folder in turn, lets it go on, and compares.

Prints how many times it killed, and how many different ends there were.
"""

import os
import shutil
import signal
import sys
import tempfile
import traceback

import torch
from test_train import SHORT, play

from bevformer import record
from bevformer.checkpoint_read import read_file

EVENTS = ("open", "os.rename", "os.remove", "os.symlink", "os.chmod", "os.mkdir", "os.truncate")


def short_run(folder, kill_at=0, **options):
    """In a fork: 2 epochs of 5 steps, keeping one checkpoint.  Killed before operation number `kill_at`.

    Returns how it ended, as os.waitpid says it.
    """
    from dataclasses import replace

    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    count = 0

    def watch(event, args):
        nonlocal count
        if event in EVENTS and any(isinstance(arg, str) and arg.startswith(folder) for arg in args):
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        config = replace(SHORT, schedule=replace(SHORT.schedule, max_steps=0, max_epochs=2))
        sys.stderr = open(os.devnull, "w")
        record.git_commit = lambda folder=None: None
        sys.addaudithook(watch)
        play(folder, config, keep_last=1, frames=["a 1 2 3"], **options)
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
        os._exit(1)
    os._exit(0)


def end_of(folder):
    return sorted(read_file(os.path.join(folder, "latest.pth"))["meta"]["digest"].items())


def main():
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # imports a second's worth, once for all forks
    top = tempfile.mkdtemp()
    try:
        assert short_run(os.path.join(top, "whole")) == 0
        ends, killed = [end_of(os.path.join(top, "whole"))], 0
        while True:
            folder = os.path.join(top, "w")
            ended = short_run(folder, killed + 1)
            if ended == 0:
                break
            assert ended == signal.SIGKILL, "before operation %d: ended with %d" % (killed + 1, ended)
            assert short_run(folder, resume="auto") == 0, "not gone on after operation %d" % killed
            assert set(os.listdir(folder)) == names_of(folder), os.listdir(folder)
            ends.append(end_of(folder))
            shutil.rmtree(folder)
            killed += 1
    finally:
        shutil.rmtree(top)
    print(killed, len({str(end) for end in ends}))


def names_of(folder):
    """What a run leaves, and the logs of its sessions: nothing half written, one checkpoint."""
    kept = {".lock", "config.json", "epoch_2.pth", "frames.txt", "iter_0.pth", "latest.pth", "run.json"}
    return kept | {name for name in os.listdir(folder) if ".log" in name}


if __name__ == "__main__":
    main()
