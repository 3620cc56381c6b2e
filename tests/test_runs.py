import json
import os
import re

import pytest

from ganseg_dist import __version__
from ganseg_dist.atomic import write_json
from ganseg_dist.data.cohort import Split
from ganseg_dist.digests import sealed
from ganseg_dist.errors import ConfigError, RunError
from ganseg_dist.runs import (
    RUN_FORMAT,
    Run,
    all_runs,
    check_room_for_trials,
    find_run,
    generated_name,
    name_of_trial,
    named_run,
    runs_root,
    training_run,
)
from ganseg_dist.studies.study import find_study
from ganseg_dist.systems import recipe


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("GANSEG_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def write_run(name, age=0, **facts):
    run = named_run(name)
    run.folder.mkdir(parents=True)
    run.describe(**{"status": "finished", **facts})
    os.utime(run.folder / "run.json", (1e9 - age, 1e9 - age))
    return run


def test_runs_root_follows_environment(root, monkeypatch, tmp_path):
    assert runs_root() == root
    monkeypatch.delenv("GANSEG_RUNS")
    monkeypatch.chdir(tmp_path)
    assert runs_root() == tmp_path / "runs"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../up", "-x", ".store", "a b", "x" * 101, "a\n"])
def test_named_run_rejects_unsafe_name(name):
    with pytest.raises(ConfigError, match="letters, digits, dots, dashes and underscores"):
        named_run(name)


@pytest.mark.parametrize("name", ["mlartifacts", "mlflow.db", "MLflow.db", "mlflow.db.lock", "mlflow.db-wal"])
def test_named_run_rejects_reserved_names_of_mlflow(name):
    with pytest.raises(ConfigError, match=rf"--run-name {name}: is where MLflow keeps its files"):
        named_run(name)
    assert named_run(f"a-{name}").name == f"a-{name}"


def test_check_room_for_trials_rejects_long_sweep_name():
    check_room_for_trials(named_run("x" * 96), trials=999)
    for length, trials in ((97, 20), (96, 1000)):
        with pytest.raises(ConfigError, match=rf"has {length} characters, .* use up to {length - 1}"):
            check_room_for_trials(named_run("x" * length), trials)


def test_generated_name_is_valid_run_name():
    assert generated_name("ganet_seg", "Köln, Haus 7", "dirichlet:0.5") == "ganet_seg-Koln-Haus-7-dirichlet-0.5"
    assert len(generated_name("ganet_seg", "x" * 300)) == 90
    assert generated_name("a", "x" * 300) != generated_name("a", "x" * 301)
    assert named_run(generated_name("-", "..", "x")).name == "x"


def test_name_of_trial_joins_and_truncates_names():
    assert name_of_trial("tune", "003") == "tune.003"
    long = name_of_trial("x" * 95, "alone-north")
    assert long.startswith("x" * 91)
    assert named_run(long).name == long
    assert long != name_of_trial("x" * 95, "alone-south")


def test_describe_merges_fields():
    run = write_run("one", status="training", seconds=1.0)
    run.describe(status="finished")
    assert run.read("run.json") == {"status": "finished", "seconds": 1.0}
    assert run.finished
    assert not named_run("never").finished


def test_run_reads_config_and_split():
    run = write_run("one")
    (run.folder / "config.json").write_text(recipe("ganet_seg").to_json())
    run.write("split.json", Split(("a",), ("b",), ()).to_dict())
    assert run.config() == recipe("ganet_seg")
    assert run.split() == Split(("a",), ("b",), ())


def test_run_read_names_missing_or_damaged_file():
    run = write_run("one")
    with pytest.raises(RunError, match=r"history.json: is missing; is one a finished run\?"):
        run.read("history.json")
    for content in (b"{", b"\xff\xfe"):
        (run.folder / "history.json").write_bytes(content)
        with pytest.raises(RunError, match=r"history.json: is not readable JSON") as caught:
            run.read("history.json")
        assert "\n" not in str(caught.value)


def test_describe_rejects_nan_without_writing():
    run = write_run("one")
    before = (run.folder / "run.json").read_text()
    with pytest.raises(ValueError, match="JSON compliant"):
        run.describe(seconds=float("nan"))
    assert (run.folder / "run.json").read_text() == before
    assert [path.name for path in run.folder.iterdir()] == ["run.json"]


def test_find_run_accepts_name_folder_and_mlflow_id(monkeypatch):
    run = write_run("one", mlflow={"run_id": "abc123"})
    write_run("two", mlflow=None)
    assert find_run("one") == find_run(str(run.folder)) == find_run("abc123") == run
    monkeypatch.chdir(run.folder.parent)
    assert find_run("./one").folder == run.folder


def test_find_run_lists_newest_runs_for_unknown_name():
    write_run("old", age=20)
    write_run("new", age=1)
    assert [run.name for run in all_runs()] == ["new", "old"]
    with pytest.raises(RunError, match=r"nothing: no such run in .*runs; the newest are new, old"):
        find_run("nothing")


def test_training_run_and_find_run_reject_experiment():
    experiment = named_run("cv")
    assert training_run("cv") == experiment
    experiment.write("study.json", {"kind": "folds", "trials": {}})
    with pytest.raises(RunError, match=r"cv: is an experiment, not a run"):
        training_run("cv")
    with pytest.raises(RunError, match=r"cv: is an experiment, and a run is needed"):
        find_run("cv")
    assert list(all_runs()) == []


def test_find_run_ignores_damage_of_other_runs():
    run = write_run("one", mlflow={"run_id": "abc123"}, age=5)
    broken = write_run("broken")
    (broken.folder / "run.json").write_text("{")
    assert find_run("abc123") == run


def test_run_write_indents_json():
    run = write_run("one")
    run.write("history.json", [{"epoch": 0}])
    text = (run.folder / "history.json").read_text()
    assert json.loads(text) == [{"epoch": 0}]
    assert "\n" in text


def test_find_run_does_not_access_remote_copies(root, monkeypatch):
    """GANSEG_RUNS_URI is unusable, which is an error for whoever opens it."""
    monkeypatch.setenv("GANSEG_RUNS_URI", "ftp://nowhere/runs")
    assert not training_run("one").finished
    assert find_study("one", "sweep") is None
    assert find_study("one", "experiment") is None
    with pytest.raises(RunError, match="no such run"):
        find_run("one")
    assert list(all_runs()) == []
    assert not root.exists()


def test_run_read_rejects_changed_record():
    """A patient who was trained on would be tested on, and a score that was none would choose the best trial."""
    run = write_run("one")
    run.write("split.json", Split(("p1", "p2"), ("p3",), ("p4",)).to_dict())
    run.write("best.json", {"scores": {"val/dice_wt": 0.61}})
    assert run.split() == Split(("p1", "p2"), ("p3",), ("p4",))
    for name, old, new in (("split.json", '"p4"', '"p1"'), ("best.json", "0.61", "0.91")):
        file = run.folder / name
        file.write_text(file.read_text().replace(old, new))
        with pytest.raises(RunError, match=rf"{name}: is damaged \(its digest differs\); restore it") as caught:
            run.read(name)
        assert "\n" not in str(caught.value)


def test_describe_keeps_other_fields():
    run = write_run("one")
    before = run.description()
    run.describe(seconds=3.5)
    assert run.description() == before.model_copy(update={"seconds": 3.5})
    assert "digest" in json.loads((run.folder / "run.json").read_text())


@pytest.mark.parametrize(("name", "writer"), [("run.json", "0123abc"), ("study.json", "which is unknown")])
def test_run_read_names_version_for_other_format(name, writer, tmp_path):
    of_earlier = {"status": "finished"} | ({"commit": "0123abc"} if name == "run.json" else {})
    write_json(tmp_path / name, sealed(of_earlier))
    message = (
        f"{tmp_path / name}: run format 1, and ganseg-dist {__version__} reads {RUN_FORMAT}; use the version that "
    )
    with pytest.raises(RunError, match=re.escape(f"{message}wrote it, {writer}, or choose another")):
        Run(tmp_path).read(name)
