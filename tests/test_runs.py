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


def made(name, age=0, **facts):
    run = named_run(name)
    run.folder.mkdir(parents=True)
    run.describe(**{"status": "finished", **facts})
    os.utime(run.folder / "run.json", (1e9 - age, 1e9 - age))
    return run


def test_runs_are_kept_where_the_environment_says(root, monkeypatch, tmp_path):
    assert runs_root() == root
    monkeypatch.delenv("GANSEG_RUNS")
    monkeypatch.chdir(tmp_path)
    assert runs_root() == tmp_path / "runs"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../up", "-x", ".store", "a b", "x" * 101, "a\n"])
def test_a_name_that_is_no_folder_name_is_refused(name):
    with pytest.raises(ConfigError, match="letters, digits, dots, dashes and underscores"):
        named_run(name)


@pytest.mark.parametrize("name", ["mlartifacts", "mlflow.db", "MLflow.db", "mlflow.db.lock", "mlflow.db-wal"])
def test_a_name_that_is_mlflows_own_is_refused(name):
    with pytest.raises(ConfigError, match=rf"--run-name {name}: is where MLflow keeps its own"):
        named_run(name)
    assert named_run(f"a-{name}").name == f"a-{name}"


def test_a_sweeps_name_leaves_room_for_its_trials():
    check_room_for_trials(named_run("x" * 96), trials=999)
    for length, trials in ((97, 20), (96, 1000)):
        with pytest.raises(ConfigError, match=rf"has {length} characters, .* use up to {length - 1}"):
            check_room_for_trials(named_run("x" * length), trials)


def test_a_made_up_name_is_a_runs_whatever_it_is_made_of():
    assert generated_name("ganet_seg", "Köln, Haus 7", "dirichlet:0.5") == "ganet_seg-Koln-Haus-7-dirichlet-0.5"
    assert len(generated_name("ganet_seg", "x" * 300)) == 90
    assert generated_name("a", "x" * 300) != generated_name("a", "x" * 301)
    assert named_run(generated_name("-", "..", "x")).name == "x"


def test_the_run_of_a_trial_is_called_by_both_and_is_never_too_long():
    assert name_of_trial("tune", "003") == "tune.003"
    long = name_of_trial("x" * 95, "alone-north")
    assert long.startswith("x" * 91)
    assert named_run(long).name == long
    assert long != name_of_trial("x" * 95, "alone-south")


def test_descriptions_add_up():
    run = made("one", status="training", seconds=1.0)
    run.describe(status="finished")
    assert run.read("run.json") == {"status": "finished", "seconds": 1.0}
    assert run.finished
    assert not named_run("never").finished


def test_what_a_run_was_made_of_comes_back():
    run = made("one")
    (run.folder / "config.json").write_text(recipe("ganet_seg").to_json())
    run.write("split.json", Split(("a",), ("b",), ()).to_dict())
    assert run.config() == recipe("ganet_seg")
    assert run.split() == Split(("a",), ("b",), ())


def test_a_missing_or_damaged_file_is_named():
    run = made("one")
    with pytest.raises(RunError, match=r"history.json: is missing; is one a finished run\?"):
        run.read("history.json")
    for content in (b"{", b"\xff\xfe"):
        (run.folder / "history.json").write_bytes(content)
        with pytest.raises(RunError, match=r"history.json: is not readable JSON") as caught:
            run.read("history.json")
        assert "\n" not in str(caught.value)


def test_what_json_cannot_hold_is_not_written():
    run = made("one")
    before = (run.folder / "run.json").read_text()
    with pytest.raises(ValueError, match="JSON compliant"):
        run.describe(seconds=float("nan"))
    assert (run.folder / "run.json").read_text() == before
    assert [path.name for path in run.folder.iterdir()] == ["run.json"]


def test_a_run_is_found_by_name_folder_and_mlflow_id(monkeypatch):
    run = made("one", mlflow={"run_id": "abc123"})
    made("two", mlflow=None)
    assert find_run("one") == find_run(str(run.folder)) == find_run("abc123") == run
    monkeypatch.chdir(run.folder.parent)
    assert find_run("./one").folder == run.folder


def test_an_unknown_run_is_answered_with_the_newest():
    made("old", age=20)
    made("new", age=1)
    assert [run.name for run in all_runs()] == ["new", "old"]
    with pytest.raises(RunError, match=r"nothing: no such run in .*runs; the newest are new, old"):
        find_run("nothing")


def test_an_experiment_is_no_run():
    experiment = named_run("cv")
    assert training_run("cv") == experiment
    experiment.write("study.json", {"kind": "folds", "trials": {}})
    with pytest.raises(RunError, match=r"cv: is an experiment, not a run"):
        training_run("cv")
    with pytest.raises(RunError, match=r"cv: is an experiment, and a run is needed"):
        find_run("cv")
    assert list(all_runs()) == []


def test_another_runs_damage_is_not_in_the_way():
    run = made("one", mlflow={"run_id": "abc123"}, age=5)
    broken = made("broken")
    (broken.folder / "run.json").write_text("{")
    assert find_run("abc123") == run


def test_files_are_json_a_person_can_read():
    run = made("one")
    run.write("history.json", [{"epoch": 0}])
    text = (run.folder / "history.json").read_text()
    assert json.loads(text) == [{"epoch": 0}]
    assert "\n" in text


def test_looking_for_a_run_touches_no_copy(root, monkeypatch):
    """GANSEG_RUNS_URI is unusable, which is an error for whoever opens it."""
    monkeypatch.setenv("GANSEG_RUNS_URI", "ftp://nowhere/runs")
    assert not training_run("one").finished
    assert find_study("one", "sweep") is None
    assert find_study("one", "experiment") is None
    with pytest.raises(RunError, match="no such run"):
        find_run("one")
    assert list(all_runs()) == []
    assert not root.exists()


def test_a_record_that_was_changed_is_damaged():
    """A patient who was trained on would be tested on, and a score that was none would choose the best trial."""
    run = made("one")
    run.write("split.json", Split(("p1", "p2"), ("p3",), ("p4",)).to_dict())
    run.write("best.json", {"scores": {"val/dice_wt": 0.61}})
    assert run.split() == Split(("p1", "p2"), ("p3",), ("p4",))
    for name, old, new in (("split.json", '"p4"', '"p1"'), ("best.json", "0.61", "0.91")):
        file = run.folder / name
        file.write_text(file.read_text().replace(old, new))
        with pytest.raises(RunError, match=rf"{name}: is damaged \(its digest differs\); restore it") as caught:
            run.read(name)
        assert "\n" not in str(caught.value)


def test_what_is_added_to_a_run_keeps_what_was_there():
    run = made("one")
    before = run.description()
    run.describe(seconds=3.5)
    assert run.description() == before.model_copy(update={"seconds": 3.5})
    assert "digest" in json.loads((run.folder / "run.json").read_text())


@pytest.mark.parametrize(("name", "writer"), [("run.json", "0123abc"), ("study.json", "which is unknown")])
def test_a_folder_of_another_format_names_the_version_to_use(name, writer, tmp_path):
    of_earlier = {"status": "finished"} | ({"commit": "0123abc"} if name == "run.json" else {})
    write_json(tmp_path / name, sealed(of_earlier))
    message = (
        f"{tmp_path / name}: run format 1, and ganseg-dist {__version__} reads {RUN_FORMAT}; use the version that "
    )
    with pytest.raises(RunError, match=re.escape(f"{message}wrote it, {writer}, or begin again")):
        Run(tmp_path).read(name)
