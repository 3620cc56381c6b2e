"""Messages about workers that die."""

from types import SimpleNamespace

import pytest

from ganseg_dist.cluster.train import RESTARTS, _fail_fast_on_user_error, as_user_error
from ganseg_dist.errors import DataError


def test_fail_fast_on_user_error_limits_restarts_and_reraises_user_error():
    warnings = []
    relay = SimpleNamespace(put=SimpleNamespace(remote=lambda method, step, warning: warnings.append(warning)))
    callback = _fail_fast_on_user_error(relay)
    for _ in range(RESTARTS + 1):
        callback.after_exception(None, {1: RuntimeError("killed")})
    assert warnings == [
        *["lost worker(s) 1; training resumes from the last checkpoint"] * RESTARTS,
        "lost worker(s) 1; it was once too often",
    ]
    with pytest.raises(DataError, match="restore it"):
        callback.after_exception(None, {0: DataError("restore it")})


def test_as_user_error_summarizes_out_of_memory_in_one_line():
    error = RuntimeError("1 worker(s) were killed due to the node running low on memory. \nRefer to the documentation")
    message = str(as_user_error(error, workers=1))
    assert message.startswith("training on Ray failed: a worker was killed, for its node ran out of memory; ")
    assert "Refer to" not in message
