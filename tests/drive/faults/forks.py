"""Runs `python -m bevformer` in forks of one process, so that torch is imported once.

argv[1]: JSON, a list of stages, each a list of jobs that run side by side.  A job is {"argv": [...]}, and
may have "kill": [path, seconds]: kill -9 so long after the path is there.  Prints how each job ended, as
os.waitpid says it, the last of a stage first.
"""

import importlib
import json
import os
import signal
import sys
import time

import torch

from bevformer.__main__ import main

NEEDED = ("data.synth.main", "data.prepare", "data.dataset", "detector", "train", "evaluate")


def start(argv):
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os._exit(main(argv))


def end(child, job):
    if "kill" in job:
        path, seconds = job["kill"]
        while not os.path.exists(path) and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.01)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in NEEDED:
        importlib.import_module("bevformer." + name)
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # imports much, once for all forks
    ended = []
    for stage in json.loads(sys.argv[1]):
        children = [(start(job["argv"]), job) for job in stage]
        ended.extend(end(child, job) for child, job in children[::-1])
    print(json.dumps(ended))
