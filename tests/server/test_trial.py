"""A sweep of federations: a trial equals a federation with its values."""

import os
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from clients.app import app
from ganseg_dist.config import override
from ganseg_dist.data.cohort import Split, split_as_configured
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.errors import ConfigError
from ganseg_dist.federation.partition import partition
from ganseg_dist.federation.privacy import withholds_scores
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import named_run
from ganseg_dist.studies.study import find_study
from ganseg_dist.studies.sweeps.metric import metrics_of
from ganseg_dist.studies.sweeps.request import Hospitals, SweepRequest, stored_request, validate_search
from ganseg_dist.studies.sweeps.run import run_sweep
from ganseg_dist.systems import recipe
from server.simulation import Simulation, simulate
from server.trial import FederatedTrialTrainer
from tune_spaces import space_of, spaces

pytestmark = pytest.mark.usefixtures("own_runs")

SHORT = {"system.gan": False, "train.epochs": 2, "system.supervised_epochs": 2, "data.validation_fraction": 0.4}
RESOLVED = {"data.modalities": ["t1", "flair"], "data.regions": ["wt"]}
HOSPITALS = Hospitals("2")


def request(phantom, space="federation", changes=SHORT, **more) -> SweepRequest:
    config = override(recipe("ganet_seg_debug"), SHORT | changes)
    options = {"trials": 2, "scheduler": "none", "search": "random", "hospitals": HOSPITALS}
    training = TrainingRequest(config, phantom, run_name="s")
    return SweepRequest(training, space_of("ganet_seg", space), **options | more)


def run(request):
    return run_sweep(request, trainer=FederatedTrialTrainer(HOSPITALS, app))[0]


@pytest.mark.slow
def test_federated_trial_matches_federation_with_its_values(phantom):
    done = run(request(phantom))
    first, second = done.trials
    assert first.values == {"federation.rounds": None, "federation.strategy": "fedavg"}
    assert (first.state, second.state) == ("finished", "finished")
    assert set(first.scores) == {"val/dice_wt"}
    assert len(first.curve) == 2
    config = override(request(phantom).training.config, second.values)
    alone = simulate(Simulation(TrainingRequest(config, phantom, run_name="alone", local=True), "2"), app)
    ours, theirs = (load_file(run.model / "networks.safetensors") for run in (named_run(second.name), alone))
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    assert stored_request(find_study("s", "sweep"), spaces()).hospitals == HOSPITALS
    assert done.next_command.startswith("ganseg federate ganet_seg_debug --data")


@pytest.mark.slow
def test_private_sweep_splits_epsilon_over_trials(phantom):
    changes = {"federation.privacy.epsilon": 50.0, "train.keep": "last"}
    done = run(request(phantom, changes=changes))
    assert [metric.name for metric in done.metrics] == ["val/dice_wt"]
    assert not done.metrics[0].every_epoch
    for trial in done.trials:
        assert trial.state == "finished", trial.reason
        spent = named_run(trial.name).federation().rounds[-1].epsilon
        assert 0 < spent < 50 / 1.4, "of two trials each spends less than all"
    assert "together spend at most an epsilon of 50" in done.request["privacy"]


@pytest.mark.parametrize(
    ("changes", "more", "message"),
    [
        ({}, {"scheduler": "pbt"}, "--sites: trains a trial in its own process"),
        (
            {"federation.privacy.epsilon": 8.0},
            {"scheduler": "asha"},
            "--scheduler asha: compares trials in training by a score",
        ),
        ({"train.privacy.epsilon": 8.0, "train.keep": "last"}, {}, "train.privacy.epsilon: every site would need"),
    ],
)
def test_validate_search_rejects_unsupported_options_of_federated_sweep(phantom, changes, more, message):
    sweep = request(phantom, changes=SHORT | changes, **more)
    config = override(sweep.training.config, RESOLVED)
    metrics = metrics_of((), config, scored_by_epoch=not withholds_scores(config))
    with pytest.raises(ConfigError, match=message):
        validate_search(sweep, metrics, config)


def test_validate_setup_warns_of_hospital_that_every_trial_leaves_out(phantom, cohort):
    config = override(request(phantom).training.config, RESOLVED)
    sites = partition(cohort, "3", skew=None, seed=config.seed)
    patients = set(cohort.patients) - set(sites["site3"])
    split = Split(tuple(sorted(patients)), (), sites["site3"])
    (warning,) = FederatedTrialTrainer(Hospitals("3"), app).validate_setup(config, cohort, split).warnings
    assert warning == f"site3: takes no part: has {len(sites['site3'])} patients, none of them to train on"


def test_trials_have_no_scores_of_epochs_where_one_hospital_validates(phantom, cohort):
    config = override(request(phantom).training.config, RESOLVED)
    sites = partition(cohort, "2", skew=None, seed=config.seed)
    trainer = FederatedTrialTrainer(HOSPITALS, app)
    for validating, scored in (({"site1", "site2"}, True), ({"site1"}, False)):
        validation = tuple(sites[name][0] for name in sorted(validating))
        split = Split(tuple(set(cohort.patients) - set(validation)), validation, ())
        setup = trainer.validate_setup(config, cohort, split)
        assert setup.scored_by_epoch == scored
        assert len(setup.warnings) == (not scored)
    assert "site1 alone has patients to validate on" in setup.warnings[0]


def test_validate_setup_rejects_unknown_local_network(phantom, cohort):
    config = override(request(phantom, changes=SHORT | {"federation.local": ["other"]}).training.config, RESOLVED)
    with pytest.raises(ConfigError, match=r"federation\.local"):
        FederatedTrialTrainer(HOSPITALS, app).validate_setup(config, cohort, split_as_configured(cohort, config))


@pytest.mark.slow
def test_federated_trial_resumes_bit_for_bit_after_kill(phantom):
    changes = {
        "system.gan": "false", "system.supervised_epochs": "6", "train.epochs": "6", "federation.rounds": "6",
        "data.validation_fraction": "0.4",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "ganseg_dist", "tune", "ganet_seg_debug", "--data", str(phantom), "--sites", "2",
        "--space", "ganet_seg", "--trials", "2", "--scheduler", "none", "--search", "random", "--run-name", "k",
        *(f"--set={field}={value}" for field, value in changes.items()),
    ]  # fmt: skip
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    second = named_run("k.002")
    deadline = time.monotonic() + 240
    while FolderCheckpoints(second.checkpoints).newest() is None:
        assert time.monotonic() < deadline, "the second trial has no round"
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not second.finished, "the trial was killed too late"
    subprocess.run(command, check=True, timeout=250, capture_output=True)
    assert second.finished
    training = TrainingRequest(second.config(), phantom, run_name="alone", local=True)
    alone = simulate(Simulation(training, "2"), app)
    ours, theirs = (load_file(run.model / "networks.safetensors") for run in (second, alone))
    assert all(ours[name].equal(theirs[name]) for name in theirs)
