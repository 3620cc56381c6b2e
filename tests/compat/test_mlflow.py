"""The undocumented names of MLflow that compat/mlflow.py touches."""

from pathlib import Path

import mlflow.server
import pytest
from mlflow.exceptions import MlflowException

from ganseg_dist.compat.mlflow import EXPERIMENT_KIND, MISSING, system_monitors
from ganseg_dist.tracking.connection import connect, sqlite_uri


def test_update_run_error_code_is_missing_for_unknown_run(tmp_path):
    with pytest.raises(MlflowException) as raised:
        connect(sqlite_uri(tmp_path / "mlflow.db")).update_run("0" * 32, status="RUNNING")
    assert raised.value.error_code == MISSING


def test_experiment_kind_is_known_to_mlflow_pages():
    pages = Path(mlflow.server.__file__).parent / "js" / "build" / "static" / "js"
    (script,) = pages.glob("main.*.js")
    text = script.read_text(encoding="utf-8")
    assert all(word in text for word in (*EXPERIMENT_KIND.keys(), *EXPERIMENT_KIND.values()))


def test_system_monitors_measure_percentages():
    monitor = system_monitors()[0]
    monitor.collect_metrics()
    measured = monitor.aggregate_metrics()
    assert {"cpu_utilization_percentage", "system_memory_usage_percentage"} <= measured.keys()
    monitor.clear_metrics()
