"""The end of an attempt: what a scheduler or a person sends does not tear it."""

import os
import signal

import pytest

from ganseg_dist.training.run_training import _uninterrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_being_finished_is_not_interrupted(number):
    heard = []
    before = signal.signal(number, lambda *told: heard.append(told))
    try:
        with _uninterrupted():
            os.kill(os.getpid(), number)
        assert heard == []
        os.kill(os.getpid(), number)
        assert len(heard) == 1, "afterwards it is heard again"
    finally:
        signal.signal(number, before)
