"""Results that are logged to MLflow after training."""

import math

import pytest
from mlflow import MlflowClient

from ganseg_dist.metrics.statistics import Interval
from ganseg_dist.runs import named_run
from ganseg_dist.tracking import tracked_run
from ganseg_dist.tracking.results import ENDS, log_evaluation, log_experiment
from ganseg_dist.tracking.tracked_run import TrackedRun, open_parent, open_tracking

INTERVAL = Interval(mean=0.5, low=0.25, high=0.75, n=4)


@pytest.fixture
def experiment(run):
    """Folder of an experiment beside the run."""
    folder = named_run("cv").folder
    folder.mkdir()
    return folder


def test_log_experiment_updates_table_and_metrics_of_parent_run(experiment):
    parent = open_parent(experiment, "fractions", {"recipe": "gan_osmosis_debug", "trials": "4"})
    (experiment / "table.csv").write_text("arm\n")
    (experiment / "figure.png").write_bytes(b"png")
    for mean in (0.5, 0.75):  # a repeated experiment overwrites its metrics
        means = {"wt/dice/fraction 50 both": mean, "wt/dice/fraction 100 both": math.nan}
        log_experiment(parent, means, "| a |", [experiment / "table.csv", experiment / "figure.png"])
    parent.end("FINISHED")
    client = MlflowClient(parent.uri)
    logged = client.get_run(parent.run_id)
    assert logged.info.status == "FINISHED"
    assert logged.data.metrics == {"wt/dice/fraction 50 both": 0.75}
    assert logged.data.params == {"recipe": "gan_osmosis_debug", "trials": "4"}
    assert logged.data.tags["mlflow.note.content"] == "| a |"
    assert logged.data.tags["mlflow.source.name"] == "ganseg experiment fractions"
    assert {file.path for file in client.list_artifacts(parent.run_id)} == {"table.csv", "figure.png"}
    assert open_parent(experiment, "fractions", {}).run_id == parent.run_id


def test_log_evaluation_logs_intervals_as_metrics(run):
    tracked = open_tracking(run)
    run.describe(mlflow=tracked.to_dict())
    run.evaluation("test").mkdir(parents=True)
    (run.evaluation("test") / "summary.json").write_text("{}")
    intervals = {"wt/dice": INTERVAL, "wt/hd95_mm": INTERVAL, "wt/lesions_true": INTERVAL}
    log_evaluation(run, "test", intervals)
    client = MlflowClient(tracked.uri)
    logged = client.get_run(tracked.run_id).data
    assert logged.metrics == {f"test/{score}/{end}": getattr(INTERVAL, end) for score in intervals for end in ENDS}
    directions = {name: value for name, value in logged.tags.items() if name.endswith("_is_better")}
    assert directions == {
        "ganseg.test.larger_is_better": "wt/dice",
        "ganseg.test.smaller_is_better": "wt/hd95_mm",
    }
    assert [file.path for file in client.list_artifacts(tracked.run_id, "evaluation/test")] == [
        "evaluation/test/summary.json"
    ]


def test_log_experiment_warns_once_of_unreachable_mlflow(experiment, caplog, monkeypatch):
    monkeypatch.setattr(tracked_run, "PERSIST_SECONDS", 0.0)
    log_experiment(TrackedRun("http://127.0.0.1:9", "abc"), {"wt/dice/both": 0.5}, "", [experiment / "table.csv"])
    (record,) = caplog.records
    assert "the run's table could not be written" in record.message
    log_experiment(TrackedRun("http://127.0.0.1:9"), {"wt/dice/both": 0.5}, "", [])
    assert len(caplog.records) == 1


def test_log_experiment_does_not_recreate_lost_sqlite_file(experiment, tmp_path, caplog):
    tracked = TrackedRun(f"sqlite:///{tmp_path / 'lost.db'}", "abc")
    log_experiment(tracked, {"wt/dice/both": 0.5}, "", [experiment / "table.csv"])
    assert [record.message for record in caplog.records] == [
        f"MLflow at {tracked.uri}: the run's table could not be written (the file is missing)"
    ]
    assert not (tmp_path / "lost.db").exists()


@pytest.mark.parametrize("note", ["", "{", "[]", "{}", "[" * 100_000])
def test_open_parent_creates_new_run_for_damaged_note(note, run, caplog):
    experiment = run.folder.with_name("cv")
    experiment.mkdir()
    (experiment / "mlflow.json").write_text(note)
    parent = open_parent(experiment, "folds", {})
    assert f"{experiment / 'mlflow.json'}: is damaged; MLflow gets a new run" in caplog.text
    assert open_parent(experiment, "folds", {}) == parent
    assert parent.run_id is not None
