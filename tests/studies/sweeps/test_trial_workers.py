"""Trials of several Ray Train workers, and shares of a GPU: resources, and recovery after a worker dies."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import ray
from safetensors.torch import load_file

import ganseg_dist.studies.sweeps.run as sweeps
from ganseg_dist.cluster.tune import EPOCH, TunePlan, run_trials
from ganseg_dist.config import override
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import named_run
from ganseg_dist.studies.sweeps.request import SweepRequest
from ganseg_dist.studies.sweeps.run import run_sweep
from ganseg_dist.studies.sweeps.space import Space
from ganseg_dist.systems import recipe
from tests.contract.members import differing

pytestmark = pytest.mark.usefixtures("own_runs")

EPOCHS = 20
SHORT = {"system.gan": False, "train.epochs": EPOCHS, "system.supervised_epochs": EPOCHS}


def rates(trial, config) -> None:
    trial.suggest_categorical("train.learning_rate", [0.001])


def suggest_x(trial) -> None:
    trial.suggest_float("x", 0, 1)


SPACE = Space("rates", "ganet_seg", rates)


def request(phantom: Path, name: str, workers: int = 2, **changes) -> SweepRequest:
    config = override(recipe("ganet_seg_debug"), SHORT | {"train.learning_rate": 0.001})
    training = TrainingRequest(config, phantom, run_name=name, workers=workers, gpus=changes.pop("gpus", False))
    return SweepRequest(training, SPACE, **{"trials": 2, "scheduler": "none", "search": "random"} | changes)


@pytest.fixture(scope="module")
def cpus():
    """A Ray cluster with more CPUs and GPUs than this machine has: Ray only counts them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(address="local", num_cpus=4, num_gpus=1, include_dashboard=True, log_to_driver=False)
        yield
        ray.shutdown()


class WorkerKiller(threading.Thread):
    """Waits until each trial has trained two epochs, then kills one process of their workers."""

    def __init__(self, trials: tuple[str, ...]) -> None:
        super().__init__(daemon=True)
        self.trials, self.killed, self.over = trials, 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            runs = [named_run(trial) for trial in self.trials]
            newest = [FolderCheckpoints(run.checkpoints).newest() for run in runs]
            if any(checkpoint is None or epochs_of(checkpoint) < 2 for checkpoint in newest):
                continue
            alive = [
                actor["Pid"]
                for actor in ray._private.state.actors().values()
                if (actor["ActorClassName"], actor["State"]) == ("RayTrainWorker", "ALIVE")
            ]
            if len(alive) == 4 and not any(run.finished for run in runs):
                os.kill(alive[0], signal.SIGKILL)
                self.killed = alive[0]
            return


def epochs_of(checkpoint: Path) -> int:
    try:
        return len(json.loads((checkpoint / "state.json").read_text())["position"]["history"])
    except FileNotFoundError:  # dropped for a newer one in this moment
        return 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_run_sweep_trial_resumes_bit_for_bit_after_worker_is_killed(cpus, phantom):
    """Two trials with the same values end with the same weights, although one of their four processes is killed."""
    killer = WorkerKiller(("twins.001", "twins.002"))
    killer.start()
    try:
        done, _ = run_sweep(request(phantom, "twins"))
    finally:
        killer.over.set()
        killer.join()
    assert killer.killed, "nothing was killed"
    assert [(trial.state, trial.epochs, len(trial.curve)) for trial in done.trials] == [
        ("finished", EPOCHS, EPOCHS)
    ] * 2
    one, other = done.trials
    assert one.scores
    assert one.scores == other.scores
    runs = [named_run(trial.name) for trial in done.trials]
    assert [epoch["workers"] for run in runs for epoch in run.read("history.json")] == [2] * 2 * EPOCHS
    killed, undisturbed = (load_file(run.model / "networks.safetensors") for run in runs)
    assert differing(killed, undisturbed) == []


@pytest.mark.parametrize(
    ("workers", "gpus", "share", "message", "at_once"),
    [
        (1, False, 1.0, (3, 0), None),
        (1, True, 0.25, (3, 0.25), None),
        (2, False, 1.0, (0, 0), 5),  # of 30 CPUs, six a trial
        (2, True, 1.0, (0, 0), 2),  # of five GPUs, two a trial
    ],
)
def test_tune_plan_requests_resources_per_trial(phantom, monkeypatch, workers, gpus, share, message, at_once):
    monkeypatch.setattr(sweeps, "cluster_resources", lambda: {"CPU": 30.0, "GPU": 5.0})
    wanted = request(phantom, "r", workers, gpus=gpus, gpu_share=share)
    cohort = {"data.modalities": ["t1", "flair"], "data.regions": ["wt"], "train.threads": 3}
    config = override(wanted.training.config, cohort)
    plan = sweeps._tune_plan(wanted, config, (), {})
    assert (plan.cpus, plan.gpus) == message
    assert plan.max_concurrent == at_once


@pytest.mark.slow
def test_run_trials_runs_trials_with_gpu_shares_in_parallel(cpus, tmp_path):
    def trial(values) -> None:
        from ray import tune

        granted = ray.get_runtime_context().get_assigned_resources()
        (tmp_path / f"began-{values['x']}-{os.getpid()}").touch()
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("began-*"))) < 2:  # both at once, or never
            assert time.monotonic() < deadline
            time.sleep(0.1)
        tune.report({EPOCH: 1, "score": granted.get("GPU", 0), "cpus": granted.get("CPU", 0)})

    plan = TunePlan(
        sample=suggest_x, first_values=(), distributions={}, trials=2, scheduler="none", search="random",
        metrics={"score": "max"}, epochs=1, seed=0, cpus=1, gpus=0.5,
    )  # fmt: skip
    ends = run_trials(plan, trial, tmp_path, lambda end: None)
    assert [(end.scores["score"], end.scores["cpus"]) for end in ends] == [(0.5, 1.0)] * 2
