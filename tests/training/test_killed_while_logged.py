"""A run is finished only once MLflow has all of it: a kill before repeats the last steps."""

import pytest
from mlflow import MlflowClient

from ganseg_dist.config import override
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import named_run
from ganseg_dist.systems import recipe
from ganseg_dist.tracking.tracked_run import TrackedRun
from ganseg_dist.training.session import train_session

SHORT = {"system.gan": False, "train.epochs": 1}


@pytest.mark.parametrize("step", ["log_results", "end"])
def test_run_killed_while_it_is_logged_is_finished_by_the_next_start(phantom, own_runs, monkeypatch, step):
    def die(*args: object) -> None:
        raise SystemExit("killed")

    request = TrainingRequest(override(recipe("ganet_seg_debug"), SHORT), phantom, run_name="r", local=True)
    with monkeypatch.context() as patch:
        patch.setattr(TrackedRun, step, die)
        with pytest.raises(SystemExit):
            train_session(request)
    run = named_run("r")
    weights = (run.model / "networks.safetensors").read_bytes()
    assert not run.finished
    train_session(request)
    assert run.finished
    assert (run.model / "networks.safetensors").read_bytes() == weights
    tracked = run.description().mlflow
    logged = MlflowClient(tracked.uri).get_run(tracked.run_id)
    assert logged.info.status == "FINISHED"
    assert len(logged.outputs.model_outputs) == 1
