"""Sweeps on Ray: a trial equals a run with its values, and a failed trial does not end the others."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ganseg_dist.config import override
from ganseg_dist.errors import ConfigError, RunError
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.planning.run_folder import command_line
from ganseg_dist.runs import named_run
from ganseg_dist.studies.study import find_study
from ganseg_dist.studies.sweeps.publish import save_sweep, write_page
from ganseg_dist.studies.sweeps.request import SweepRequest, stored_request
from ganseg_dist.studies.sweeps.run import run_sweep
from ganseg_dist.studies.sweeps.space import Space
from ganseg_dist.studies.sweeps.sweep import Sweep
from ganseg_dist.studies.sweeps.trainers import TrialTrainer
from ganseg_dist.systems import recipe
from ganseg_dist.training.session import train_session
from tune_spaces import spaces

pytestmark = pytest.mark.usefixtures("own_runs")

SHORT = {"system.gan": False, "train.epochs": 2, "system.supervised_epochs": 2}
TOO_LARGE = 1e30


def rates(trial, config) -> None:
    trial.suggest_categorical("train.learning_rate", [0.001, 0.002, TOO_LARGE])


def switch(trial, config) -> None:
    trial.suggest_categorical("system.gan", [True, False])


SPACE, SWITCH = Space("rates", "ganet_seg", rates), Space("switch", "ganet_seg", switch)


def request(phantom: Path, name: str = "s", space: Space = SPACE, **changes) -> SweepRequest:
    config = override(recipe("ganet_seg_debug"), SHORT | {"train.learning_rate": 0.001})
    defaults = {"trials": 4, "scheduler": "none", "search": "random"}
    return SweepRequest(TrainingRequest(config, phantom, run_name=name), space, **defaults | changes)


class FullDiskTrainer(TrialTrainer):
    """A trainer whose trials raise a full disk while `file` exists."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def train(self, values, job) -> None:
        if self.file.exists():
            raise OSError("No space left on device")
        super().train(values, job)


@pytest.mark.slow
def test_run_sweep_trial_matches_run_with_its_values(phantom, monkeypatch):
    monkeypatch.chdir(phantom.parent)
    sweep_request = request(Path(phantom.name))
    seen, warned = [], []
    done, _ = run_sweep(
        sweep_request, watch=lambda trial, number: seen.append((trial.name, number)), warn=warned.append
    )
    assert [warning for warning in warned if "the mask is empty" in warning] == warned[:1], "of the healthy subject"
    assert sorted(name for name, _ in seen) == [f"s.{number:03d}" for number in (1, 2, 3, 4)]
    first = next(trial for trial in done.trials if trial.name == "s.001")
    assert first.values == {"train.learning_rate": 0.001}
    assert (first.state, first.epochs, len(first.curve)) == ("finished", 2, 2)

    diverged = [trial for trial in done.trials if trial.values["train.learning_rate"] == TOO_LARGE]
    assert diverged, "the seed samples one"
    for trial in diverged:
        assert trial.state == "diverged"
        assert "lower train.learning_rate" in trial.reason
        assert not trial.scores
    assert done.best.state == "finished"

    save_sweep(done)
    page = write_page(Sweep.of(done)).read_text()
    assert done.best.name in page
    assert "Synthetic phantom" in page
    assert "became nan; lower train.learning_rate" in page

    config = override(sweep_request.training.config, first.values)
    alone = train_session(TrainingRequest(config, phantom, run_name="alone", local=True))
    ours, theirs = (load_file(run.model / "networks.safetensors") for run in (named_run("s.001"), alone))
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    assert named_run("s.001").split() == alone.split()
    record = named_run("s.001").description()
    assert record.request.data == str(phantom)
    assert record.command == command_line(), "the command of the driver, not of a Ray worker"
    assert first.kept == record.kept["segment"].epoch + 1

    again, _ = run_sweep(
        stored_request(find_study("s", "sweep"), {"rates": SPACE}),
        watch=lambda trial, number: pytest.fail("trained again"),
    )
    assert [str(trial) for trial in again.trials] == [str(trial) for trial in done.trials]
    with pytest.raises(RunError, match="s: was started with another trials; choose another --run-name"):
        run_sweep(request(phantom, trials=9))


