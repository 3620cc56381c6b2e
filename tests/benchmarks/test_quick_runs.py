"""Every benchmark runs and reports with --quick; what they measure is for an idle machine, so no ratio is asserted."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXTRAS = "comes with pip install 'ganseg-dist[comparators,phantom]'"


def assert_reports(printed: str, written: Path, comparisons: int) -> None:
    measured = json.loads(written.read_text())
    assert len(measured) == printed.count(": ratio ") == comparisons
    for row in measured:
        assert row["what"] in printed
        assert 0 <= row["low"] <= row["ratio"] <= row["high"]


def run_in_process_of_its_own(name: str, *options: object) -> str:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", *map(str, options)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize(
    ("name", "comparisons"),
    [
        ("engine_step", 4),  # supervised, adversarial, generator, discriminator
        pytest.param("lesionwise", 1, marks=pytest.mark.slow),
    ],
)
def test_benchmark_reports_its_comparisons(name, comparisons, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--quick", "--json", str(tmp_path / "measured.json")])
    importlib.import_module(f"benchmarks.{name}").main()
    assert_reports(capsys.readouterr().out, tmp_path / "measured.json", comparisons)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "comparisons", "packages"),
    [
        ("monai_loop", 2, ["monai", "nilearn"]),
        ("two_workers", 1, []),
        ("federated_round", 2, ["nilearn"]),
        ("sweep_overhead", 1, ["nilearn"]),
        ("scaling", 6, []),  # two recipes, each with one worker and twice with two
    ],
)
def test_benchmark_with_other_processes_reports_its_comparisons(name, comparisons, packages, tmp_path):
    for package in packages:
        pytest.importorskip(package, reason=EXTRAS)
    printed = run_in_process_of_its_own(name, "--json", tmp_path / "measured.json")
    assert_reports(printed, tmp_path / "measured.json", comparisons)


@pytest.mark.slow
def test_swin_unetr_scores_lie_within_their_intervals(tmp_path):
    for package in ("monai", "nilearn"):
        pytest.importorskip(package, reason=EXTRAS)
    printed = run_in_process_of_its_own("swin_unetr", "--json", tmp_path / "scores.json")
    assert "SwinUNETR on 1 test patient: wt/dice" in printed
    row = json.loads((tmp_path / "scores.json").read_text())["rows"][0]
    assert row["kind"] == "comparison"
    dice = row["scores"]["wt/dice"]
    assert 0 <= dice["low"] <= dice["mean"] <= dice["high"] <= 1
