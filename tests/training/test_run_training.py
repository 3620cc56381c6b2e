"""Signals of a scheduler or a user while a run is being finished."""

import os
import signal

import pytest

from ganseg_dist.training.run_training import _uninterrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_uninterrupted_defers_signals(number):
    received = []
    before = signal.signal(number, lambda *arguments: received.append(arguments))
    try:
        with _uninterrupted():
            os.kill(os.getpid(), number)
        assert received == []
        os.kill(os.getpid(), number)
        assert len(received) == 1, "signals are delivered again afterwards"
    finally:
        signal.signal(number, before)
