import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ganseg_dist.runs import named_run, runs_root
from ganseg_dist.tracking import tracked_run
from ganseg_dist.tracking.connection import sqlite_uri
from ganseg_dist.tracking.tracked_run import TrackedRun, open_tracking
from tests.modes import mode


def test_open_tracking_logs_run_in_runs_folder(run):
    tracked = open_tracking(run, tags={"mlflow.parentRunId": "abc"})
    assert tracked.uri == f"sqlite:///{runs_root() / 'mlflow.db'}"
    client = MlflowClient(tracked.uri)
    logged = client.get_run(tracked.run_id)
    assert logged.info.run_name == "first"
    assert logged.info.status == "RUNNING"
    assert logged.data.params["data.size"] == "32"
    assert logged.data.tags["ganseg.phantom"] == "true"
    assert logged.data.tags["mlflow.parentRunId"] == "abc"
    assert {file.path for file in client.list_artifacts(tracked.run_id)} == {"config.json", "split.json", "data.json"}
    config = runs_root() / "mlartifacts" / tracked.run_id / "artifacts" / "config.json"
    assert json.loads(config.read_text()) == run.config().model_dump(mode="json")
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("name", ["50% off", "what?", "runs #1", "a%20b", "Köln", "me@home"])
def test_open_tracking_accepts_any_runs_folder_name(run, empty_store, tmp_path, monkeypatch, name):
    runs = tmp_path / "there" / name
    shutil.copytree(run.folder, runs / "first")
    shutil.copy(empty_store, runs / "mlflow.db")
    monkeypatch.setenv("GANSEG_RUNS", str(runs))
    moved = named_run("first")
    tracked = open_tracking(moved)
    moved.describe(mlflow=tracked.to_dict())
    assert [folder.name for folder in (tmp_path / "there").iterdir()] == [name]
    with closing(sqlite3.connect(runs / "mlflow.db")) as store:
        assert store.execute("select name from runs").fetchall() == [("first",)]
    assert (runs / "mlartifacts" / tracked.run_id / "artifacts" / "config.json").is_file()
    client = MlflowClient(moved.description().mlflow.uri)
    downloaded = client.download_artifacts(tracked.run_id, "config.json")
    assert json.loads(Path(downloaded).read_text()) == run.config().model_dump(mode="json")


def test_store_lock_creates_sqlite_file_with_umask(umask, tmp_path):
    file = tmp_path / "mlflow.db"
    with tracked_run._store_lock(sqlite_uri(file)):
        assert mode(file) == 0o666 & ~umask


def test_open_tracking_resumes_run_of_same_id(run):
    first = open_tracking(run)
    first.end("FAILED")
    client = MlflowClient(first.uri)
    assert client.get_run(first.run_id).info.status == "FAILED"
    run.describe(mlflow=first.to_dict())
    assert open_tracking(run) == first
    assert client.get_run(first.run_id).info.status == "RUNNING"


def test_open_tracking_creates_new_run_in_other_store(run, tmp_path):
    run.describe(mlflow=open_tracking(run).to_dict())
    other = open_tracking(run, uri=f"sqlite:///{tmp_path / 'other' / 'mlflow.db'}")
    assert MlflowClient(other.uri).get_run(other.run_id).info.run_name == "first"


def test_open_tracking_uses_uri_of_environment_and_restores_deleted_experiment(run, empty_store, tmp_path, monkeypatch):
    shutil.copy(empty_store, tmp_path / "named.db")
    uri = f"sqlite:///{tmp_path / 'named.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    first = open_tracking(run)
    assert first.uri == uri
    MlflowClient(uri).delete_experiment(first.experiment_id)
    second = open_tracking(run)
    assert second.experiment_id == first.experiment_id
    assert second.run_id is not None


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://127.0.0.1:9", "Connection refused"),
        ("nonsense://there", "nonsense"),
        ("sqlite:////proc/no/db", "/proc/no"),
    ],
)
def test_open_tracking_warns_once_of_unusable_store(run, caplog, uri, message):
    tracked = open_tracking(run, uri=uri)
    assert tracked.run_id is None
    tracked.log_results(run)
    tracked.end("FINISHED")
    (record,) = caplog.records
    assert message in record.message
    assert record.message.endswith("training continues, untracked")
    assert "\n" not in record.message


def test_open_tracking_keeps_run_id_during_outage(run, caplog):
    run.describe(mlflow={"uri": "http://127.0.0.1:9", "run_id": "abc", "experiment_id": "1"})
    assert open_tracking(run, uri="http://127.0.0.1:9").run_id == "abc"
    assert "metrics wait" in caplog.text


def test_end_warns_when_mlflow_is_unreachable(run, caplog, monkeypatch):
    monkeypatch.setattr(tracked_run, "PERSIST_SECONDS", 0.0)
    TrackedRun("http://me:secret@127.0.0.1:9", "abc").end("FINISHED")
    (record,) = caplog.records
    assert record.message.startswith("MLflow at http://127.0.0.1:9: the run's status could not be written (")
    assert "Connection refused" in record.message


def test_to_dict_keeps_at_sign_in_path():
    uri = sqlite_uri(Path("/me@home/mlflow.db"))
    assert TrackedRun(uri).to_dict()["uri"] == uri


def test_to_dict_omits_password():
    assert "secret" not in json.dumps(TrackedRun("postgresql://me:secret@db/mlflow").to_dict())


@pytest.mark.slow
def test_open_tracking_creates_store_safely_in_parallel(run):
    (runs_root() / "mlflow.db").unlink()
    code = "from ganseg_dist.runs import *; from ganseg_dist.tracking.tracked_run import *; "
    code += "assert open_tracking(named_run('first')).run_id"
    starts = [subprocess.Popen([sys.executable, "-c", code], env=os.environ) for _ in range(4)]
    assert [start.wait(timeout=120) for start in starts] == [0, 0, 0, 0]
    client = MlflowClient(f"sqlite:///{runs_root() / 'mlflow.db'}")
    assert len(client.search_runs([client.get_experiment_by_name("ganseg").experiment_id])) == 4


def test_open_tracking_shares_experiment_created_in_parallel(run, monkeypatch):
    first = open_tracking(run)
    found, names = MlflowClient.get_experiment_by_name, []

    def late(client, name):
        names.append(name)
        return None if len(names) == 1 else found(client, name)

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", late)
    run.describe(mlflow=None)
    second = open_tracking(run)
    assert second.run_id not in (None, first.run_id)
    assert second.experiment_id == first.experiment_id
