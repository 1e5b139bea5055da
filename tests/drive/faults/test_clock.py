"""A clock that is set back, within a session and between two: only what shows the time depends on it."""

import json
import os
import re
import shutil
import subprocess

import pytest
from small_training import proof

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc to make another clock with"),
]

# Real time from START_S seconds since 1970 on, a hundred times as fast and backwards.
CLOCK = r"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static double since(void) {
    static double first = 0;
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    double s = now.tv_sec + now.tv_nsec * 1e-9;
    if (first == 0) first = s;
    return s - first;
}

static double wall(void) { return atof(getenv("START_S")) - 100 * since(); }

int clock_gettime(clockid_t which, struct timespec *out) {
    if (which != CLOCK_REALTIME) return syscall(SYS_clock_gettime, which, out);
    double s = wall();
    out->tv_sec = s;
    out->tv_nsec = (s - out->tv_sec) * 1e9;
    return 0;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    double s = wall();
    out->tv_sec = s;
    out->tv_usec = (s - out->tv_sec) * 1e6;
    return 0;
}

time_t time(time_t *out) {
    time_t s = wall();
    if (out) *out = s;
    return s;
}
"""


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    """Variables that make a program's wall clock begin at a time and run backwards."""
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(CLOCK)
    library = str(folder / "clock.so")
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, str(folder / "clock.c")], check=True)
    return lambda start_s: {"LD_PRELOAD": library, "START_S": str(start_s), "TZ": "UTC"}


def test_a_clock_that_runs_backwards_changes_no_bit_and_no_order(
    training, whole, tmp_path, clock, monkeypatch
):
    day_s = 86400
    for name, value in clock(1_800_000_000).items():
        monkeypatch.setenv(name, value)
    options = ["schedule.max_epochs=6"]
    stopped = training.start(tmp_path / "w", options=options)
    for line in stopped.stdout:
        if json.loads(line).get("done", 0) >= 8:
            os.kill(stopped.pid, 15)
            break
    out, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 143, out + err
    monkeypatch.setenv("START_S", str(1_800_000_000 - 3 * day_s))
    code, err = training.says(tmp_path / "w", "--resume", "auto")
    assert code == 0 and proof(tmp_path / "w") == proof(whole())
    record = json.loads((tmp_path / "w" / "run.json").read_text())
    sessions = record["sessions"]
    assert [each["first_step"] for each in sessions][0] == 0 < sessions[1]["first_step"]
    assert sessions[0]["started"] > sessions[1]["started"] and sessions[0]["started"] > sessions[0]["updated"]
    assert all(each["seconds"] > 0 for each in sessions) and record["seconds_per_step"] > 0
    logs = sorted(path.name for path in (tmp_path / "w").glob("*.log"))
    assert len(logs) == 2 and logs[0] == "20270115_080000.log" or logs[1].startswith(logs[0][:15])
    text = "".join((tmp_path / "w" / name).read_text() for name in logs)
    assert not re.search(r"eta: -|time: -", text) and "eta -" not in err
