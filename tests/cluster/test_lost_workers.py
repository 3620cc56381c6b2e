"""What a person is told of workers that die."""

from types import SimpleNamespace

import pytest

from ganseg_dist.cluster.train import RESTARTS, _fail_fast_on_user_error, as_user_error
from ganseg_dist.errors import DataError


def test_training_goes_on_until_it_was_once_too_often():
    said = []
    relay = SimpleNamespace(put_warning=SimpleNamespace(remote=lambda step, warning: said.append(warning)))
    told = _fail_fast_on_user_error(relay)
    for _ in range(RESTARTS + 1):
        told.after_exception(None, {1: RuntimeError("killed")})
    assert said == [
        *["lost worker(s) 1; training resumes from the last checkpoint"] * RESTARTS,
        "lost worker(s) 1; it was once too often",
    ]
    with pytest.raises(DataError, match="mend me"):
        told.after_exception(None, {0: DataError("mend me")})


def test_a_worker_killed_for_memory_is_one_line_without_rays_advice():
    error = RuntimeError("1 worker(s) were killed due to the node running low on memory. \nRefer to the documentation")
    message = str(as_user_error(error, workers=1))
    assert message.startswith("training on Ray failed: a worker was killed, for its node ran out of memory; ")
    assert "Refer to" not in message
