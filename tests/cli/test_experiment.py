"""`ganseg experiment`: trials, table, figure and resumption."""

import json
import shutil
from dataclasses import replace

import pytest
from mlflow import MlflowClient

from ganseg_dist.atomic import write_json
from ganseg_dist.data.cohort import split_as_configured
from ganseg_dist.data.perturb import kinds_for
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.digests import read_sealed, sealed
from ganseg_dist.inference.model_folder import read_thresholds, write_thresholds
from ganseg_dist.systems import recipe
from tests.cli.conftest import assert_error, untrained_run, write_colour_case
from tests.data.cohorts import read_rows, write_pictures

SHORT = ("--set", "train.epochs=1", "--set", "system.joint_epochs=1", "--set", "train.batch_size=16")


@pytest.fixture
def fractions(ganseg, phantom):
    def run(*more):
        return ganseg(
            "experiment", "fractions", "gan_osmosis_debug", "--data", phantom, "--local", "--run-name", "much",
            "--fractions", "50,100", "--arms", "real,both", *SHORT, *more,
        )  # fmt: skip

    return run


@pytest.mark.slow
def test_experiment_fractions_writes_table_and_resumes_missing_trials(fractions, tmp_path, monkeypatch):
    folder = tmp_path / "runs" / "much"
    first = fractions()
    assert first.code == 0, first.err
    assert "fractions: gan_osmosis_debug on cohort (phantom)" in first.out
    assert all(str(folder / name) in first.out for name in ("table.csv", "figure.png"))
    outcomes = sorted((folder / "trials").glob("*.json"))
    assert [file.stem for file in outcomes] == ["050-both-seed0", "050-real-seed0", "100-both-seed0", "100-real-seed0"]
    table = (folder / "table.csv").read_text()
    scored = json.loads(outcomes[0].read_text())
    assert scored["values"]["percentage"] == 50
    assert 0 <= scored["rows"][0]["scores"]["wt/dice"] <= 1
    trained = []
    monkeypatch.setattr("ganseg_dist.studies.experiments.run.train_session", lambda request: trained.append(request))
    assert fractions().code == 0
    assert trained == [], "what is finished is not done again"
    monkeypatch.undo()
    monkeypatch.setenv("GANSEG_RUNS", str(tmp_path / "runs"))
    outcomes[1].unlink()
    again = fractions()
    assert again.code == 0, again.err
    assert (folder / "table.csv").read_text() == table
    assert_error(fractions("--seeds", 2), 1, "much: was started with other trials")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("folds", "gan_osmosis_debug", "--folds", 2), "--folds 2: leaves none to train on"),
        (("fractions", "gan_osmosis_debug", "--fractions", "x"), "--fractions x: expected whole numbers"),
        (("fractions", "gan_osmosis_debug", "--fractions", "0"), "--fractions 0: is no percentage"),
        (("fractions", "gan_osmosis_debug", "--fractions", ","), "--fractions (none): is no percentage"),
        (("fractions", "gan_osmosis_debug", "--arms", "x"), "--arms x: no such arm"),
        (("transfer", "gan_osmosis_debug", "--arms", "both,x"), "--arms x: no such arm"),
        (("transfer", "gan_osmosis_debug", "--arms", ","), "--arms: names none"),
        (("ablation", "gan_detector_debug"), "gan_detector_debug: has no loss terms"),
        (("ablation", "gan_osmosis_debug", "--set", "train.epoch=1"), "train.epoch: no such field"),
        (("augmentation", "gan_osmosis_debug"), "gan_osmosis_debug: is no detector"),
        (("classifiers", "gan_detector_debug"), "gan_detector_debug: has no such baselines"),
    ],
)
def test_experiment_rejects_invalid_options_before_reading_data(ganseg, tmp_path, args, message):
    assert_error(ganseg("experiment", *args, "--data", tmp_path / "nowhere", "--local"), 2, message)


def test_experiment_rejects_too_few_patients_or_sites_before_checking_images(ganseg, phantom, tmp_path, monkeypatch):
    monkeypatch.setattr("ganseg_dist.planning.plan.plan_training", None)  # a call would be a traceback
    result = ganseg("experiment", "folds", "gan_osmosis_debug", "--data", phantom, "--folds", 20, "--local")
    assert_error(result, 2, "cannot fill 20 folds")
    pictures = write_pictures(tmp_path / "pictures", [str(number) for number in range(6)])
    result = ganseg("experiment", "transfer", "gan_osmosis_debug", "--data", pictures, "--local")
    assert_error(result, 1, pictures, "sites known: none", "a column site, of the patients.csv beside pictures")


