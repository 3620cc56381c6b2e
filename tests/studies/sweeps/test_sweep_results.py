"""Results of a sweep: best trial, Pareto front, importance, tables and figures."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from ganseg_dist.errors import RunError
from ganseg_dist.runs import Run
from ganseg_dist.studies.study import write_result
from ganseg_dist.studies.sweeps.metric import Metric
from ganseg_dist.studies.sweeps.publish import best_values, figures, save_sweep, table_of
from ganseg_dist.studies.sweeps.sweep import Sweep, importances, pareto_front
from ganseg_dist.studies.trial import TrialResult
from tests.data.cohorts import read_rows

DICE = Metric("val/dice_wt", every_epoch=True)
DISTANCE = Metric("val/hd95_wt", every_epoch=False)


def trial(number: int, dice: float, distance: float = 10.0, state: str = "finished", **values) -> TrialResult:
    scores = {} if math.isnan(dice) else {DICE.name: dice, DISTANCE.name: distance}
    return TrialResult(
        f"s.{number:03d}", values, scores=scores, state=state, epochs=3, curve=((1, dice / 2), (2, dice))
    )


def sweep(tmp_path: Path, *trials: TrialResult, metrics=(DICE,)) -> Sweep:
    run = Run(tmp_path / "s")
    named = [asdict(metric) for metric in metrics]
    request = {"kind": "sweep", "trials": len(trials), "space": "ganet_seg", "metrics": named, "patients": 2}
    run.write("study.json", request)
    return Sweep(run, request, metrics, trials)


def test_sweep_best_ignores_trials_without_score(tmp_path):
    found = sweep(
        tmp_path, trial(1, 0.5), trial(2, math.nan, state="diverged"), trial(3, 0.9, state="failed"), trial(4, 0.7)
    )
    assert found.best.name == "s.004"
    assert [record.name for record in found.ranked] == ["s.004", "s.001", "s.002", "s.003"]
    smaller = replace(found, metrics=(DISTANCE,), trials=(trial(1, 0.5, 9.0), trial(2, 0.5, 4.0)))
    assert smaller.best.name == "s.002"


def test_sweep_best_prefers_finished_over_stopped_trials(tmp_path):
    found = sweep(tmp_path, trial(1, 0.9, state="stopped"), trial(2, 0.5), trial(3, 0.7))
    assert [record.name for record in found.ranked] == ["s.003", "s.002", "s.001"]
    assert found.best.name == "s.003"
    assert replace(found, trials=found.trials[:1]).best.name == "s.001"


def test_sweep_best_raises_with_reason_without_scores(tmp_path):
    diverged = replace(trial(1, math.nan, state="diverged"), reason="the loss became nan")
    with pytest.raises(RunError, match=r"s: none of its 1 trials has a score: the loss became nan"):
        _ = sweep(tmp_path, diverged).best


def test_pareto_front_holds_non_dominated_trials(tmp_path):
    found = sweep(
        tmp_path, trial(1, 0.5, 4.0, a=1.0), trial(2, 0.7, 9.0, a=2.0), trial(3, 0.4, 5.0, a=3.0),
        trial(4, 0.6, 6.0, a=4.0), metrics=(DICE, DISTANCE),
    )  # fmt: skip
    assert {record.name for record in pareto_front(found)} == {"s.001", "s.002", "s.004"}


def test_importances_rank_deciding_field_first(tmp_path):
    values = [(x / 10, ((x * 7) % 10 + 1) / 10) for x in range(1, 21)]
    found = sweep(tmp_path, *(trial(n, a, decides=a, idle=b) for n, (a, b) in enumerate(values)))
    shares = importances(found)
    assert next(iter(shares)) == "decides"
    assert shares["decides"] > 0.8


def test_importances_are_empty_for_few_trials(tmp_path):
    found = sweep(tmp_path, *(trial(n, n / 10, a=float(n)) for n in range(1, 5)))
    assert importances(found) == {}
    assert set(figures(found)) == {"curves", "parallel"}


def test_figures_omit_curves_without_epoch_scores(tmp_path):
    trials = [replace(trial(n, 0.1 * n, **({"a": 0.5} if n % 2 else {})), curve=()) for n in range(1, 4)]
    assert set(figures(sweep(tmp_path, *trials))) == {"parallel"}


def test_save_sweep_writes_files_for_every_kind_of_field(tmp_path, monkeypatch):
    monkeypatch.setenv("GANSEG_RUNS", str(tmp_path))
    trials = [
        trial(n, 0.1 * n, 20.0 - n, **{"system.gan": bool(n % 2), "train.learning_rate": 10.0**-n, "n": n % 3})
        for n in range(1, 9)
    ]
    lacking = replace(trials[0], name="s.009", values={"system.gan": False})
    found = sweep(tmp_path, *trials, lacking, metrics=(DICE, DISTANCE))
    files = save_sweep(found)
    assert {file.name for file in files} == {
        "best.json", "table.csv", "curves.png", "parallel.png", "importance.png", "pareto.png",
    }  # fmt: skip
    assert all(file.stat().st_size for file in files)
    assert json.loads((found.run.folder / "best.json").read_text())["trial"] == "s.008"
    rows = read_rows(found.run.folder / "table.csv")
    assert [row["trial"] for row in rows][:2] == ["s.008", "s.007"]
    header, cells = table_of(found)
    assert header == ["trial", "ending", "epochs", "val/dice_wt", "val/hd95_wt", "Pareto", "gan", "learning_rate", "n"]
    assert cells[0][:6] == ["s.008", "finished", "3", "0.800", "12.0", "front"]
    assert [row[5] for row in cells[1:]] == [""] * 8, "no other is as good in either"
    assert [row["front"] for row in rows] == ["True", *["False"] * 8]


def test_best_values_accepts_trial_of_front(tmp_path, monkeypatch):
    monkeypatch.setenv("GANSEG_RUNS", str(tmp_path))
    found = sweep(
        tmp_path, trial(1, 0.5, 4.0, a=1.0), trial(2, 0.7, 9.0, a=2.0), trial(3, 0.4, 5.0, a=3.0),
        trial(4, 0.0, state="diverged", a=4.0), metrics=(DICE, DISTANCE),
    )  # fmt: skip
    for result in found.trials:
        write_result(found.result_file(result.number), result)
    save_sweep(found)
    best = found.run.read("best.json")
    assert best["chosen"].startswith("largest val/dice_wt of the trials that were finished; others of the front")
    assert [record["trial"] for record in best["front"]] == ["s.002", "s.001"]
    assert best_values("s") == {"a": 2.0}
    assert best_values("s.001") == {"a": 1.0}
    with pytest.raises(RunError, match=r"s\.004: is no scored trial of s"):
        best_values("s.004")


def test_best_values_rejects_unknown_and_unfinished_sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("GANSEG_RUNS", str(tmp_path))
    with pytest.raises(RunError, match="is no sweep"):
        best_values("nothing")
    Run(tmp_path / "unfinished").write("study.json", {"kind": "sweep", "trials": 1})
    with pytest.raises(RunError, match="has not ended; resume with: ganseg tune --resume unfinished"):
        best_values("unfinished")
