"""Population-based training on Ray Tune: exploited checkpoints and perturbed values in range."""

import json
import pickle
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray import cloudpickle

from ganseg_dist.cluster.ray_cluster import ray_cluster
from ganseg_dist.cluster.tune import TunePlan, _watcher, population, run_trials
from ganseg_dist.errors import RunError

LOW, HIGH = 0.1, 1.0
EPOCHS = 10


def suggest(trial) -> None:
    trial.suggest_float("rate", LOW, HIGH, log=True)
    trial.suggest_int("every", 1, 4)
    trial.suggest_categorical("gan", [True, False])


@dataclass
class RateTrial:
    """A trial whose score is its rate; its checkpoint holds trial name and values of each epoch."""

    began: Path

    def train(self, values) -> None:
        from ray import tune

        name, checkpoint, epochs = tune.get_context().get_trial_name(), tune.get_checkpoint(), []
        if checkpoint is None:
            (self.began / f"{name}.json").write_text(json.dumps(values))
        else:
            with checkpoint.as_directory() as folder:
                epochs = json.loads((Path(folder) / "epochs.json").read_text())
        while len(epochs) < EPOCHS:
            epochs.append([name, values])
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "epochs.json").write_text(json.dumps(epochs))
                report = {"score": values["rate"], "epoch": len(epochs), "trained": epochs}
                tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))


@pytest.mark.parametrize("content", [b"", b"\x80\x05cut"])
def test_run_trials_rejects_damaged_tune_state(tmp_path, content):
    """The damaged file is not unpickled."""
    plan = TunePlan(suggest, [], {}, trials=1, scheduler="none", search="random", metrics={"score": "max"}, epochs=1,
                seed=0, cpus=0.1, gpus=0)  # fmt: skip
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune" / "tuner.pkl").write_bytes(content)
    with pytest.raises(RunError) as caught:
        run_trials(plan, RateTrial(tmp_path).train, tmp_path, lambda end: pytest.fail("a trial ended"))
    assert str(caught.value).startswith(f"{tmp_path / 'tune'}: Ray Tune's state cannot be read (")
    assert "\n" not in str(caught.value)


def test_watcher_pickles_without_its_callback():
    """Tune pickles its callbacks, and a progress bar cannot be pickled."""
    lock = threading.RLock()
    copy = pickle.loads(cloudpickle.dumps(_watcher(lambda result: lock.release())))
    assert not hasattr(copy, "on_end")


@pytest.mark.slow
def test_run_trials_with_pbt_exploits_checkpoints_within_ranges(tmp_path):
    from optuna.trial import FixedTrial

    first = {"rate": 0.2, "every": 2, "gan": True}
    fixed = FixedTrial(first)
    suggest(fixed)
    plan = TunePlan(
        suggest, [first], fixed.distributions, trials=4, scheduler="pbt", search="optuna", metrics={"score": "max"},
        epochs=EPOCHS, seed=0, cpus=0.1, gpus=0,
    )  # fmt: skip
    assert set(population(plan.distributions)) == {"rate", "every"}, "a switch makes another network"
    with ray_cluster():
        ends = run_trials(plan, RateTrial(tmp_path).train, tmp_path, lambda end: None)
    assert sorted(end.number for end in ends) == ["001", "002", "003", "004"]
    assert not any(end.failed for end in ends)
    assert json.loads((tmp_path / "001.json").read_text()) == {"rate": 0.2, "every": 2}, "the values that it is given"
    trained = {end.number: end.scores["trained"] for end in ends}
    assert any(name != number for number, epochs in trained.items() for name, _ in epochs), "none took over"
    for epochs in trained.values():
        assert len(epochs) == EPOCHS
        for _, values in epochs:
            assert LOW <= values["rate"] <= HIGH
            assert values["every"] in (1, 2, 3, 4)


def report_once(values) -> None:
    from ray import tune

    tune.report({"score": values["rate"], "epoch": 1})


@pytest.mark.slow
def test_run_trials_rejects_state_that_lacks_trials(tmp_path):
    """Ray Tune itself would report that all trials are done and list only those begun since."""
    plan = TunePlan(suggest, [], {}, trials=2, scheduler="none", search="random", metrics={"score": "max"}, epochs=1,
                seed=0, cpus=0.1, gpus=0)  # fmt: skip
    with ray_cluster():
        assert len(run_trials(plan, report_once, tmp_path, lambda end: None)) == 2
        (state,) = (tmp_path / "tune").glob("experiment_state-*.json")
        state.write_bytes(state.read_bytes()[:100])
        with pytest.raises(RunError, match=r"tune: Ray Tune's state has \d of 2 trials; delete it and rerun the"):
            run_trials(plan, report_once, tmp_path, lambda end: None)
