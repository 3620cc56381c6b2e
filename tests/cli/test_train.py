"""Training from the command line: interrupts, resumption, invalid input and output files."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from safetensors import SafetensorError

from ganseg_dist.runs import Run
from ganseg_dist.tracking.progress import RichProgress
from tests.cli.conftest import QUICK, assert_error, copied, snapshot
from tests.cli.test_bad_input import CASE, spoil


@pytest.fixture
def train(ganseg, phantom):
    return lambda *more, data=phantom: ganseg("train", "ganet_seg_debug", "--data", data, "--local", *QUICK, *more)


@pytest.fixture
def interrupt(monkeypatch):
    """A function that raises KeyboardInterrupt in the middle of an epoch of the second stage."""

    def arm() -> None:
        def press(self, progress):
            if progress.stage == "segment" and progress.batch == 2:
                raise KeyboardInterrupt

        monkeypatch.setattr(RichProgress, "progress", press)

    yield arm
    monkeypatch.undo()


def test_train_dry_run_prints_plan_and_writes_no_run(train, tmp_path):
    shown = train("--dry-run", "--set", "system.supervised_epochs=0")
    assert shown.code == 0, shown.err
    assert len(shown.out.splitlines()) < 20, "a terminal of 24 lines shows all of it"
    lines = dict(line.split(maxsplit=1) for line in shown.out.splitlines() if "  " in line)
    assert lines["run"] == f"begins {tmp_path / 'runs' / 'ganet_seg_debug-cohort'}"
    assert lines["regions"] == "wt, tc, et"
    assert lines["train"].startswith("5 patients, 5 cases, ")
    assert re.search(r"segmenter [\d,]+, generator ", lines["parameters"])
    changed = "system.healthy_epochs=1, system.supervised_epochs=0, train.epochs=1"
    assert lines["config"] == f"ganet_seg_debug with {changed} (all fields: --show-config)"
    assert "supervised never; adversarial in epochs 1 to 1" in shown.out
    assert shown.out.endswith("\n\nNothing was trained: leave out --dry-run to begin.\n")
    assert not (tmp_path / "runs").exists()


def test_train_dry_run_prints_config_with_show_config(train):
    shown = train("--dry-run", "--show-config").out
    config = json.loads(shown[: shown.index("\n}") + 2])
    assert config["data"]["modalities"] == ["t1", "t1ce", "t2", "flair"]
    assert shown.endswith("Nothing was trained: leave out --dry-run to begin.\n")
    assert_error(train("--show-config"), 2, "--show-config: belongs to --dry-run")


def test_train_resumes_after_interrupt(train, ganseg, interrupt, monkeypatch, tmp_path):
    interrupt()
    stopped = train("--run-name", "once")
    assert_error(stopped, 130, "interrupted")
    run = Run(tmp_path / "runs" / "once")
    assert run.description().status == "interrupted"
    assert_error(ganseg("predict", "once", "x", "--out", "y"), 1, "ganseg train --resume once")
    other = "once: was started with another config (seed was 0, is 3, which changes the result)"
    assert_error(train("--run-name", "once", "--set", "seed=3"), 1, other)
    monkeypatch.undo()
    monkeypatch.setenv("GANSEG_RUNS", str(tmp_path / "runs"))
    seen = []
    monkeypatch.setattr(RichProgress, "progress", lambda self, progress: seen.append(progress.stage))
    shown = train("--run-name", "once", "--dry-run")
    assert f"resumes {run.folder}" in shown.out
    resumed = ganseg("train", "--resume", run.folder)
    assert resumed.code == 0, resumed.err
    assert set(seen) == {"segment"}, "the first stage was done already"
    assert [record["stage"] for record in run.read("history.json")] == ["healthy", "segment"]
    assert run.finished
    assert_error(ganseg("train", "--resume", "once"), 1, "once: is finished already")
    before = snapshot(run.folder)
    again = train("--run-name", "once")
    assert again.code == 0, again.err
    assert "once was finished before and nothing was trained" in again.err
    assert_error(train("--run-name", "once", "--set", "seed=3"), 1, other)
    assert snapshot(run.folder) == before


@pytest.mark.parametrize("name", ["state.json", "networks.safetensors", "optimizers.safetensors"])
@pytest.mark.parametrize("damage", ["flipped", "emptied", "removed"])
def test_train_resume_rejects_damaged_checkpoints(ganseg, trained, tmp_path, name, damage):
    run = unfinished_run(trained, tmp_path)
    for folder in sorted(run.checkpoints.glob("step-*")):
        file = folder / name
        content = file.read_bytes()
        file.unlink()
        if damage != "removed":
            flipped = content[:-20] + bytes(255 - byte for byte in content[-20:])
            file.write_bytes(b"" if damage == "emptied" else flipped)
    assert_error(ganseg("train", "--resume", "tiny"), 1, file, f"delete {run.checkpoints} to start over")
    assert not run.finished


def test_train_resume_falls_back_to_previous_checkpoint_when_newest_is_damaged(ganseg, trained, tmp_path):
    run = unfinished_run(trained, tmp_path)
    older, newest = sorted(run.checkpoints.glob("step-*"))
    (newest / "state.json").write_text("{}")
    resumed = ganseg("train", "--resume", "tiny")
    assert resumed.code == 0, resumed.err
    (line,) = [line for line in resumed.err.splitlines() if "damaged" in line]
    assert line == (
        f"warning: {newest / 'state.json'}: is damaged (its digest differs); resuming from the checkpoint before it, "
        f"{older.name}"
    )
    assert run.finished
    assert (run.model / "networks.safetensors").read_bytes() == (trained.model / "networks.safetensors").read_bytes()


def test_train_resume_writes_model_after_interrupt_of_model_write(ganseg, trained, tmp_path, monkeypatch):
    run = unfinished_run(trained, tmp_path)

    def press(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ganseg_dist.training.run_training.write_model", press)
        assert ganseg("train", "--resume", "tiny").code == 130
    assert not run.finished
    resumed = ganseg("train", "--resume", "tiny")
    assert resumed.code == 0, resumed.err
    assert run.finished
    assert (run.model / "networks.safetensors").read_bytes() == (trained.model / "networks.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", "{", "run.json: is damaged (it is no JSON)"),
        ("run.json", "[]", "run.json: is damaged"),
        ("run.json", "{}", "run.json: is damaged (its digest differs)"),
        ("config.json", "\xff\xfe", "config.json: "),
        ("config.json", '{"recipe": "x", "colour": 3, "system": {"name": "ganet_seg"}}', "config.json: colour: "),
        ("split.json", "{}", "split.json: is damaged"),
        ("data.json", "", "data.json: is damaged"),
    ],
)
def test_train_resume_rejects_damaged_run_files(ganseg, trained, tmp_path, name, content, message):
    run = unfinished_run(trained, tmp_path)
    (run.folder / name).write_text(content, encoding="latin-1")
    assert_error(ganseg("train", "--resume", "tiny"), 1, message)


def test_train_resumes_after_full_disk(train, ganseg, monkeypatch, tmp_path):
    from ganseg_dist.engine import checkpoint

    whole = checkpoint.save_file
    saved = []

    def full(tensors, file):
        saved.append(file)
        if len(saved) > 8:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        whole(tensors, file)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        stopped = train("--run-name", "full")
    run = Run(tmp_path / "runs" / "full")
    assert_error(stopped, 1, run.checkpoints, "No space left on device", "free space")
    assert len(list(run.checkpoints.glob("step-*"))) == 1
    resumed = train("--run-name", "full")
    assert resumed.code == 0, resumed.err
    assert run.finished


def test_train_fails_in_one_line_when_store_disk_is_full(train, small_disk, monkeypatch, tmp_path):
    monkeypatch.setenv("GANSEG_STORE", str(tmp_path / "store"))
    small_disk(20_000)
    result = train()
    small_disk(-1)
    assert_error(result, 1, tmp_path / "store", "cannot be written", "free space or set GANSEG_STORE")
    assert list((tmp_path / "store" / "cases").iterdir()) == []


def test_train_exclude_bad_omits_and_records_bad_cases(train, bad_cohort, tmp_path):
    spoil(bad_cohort, "truncated")
    finished = train("--exclude-bad", "--run-name", "rest", data=bad_cohort)
    assert finished.code == 0, finished.err
    run = Run(tmp_path / "runs" / "rest")
    data = run.read("data.json")
    assert {finding["case"] for finding in data["excluded"]} == {CASE}
    assert all(set(finding) >= {"file", "problem", "remedy"} for finding in data["excluded"])
    assert CASE not in {case["id"] for case in data["cases"]}
    assert CASE not in {patient for patients in run.split().to_dict().values() for patient in patients}
    assert "Cases excluded by preflight: 1" in (run.model / "card.md").read_text()
    assert_error(train("--exclude-bad", "--resume", "rest", data=bad_cohort), 2, "--resume rest")


def test_train_exclude_bad_rejects_cohort_of_bad_cases_only(train, bad_cohort):
    for flair in bad_cohort.glob("*/*_flair.nii.gz"):
        flair.unlink()
        flair.write_bytes(b"")
    assert_error(train("--exclude-bad", data=bad_cohort), 1, bad_cohort, "no case is left")


def test_train_rejects_run_name_started_on_other_data(ganseg, trained, phantom, bad_cohort, tmp_path):
    unfinished_run(trained, tmp_path)
    (bad_cohort / CASE / f"{CASE}_seg.nii.gz").unlink()
    args = ("ganet_seg_debug", "--local", "--run-name", "tiny")
    assert_error(ganseg("train", *args, "--data", bad_cohort), 1, "tiny: was started on other data")


def test_train_derives_run_name_from_recipe_and_folder(ganseg, phantom, tmp_path):
    (tmp_path / "My scans").mkdir()
    shutil.copytree(phantom, tmp_path / "My scans" / "a b", copy_function=os.link)
    shown = ganseg("train", "ganet_seg_debug", "--data", tmp_path / "My scans" / "a b", "--dry-run")
    assert "ganet_seg_debug-a-b" in shown.out, shown.err


def test_train_resume_rejects_run_outside_runs_folder(ganseg, trained, tmp_path, monkeypatch):
    run = unfinished_run(trained, tmp_path)
    monkeypatch.setenv("GANSEG_RUNS", str(tmp_path / "others"))
    assert_error(ganseg("train", "--resume", run.folder), 1, f"GANSEG_RUNS={tmp_path / 'runs'}")
    assert not (tmp_path / "others").exists()


def unfinished_run(trained: Run, tmp_path: Path) -> Run:
    """A copy of the run as if killed after its last checkpoint."""
    run = copied(trained, tmp_path / "runs" / "tiny")
    shutil.rmtree(run.model)
    (run.folder / "history.json").unlink()
    run.describe(status="training")
    return run
