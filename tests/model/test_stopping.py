"""Which signals ask a training for a stop."""

import os
import signal

import pytest

from bevformer.stopping import StopSignal

ASKING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", ASKING)
def test_a_signal_asks_and_what_was_before_comes_back(number):
    before = signal.getsignal(number)
    with StopSignal() as stop:
        os.kill(os.getpid(), number)
        assert stop.number == number
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_nohup_or_a_script_has_ignored_from_the_start_asks_for_nothing(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), number)
            assert stop.number is None
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)