@pytest.fixture
def few_changes(monkeypatch):
    """Noise at two strengths, and no other change but a missing modality."""
    monkeypatch.setattr(
        "ganseg_dist.studies.experiments.robustness.kinds_for", lambda modalities: kinds_for(modalities)[:1]
    )
    monkeypatch.setattr("ganseg_dist.studies.experiments.robustness.STRENGTHS", {"Gaussian noise": (0.1, 20.0)})


@pytest.mark.slow
def test_experiment_robustness_scores_test_patients_of_segmenter(ganseg, kaggle_run, kaggle, few_changes):
    run = kaggle_run
    result = ganseg("experiment", "robustness", run.name, "--data", kaggle, "--local")
    assert result.code == 0, result.err
    folder = run.folder.parent / "robustness-pictures"
    rows = {(row["perturbation"], row["strength"]): row for row in read_rows(folder / "table.csv")}
    assert list(rows) == [
        ("as they are", ""), ("Gaussian noise", "0.1"), ("Gaussian noise", "20.0"),
        ("without t1", ""), ("without t1ce", ""), ("without flair", ""),
    ]  # fmt: skip
    assert ganseg("evaluate", run.name, "--data", kaggle).code == 0
    known = run.read("evaluation/test/summary.json")["rows"][0]["scores"]["wt/dice"]
    clean = rows["as they are", ""]
    assert float(clean["wt/dice_mean"]) == pytest.approx(known["mean"])
    assert int(clean["wt/dice_n"]) == len(run.split().test)
    assert clean["wt/dice_less_first_mean"] == ""
    noisy = rows["Gaussian noise", "20.0"]
    assert noisy["wt/dice_mean"] != clean["wt/dice_mean"]
    difference = float(noisy["wt/dice_mean"]) - float(clean["wt/dice_mean"])
    assert float(noisy["wt/dice_less_first_mean"]) == pytest.approx(difference)
    assert "Dice of the tumour less images as they are" in result.out
    assert (folder / "figure.png").exists()
    outcomes = folder / "trials"
    kept, redone = outcomes / "as-they-are.json", outcomes / "gaussian-noise-20.0.json"
    write_json(kept, sealed(read_sealed(kept) | {"seconds": 123.0}))
    before = json.loads(redone.read_text())["rows"]
    redone.unlink()
    assert ganseg("experiment", "robustness", run.name, "--data", kaggle, "--local").code == 0
    assert json.loads(kept.read_text())["seconds"] == 123.0, "what is finished is not done again"
    assert json.loads(redone.read_text())["rows"] == before, "the same noise again"
    other = ganseg("experiment", "robustness", run.name, "--data", kaggle, "--local", "--seed", 1)
    assert_error(other, 1, "robustness-pictures: was started with other trials")


@pytest.mark.slow
def test_experiment_robustness_scores_test_patients_of_classifier(ganseg, kaggle, tmp_path, few_changes):
    run = untrained_run("dl_gan_cnn_debug", kaggle, tmp_path)
    result = ganseg("experiment", "robustness", run.name, "--data", kaggle, "--local")
    assert result.code == 0, result.err
    assert ganseg("evaluate", run.name, "--data", kaggle).code == 0
    known = run.read("evaluation/test/summary.json")["scores"]
    clean = read_rows(run.folder.parent / "robustness-pictures" / "table.csv")[0]
    for score in ("accuracy", "recall", "auroc"):
        assert float(clean[f"{score}_mean"]) == pytest.approx(known[score]["mean"], abs=0.05)  # the store is float16
    assert int(clean["accuracy_n"]) == known["n_patients"]


