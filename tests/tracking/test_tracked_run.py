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


def test_a_run_is_described_in_the_runs_folder_and_nowhere_else(run):
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
def test_a_runs_folder_of_any_name_holds_its_store_and_artifacts(run, empty_store, tmp_path, monkeypatch, name):
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


def test_a_new_store_is_a_groups_to_write_where_the_umask_lets_it(umask, tmp_path):
    file = tmp_path / "mlflow.db"
    with tracked_run._store_lock(sqlite_uri(file)):
        assert mode(file) == 0o666 & ~umask


def test_a_resumed_run_goes_on_under_its_id(run):
    first = open_tracking(run)
    first.end("FAILED")
    client = MlflowClient(first.uri)
    assert client.get_run(first.run_id).info.status == "FAILED"
    run.describe(mlflow=first.to_dict())
    assert open_tracking(run) == first
    assert client.get_run(first.run_id).info.status == "RUNNING"


def test_another_store_that_does_not_know_the_run_gets_a_new_one(run, tmp_path):
    run.describe(mlflow=open_tracking(run).to_dict())
    other = open_tracking(run, uri=f"sqlite:///{tmp_path / 'other' / 'mlflow.db'}")
    assert MlflowClient(other.uri).get_run(other.run_id).info.run_name == "first"


def test_the_environment_names_the_store_and_a_deleted_experiment_comes_back(run, empty_store, tmp_path, monkeypatch):
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
    ("uri", "said"),
    [
        ("http://127.0.0.1:9", "Connection refused"),
        ("nonsense://there", "nonsense"),
        ("sqlite:////proc/no/db", "/proc/no"),
    ],
)
def test_a_store_that_cannot_be_used_leaves_the_run_untracked_and_says_so_once(run, caplog, uri, said):
    tracked = open_tracking(run, uri=uri)
    assert tracked.run_id is None
    tracked.log_results(run)
    tracked.end("FINISHED")
    (record,) = caplog.records
    assert said in record.message
    assert record.message.endswith("training continues, untracked")
    assert "\n" not in record.message


def test_a_resumed_run_keeps_its_id_through_an_outage(run, caplog):
    run.describe(mlflow={"uri": "http://127.0.0.1:9", "run_id": "abc", "experiment_id": "1"})
    assert open_tracking(run, uri="http://127.0.0.1:9").run_id == "abc"
    assert "metrics wait" in caplog.text


def test_an_end_that_cannot_be_written_is_said(run, caplog, monkeypatch):
    monkeypatch.setattr(tracked_run, "PERSIST_SECONDS", 0.0)
    TrackedRun("http://me:secret@127.0.0.1:9", "abc").end("FINISHED")
    (record,) = caplog.records
    assert record.message.startswith("MLflow at http://127.0.0.1:9: the run's status could not be written (")
    assert "Connection refused" in record.message


def test_a_path_with_an_at_sign_is_not_taken_for_a_password():
    uri = sqlite_uri(Path("/me@home/mlflow.db"))
    assert TrackedRun(uri).to_dict()["uri"] == uri


def test_no_password_is_saved_with_the_run():
    assert "secret" not in json.dumps(TrackedRun("postgresql://me:secret@db/mlflow").to_dict())


@pytest.mark.slow
def test_several_first_users_at_once_do_not_spoil_a_new_store(run):
    (runs_root() / "mlflow.db").unlink()
    code = "from ganseg_dist.runs import *; from ganseg_dist.tracking.tracked_run import *; "
    code += "assert open_tracking(named_run('first')).run_id"
    starts = [subprocess.Popen([sys.executable, "-c", code], env=os.environ) for _ in range(4)]
    assert [start.wait(timeout=120) for start in starts] == [0, 0, 0, 0]
    client = MlflowClient(f"sqlite:///{runs_root() / 'mlflow.db'}")
    assert len(client.search_runs([client.get_experiment_by_name("ganseg").experiment_id])) == 4


def test_two_first_users_of_a_server_share_the_experiment(run, monkeypatch):
    first = open_tracking(run)
    found, asked = MlflowClient.get_experiment_by_name, []

    def late(client, name):
        asked.append(name)
        return None if len(asked) == 1 else found(client, name)

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", late)
    run.describe(mlflow=None)
    second = open_tracking(run)
    assert second.run_id not in (None, first.run_id)
    assert second.experiment_id == first.experiment_id