@pytest.mark.slow
def test_run_sweep_stops_on_repeated_error_and_resumes(phantom, tmp_path):
    full = tmp_path / "full"
    full.touch()
    sweep_request, trainer = request(phantom), FullDiskTrainer(full)
    with pytest.raises(RunError, match=r"s: 3 trials, .* ended by the same error: .*No space left on device; fix it"):
        run_sweep(sweep_request, trainer=trainer)
    full.unlink()
    done, _ = run_sweep(sweep_request, trainer=trainer)
    assert {trial.state for trial in done.trials} <= {"finished", "diverged"}
    assert [trial.name for trial in done.trials] == [f"s.{number:03d}" for number in (1, 2, 3, 4)]


@pytest.mark.slow
def test_run_sweep_repeats_failed_trials_of_ended_sweep(phantom, tmp_path):
    full = tmp_path / "full"
    full.touch()
    sweep_request, trainer = request(phantom, trials=2), FullDiskTrainer(full)
    failed, _ = run_sweep(sweep_request, trainer=trainer)
    assert [trial.state for trial in failed.trials] == ["failed", "failed"]
    with pytest.raises(RunError, match=r"none of its 2 trials has a score: .*No space left on device; fix it"):
        save_sweep(failed)
    full.unlink()
    done, _ = run_sweep(sweep_request, trainer=trainer)
    assert done.trials[0].state == "finished"
    assert not done.failed_trials


@pytest.mark.slow
def test_run_sweep_marks_open_trials_interrupted(phantom, monkeypatch):
    def interrupted(plan, trial, folder, ended):
        open_one = named_run("s.001")
        open_one.folder.mkdir()
        open_one.write("run.json", {"status": "training", "sweep": "s"})
        with pytest.raises(RunError, match="s: is being trained by another process"):
            run_sweep(request(phantom))
        assert named_run("s.001").description().status == "training", "this one's trials go on"
        raise KeyboardInterrupt

    monkeypatch.setattr("ganseg_dist.studies.sweeps.search.run_trials", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(request(phantom))
    assert named_run("s.001").description().status == "interrupted"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"scheduler": "asha", "metrics": ("val/dice_wt", "val/hd95_wt")},
            "--scheduler asha: compares trials in training by one",
        ),
        ({"scheduler": "asha", "metrics": ("val/hd95_wt",)}, "is of whole scans, after the last"),
        ({"metrics": ("val/dice",)}, r"did you mean val/dice_wt or val/dice_tc or val/dice_et\?"),
        ({"scheduler": "pbt", "space": SWITCH}, "--scheduler pbt: changes numbers, and --space switch searches none"),
        ({"space": spaces()["gan_osmosis"]}, "--space gan_osmosis: is of gan_osmosis"),
    ],
)
def test_run_sweep_rejects_invalid_search_before_starting_ray(phantom, monkeypatch, changes, message):
    monkeypatch.setattr(
        "ganseg_dist.studies.sweeps.run.cluster_with_shared_paths", lambda *args, **kwargs: pytest.fail("started")
    )
    with pytest.raises(ConfigError, match=message):
        run_sweep(request(phantom, **changes))
    assert not (named_run("s").folder).exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_tune_resumes_remaining_trials_after_kill(phantom, tmp_path, number):
    command = [
        sys.executable, "-m", "ganseg_dist", "tune", "ganet_seg_debug", "--data", str(phantom), "--trials", "4",
        "--scheduler", "none", "--run-name", "k", "--space", "ganet_seg_feedback",
    ]  # fmt: skip
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    finished = named_run("k.001").folder / "model" / "model.json"
    deadline = time.monotonic() + 200
    while not finished.exists():
        assert time.monotonic() < deadline, "no trial finished"
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.5)
    if number == signal.SIGKILL:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    else:
        process.send_signal(number)
        assert process.wait(timeout=60) == 130
        assert find_study("k", "sweep").remaining(), "the sweep ended too early"
    made = finished.stat().st_mtime
    subprocess.run(command, check=True, timeout=250, capture_output=True)
    trials = find_study("k", "sweep").results().values()
    assert sorted(trial.name for trial in trials) == [f"k.{number:03d}" for number in (1, 2, 3, 4)]
    assert all(trial.state == "finished" for trial in trials)
    assert finished.stat().st_mtime == made, "what was finished is not trained again"
