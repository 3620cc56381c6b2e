"""An experiment by its command, on a phantom: trials, table, figure, and going on where it was."""

import json

import pytest

from tests.cli.conftest import assert_refused

SHORT = ("--set", "train.epochs=1", "--set", "system.joint_epochs=1", "--set", "train.batch_size=16")


@pytest.fixture
def fractions(ganseg, phantom):
    def run(*more):
        return ganseg(
            "experiment", "fractions", "gan_osmosis_debug", "--data", phantom, "--local", "--run-name", "much",
            "--fractions", "50,100", "--arms", "real,both", *SHORT, *more,
        )  # fmt: skip

    return run


def test_fractions_end_with_a_table_and_go_on_where_they_were(fractions, tmp_path, monkeypatch):
    folder = tmp_path / "runs" / "much"
    first = fractions()
    assert first.code == 0, first.err
    assert "fractions: gan_osmosis_debug on cohort" in first.out
    assert all(str(folder / name) in first.out for name in ("table.csv", "figure.png"))
    outcomes = sorted((folder / "trials").glob("*.json"))
    assert [file.stem for file in outcomes] == ["050-both-seed0", "050-real-seed0", "100-both-seed0", "100-real-seed0"]
    table = (folder / "table.csv").read_text()
    scored = json.loads(outcomes[0].read_text())
    assert scored["labels"]["fraction"] == 50
    assert 0 <= scored["rows"][0]["scores"]["wt/dice"] <= 1
    trained = []
    monkeypatch.setattr("ganseg_dist.experiments.run.train_session", lambda request: trained.append(request))
    assert fractions().code == 0
    assert trained == [], "what is finished is not done again"
    monkeypatch.undo()
    monkeypatch.setenv("GANSEG_RUNS", str(tmp_path / "runs"))
    outcomes[1].unlink()
    again = fractions()
    assert again.code == 0, again.err
    assert (folder / "table.csv").read_text() == table
    assert_refused(fractions("--seeds", 2), 1, "much: was begun with other trials")


def test_unusable_words_are_refused_before_anything_trains(ganseg, phantom, tmp_path):
    def run(kind, *more):
        return ganseg("experiment", kind, "gan_osmosis_debug", "--data", phantom, "--local", *more)

    for said, result in {
        "--fractions x": run("fractions", "--fractions", "x"),
        "--arms x": run("fractions", "--arms", "x"),
        "cannot fill 20 folds": run("folds", "--folds", 20),
        "train.epoch: no such field": run("ablation", "--set", "train.epoch=1"),
    }.items():
        assert result.code != 0
        assert said in result.errors[0]
    assert not list((tmp_path / "runs").glob("*-*"))
