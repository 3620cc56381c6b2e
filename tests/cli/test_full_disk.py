"""A full disk: one error line that names the file; earlier files stay."""

import shutil

import pytest

from tests.cli.conftest import assert_error, snapshot, untrained_run

SUBJECT = "BraTS20_Training_001"
PHANTOM = ("phantom", "out", "--patients", 1, "--healthy", 0, "--sites", 1, "--spacing-mm", 8)


@pytest.fixture
def working_folder(tmp_path, monkeypatch):
    """The working folder of a command."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def on_full_disk(ganseg, small_disk):
    """Runs a command while no file may exceed `size` bytes."""

    def run_command(size, *words):
        small_disk(size)
        outcome = ganseg(*words)
        small_disk(-1)
        return outcome

    return run_command


EVALUATE = ("evaluate", "tiny", "--data", "COHORT")
THRESHOLDS = ("experiment", "thresholds", "tiny", "--data", "COHORT")


@pytest.mark.parametrize(
    ("args", "size", "named"),
    [
        (EVALUATE, 0, "tiny/evaluation/test/cases.csv"),
        pytest.param(EVALUATE, 3000, "tiny/evaluation/test", marks=pytest.mark.slow),
        (("calibrate", "tiny"), 0, "tiny/model/thresholds.json"),
        (("report", "tiny"), 0, "tiny/report.html"),
        pytest.param(("report", "tiny"), 10_000, "tiny/report.html", marks=pytest.mark.slow),
        (THRESHOLDS, 0, "thresholds-tiny/areas.csv"),
        pytest.param(THRESHOLDS, 500, "thresholds-tiny/table.csv", marks=pytest.mark.slow),
        pytest.param(THRESHOLDS, 10_000, "thresholds-tiny/figure.png", marks=pytest.mark.slow),
    ],
)
def test_full_disk_leaves_run_and_experiment_unchanged(ganseg, run, phantom, on_full_disk, args, size, named):
    args = [phantom if word == "COHORT" else word for word in args]
    root = run.folder.parent
    first = ganseg(*args)
    assert first.code == 0, first.err
    before = snapshot(root)
    result = on_full_disk(size, *args)
    assert_error(result, 1, root / named, "cannot be written", "free space")
    assert snapshot(root) == before
    assert ganseg(*args).code == 0


@pytest.mark.parametrize("size", [0, 1000])
def test_full_disk_leaves_classifier_evaluation_unchanged(ganseg, kaggle, tmp_path, on_full_disk, size):
    run = untrained_run("gan_detector_debug", kaggle, tmp_path)
    assert ganseg("evaluate", run.name, "--data", kaggle).code == 0
    before = snapshot(run.folder)
    result = on_full_disk(size, "evaluate", run.name, "--data", kaggle)
    assert_error(result, 1, run.evaluation("test"), "cannot be written", "free space")
    assert snapshot(run.folder) == before


@pytest.mark.parametrize("size", [0, 1500])
def test_full_disk_leaves_no_partial_export(ganseg, run, working_folder, on_full_disk, size):
    result = on_full_disk(size, "export", "tiny", "out")
    assert_error(result, 1, "out: cannot be written", "free space")
    assert list(working_folder.iterdir()) == []


@pytest.mark.slow
def test_full_disk_leaves_no_partial_onnx_export(ganseg, run, working_folder, on_full_disk, monkeypatch):
    monkeypatch.setattr(shutil, "copyfile", lambda source, target: None)
    result = on_full_disk(1500, "export", "tiny", "out", "--onnx")
    assert_error(result, 1, "out: cannot be written", "free space")
    assert list(working_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("size", "named"), [pytest.param(0, "PHANTOM.json", marks=pytest.mark.slow), (5000, f"{SUBJECT}/{SUBJECT}_")]
)
def test_phantom_resumes_after_full_disk(ganseg, working_folder, on_full_disk, size, named):
    result = on_full_disk(size, *PHANTOM)
    assert_error(result, 1, f"out/{named}", "cannot be written", "free space")
    assert not (working_folder / "out" / SUBJECT).exists(), "a case is whole or not there"
    assert ganseg(*PHANTOM).code == 0
    assert len(list(working_folder.rglob("*.nii.gz"))) == 5
    assert not list(working_folder.rglob(".unfinished-*"))


@pytest.mark.parametrize("size", [pytest.param(0, marks=pytest.mark.slow), 2000])
@pytest.mark.parametrize("made", [pytest.param("pairs", marks=pytest.mark.slow), "classes"])
def test_full_disk_leaves_earlier_synthesis_unchanged(
    ganseg, kaggle, tmp_path, working_folder, on_full_disk, made, size
):
    recipe, more = {"pairs": ("gan_osmosis_debug", ()), "classes": ("gan_detector_debug", ("--count", 8))}[made]
    untrained_run(recipe, kaggle, tmp_path)
    args = ("synthesize", "pictures", "--out", "out", "--most-memorised", 1, *more)
    first = ganseg(*args)
    assert first.code == 0, first.err
    before = snapshot(working_folder)
    result = on_full_disk(size, *args)
    assert_error(result, 1, "error: out", "cannot be written", "free space")
    assert snapshot(working_folder) == before


def test_experiment_thresholds_resumes_after_full_disk(ganseg, run, phantom, on_full_disk):
    args = ("experiment", "thresholds", "tiny", "--data", phantom)
    folder = run.folder.parent / "thresholds-tiny"
    for size, named in ((10, "study.json"), (1500, "trials")):
        result = on_full_disk(size, *args)
        assert_error(result, 1, folder / named, "cannot be written", "free space")
    assert list((folder / "trials").iterdir()) == []
    assert not (folder / "table.csv").exists()
    assert ganseg(*args).code == 0


@pytest.mark.parametrize(
    ("size", "named"), [pytest.param(5000, "store", marks=pytest.mark.slow), (20_000, "runs/much.100-real-seed0/")]
)
def test_experiment_fractions_resumes_after_full_disk(
    ganseg, phantom, tmp_path, on_full_disk, monkeypatch, size, named
):
    monkeypatch.setenv("GANSEG_STORE", str(tmp_path / "store"))
    args = (
        "experiment", "fractions", "gan_osmosis_debug", "--data", phantom, "--local", "--run-name", "much",
        "--fractions", "100", "--arms", "real", "--set", "train.epochs=1", "--set", "train.batch_size=16",
    )  # fmt: skip
    folder = tmp_path / "runs" / "much"
    if named != "store":
        assert ganseg("prepare", phantom, "--recipe", "gan_osmosis_debug", "--local").code == 0
    result = on_full_disk(size, *args)
    assert_error(result, 1, f"much.100-real-seed0: {tmp_path / named}", "free space", "1 of 1 trials failed")
    assert not (folder / "table.csv").exists()
    assert ganseg(*args).code == 0
    assert (folder / "table.csv").exists()