@pytest.mark.slow
def test_experiment_thresholds_matches_detection_of_evaluate(ganseg, kaggle_run, kaggle):
    stored = read_thresholds(kaggle_run.model)
    write_thresholds(kaggle_run.model, replace(stored, realism=0.5))
    result = ganseg("experiment", "thresholds", "pictures", "--data", kaggle)
    assert result.code == 0, result.err
    assert ganseg("evaluate", "pictures", "--data", kaggle).code == 0
    known = kaggle_run.read("evaluation/test/summary.json")["detection"]
    folder = kaggle_run.folder.parent / "thresholds-pictures"
    rows = read_rows(folder / "table.csv")
    assert [row["threshold"] for row in rows] == ["0.1", "0.2", "0.3", "0.4", "0.5"]
    assert [row["chosen by"] for row in rows] == ["Table 1"] * 4 + ["validation"]
    for row, expected in zip(rows, known["rows"], strict=True):
        assert [int(row[name]) for name in ("tp", "fn", "fp", "tn")] == [expected[n] for n in ("tp", "fn", "fp", "tn")]
        for score in ("accuracy", "sensitivity", "specificity", "youden_j"):
            assert float(row[f"{score}_mean"]) == pytest.approx(expected[score])
    assert [row["published_accuracy"] for row in rows] == ["0.7507", "0.7953", "0.764", "0.7292", ""]
    areas = {row["area"]: row for row in read_rows(folder / "areas.csv")}
    for area in ("auroc", "auprc"):
        assert float(areas[area]["mean"]) == pytest.approx(known[area], abs=1e-5)
        assert float(areas[area]["low"]) <= known[area] + 1e-5
    assert "published sensitivity" in result.out
    assert f"{known['n_slices']} slices: AUROC {known['auroc']:.3f}" in result.out
    assert (folder / "figure.png").exists()
    assert len(list((folder / "trials").iterdir())) == 1
    write_thresholds(kaggle_run.model, replace(stored, realism=0.6))
    assert_error(ganseg("experiment", "thresholds", "pictures", "--data", kaggle), 1, "was started with other trials")


def test_experiment_logs_table_to_mlflow(ganseg, trained, phantom, tmp_path, monkeypatch):
    store = tmp_path / "mlflow.db"
    shutil.copy(trained.folder.parent / "mlflow.db", store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
    monkeypatch.setattr("ganseg_dist.tracking.pyfunc.ModelUpload.send", lambda upload, client: "not of interest")
    result = ganseg(
        "experiment", "fractions", "gan_osmosis_debug", "--data", phantom, "--local", "--run-name", "much",
        "--fractions", "50,100", "--arms", "real", *SHORT,
    )  # fmt: skip
    assert result.code == 0, result.err
    client = MlflowClient(f"sqlite:///{store}")
    known = {
        run.info.run_name: run for run in client.search_runs([client.get_experiment_by_name("ganseg").experiment_id])
    }
    parent = known["much"]
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {"experiment": "fractions", "recipe": "gan_osmosis_debug", "trials": "2"}
    rows = {int(row["percentage"]): row for row in read_rows(tmp_path / "runs" / "much" / "table.csv")}
    assert list(rows) == [50, 100]
    for fraction, row in rows.items():
        assert parent.data.metrics[f"wt/dice/percentage {fraction}"] == pytest.approx(float(row["wt/dice_mean"]))
        trial = known[f"much.{fraction:03d}-real-seed0"]
        assert trial.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert (trial.data.tags["ganseg.percentage"], trial.data.tags["ganseg.arm"]) == (str(fraction), "real")
        for end in ("mean", "low", "high"):
            shown = row[f"wt/dice_{end}"] or row["wt/dice_mean"]  # one patient has no interval
            assert trial.data.metrics[f"test/wt/dice/{end}"] == pytest.approx(float(shown))
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        "table.csv",
        "table.json",
        "figure.png",
    }
    assert "fractions: gan_osmosis_debug on cohort (phantom)" in parent.data.tags["mlflow.note.content"]


def test_experiment_thresholds_rejects_model_without_slice_discriminator(ganseg, kaggle, osmosis_run):
    result = ganseg("experiment", "thresholds", osmosis_run.name, "--data", kaggle)
    assert_error(result, 1, "pictures: GAN-OSMOSIS has no discriminator that scores slices; give a run whose")


def test_experiment_rejects_unknown_run_and_unknown_patients(ganseg, kaggle, kaggle_run, phantom):
    for kind in ("robustness", "thresholds"):
        assert_error(ganseg("experiment", kind, "nobody", "--data", kaggle), 1, "nobody: no such run")
        assert_error(ganseg("experiment", kind, "pictures", "--data", phantom), 1, "holds no case")


QUICK_CLASSES = ("--local", "--set", "train.epochs=1", "--set", "train.batch_size=16")


@pytest.mark.slow
def test_experiment_augmentation_compares_arms_of_detector(ganseg, kaggle, tmp_path, monkeypatch):
    args = (
        "experiment", "augmentation", "gan_detector_debug", "--data", kaggle, "--seeds", 1, *QUICK_CLASSES,
        "--set", "system.synthesis_epochs=1",
    )  # fmt: skip
    result = ganseg(*args)
    assert result.code == 0, result.err
    folder = tmp_path / "runs" / "augmentation-gan_detector_debug-kaggle_3m"
    rows = read_rows(folder / "table.csv")
    assert [row["arm"] for row in rows] == ["none", "classical", "gan", "both"]
    for row in rows:
        summary = json.loads(
            (tmp_path / "runs" / f"{folder.name}.{row['arm']}-seed0/evaluation/test/summary.json").read_text()
        )
        for score in ("auroc", "auprc", "accuracy"):
            assert float(row[f"{score}_mean"]) == pytest.approx(summary["scores"][score]["mean"])
        point = summary["operating_point"]
        for score in ("sensitivity", "specificity"):
            assert float(row[f"{score}_mean"]) == pytest.approx(point[score]["mean"])
    assert rows[0]["auroc_less_first_mean"] == ""
    assert float(rows[1]["auroc_less_first_mean"]) == pytest.approx(
        float(rows[1]["auroc_mean"]) - float(rows[0]["auroc_mean"])
    )
    assert "AUROC less none" in result.out
    trained = []
    monkeypatch.setattr("ganseg_dist.studies.experiments.run.train_session", lambda request: trained.append(request))
    assert ganseg(*args).code == 0
    assert trained == [], "what is finished is not done again"


@pytest.mark.slow
def test_experiment_classifiers_lists_published_scores(ganseg, kaggle, tmp_path):
    result = ganseg(
        "experiment", "classifiers", "dl_gan_cnn_debug", "--data", kaggle, *QUICK_CLASSES,
        "--set", "system.features_epochs=1",
    )  # fmt: skip
    assert result.code == 0, result.err
    rows = read_rows(tmp_path / "runs" / "classifiers-dl_gan_cnn_debug-kaggle_3m" / "table.csv")
    assert [row["arm"] for row in rows] == ["DL-GAN-CNN (CNN)", "CNN", "VGG16, random initialisation"]
    assert [row["published_f1"] for row in rows] == ["0.9936", "0.93", "0.6708"]
    assert all(0 <= float(row[f"{score}_mean"]) <= 1 for row in rows for score in ("precision", "recall", "f1"))
    assert "published precision" in result.out


def test_experiment_rejects_unsuitable_classes_and_patients_before_training(ganseg, phantom, kaggle, tmp_path):
    few = tmp_path / "kaggle_3m"
    for number in range(2):
        write_colour_case(few / f"TCGA_CS_{4940 + number}_20000101", number)
    alone = tmp_path / "alone" / "kaggle_3m"
    shutil.copytree(kaggle, alone)
    cohort = read_cohort(alone)
    for case in cohort.of_patients(split_as_configured(cohort, recipe("dl_gan_cnn_debug")).validation):
        folder = case.first_image.files[0].parent
        shutil.rmtree(folder)
        write_colour_case(folder, 0, slices=1)
    for message, result in {
        "is no detector": ganseg("experiment", "augmentation", "dl_gan_cnn_debug", "--data", kaggle, "--local"),
        "no such baselines": ganseg("experiment", "classifiers", "gan_detector_debug", "--data", kaggle, "--local"),
        "patients": ganseg("experiment", "augmentation", "gan_detector_debug", "--data", few, "--local"),
        "its validation patients have images of no lesion alone": ganseg(
            "experiment", "classifiers", "dl_gan_cnn_debug", "--data", alone, "--local"
        ),
    }.items():
        assert result.code != 0
        assert len(result.errors) == 1
        assert message in result.errors[0]
    assert not list((tmp_path / "runs").glob("*-*"))
