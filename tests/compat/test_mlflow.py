"""The undocumented names of MLflow that compat/mlflow.py touches."""

from pathlib import Path

import mlflow.server
import pytest
from mlflow.exceptions import MlflowException

from ganseg_dist.compat.mlflow import EXPERIMENT_KIND, MISSING, system_monitors
from ganseg_dist.tracking.connection import connect, sqlite_uri


def test_a_run_that_the_store_does_not_have_is_missing(tmp_path):
    with pytest.raises(MlflowException) as raised:
        connect(sqlite_uri(tmp_path / "mlflow.db")).update_run("0" * 32, status="RUNNING")
    assert raised.value.error_code == MISSING


def test_mlflows_pages_know_the_kind_of_an_experiment():
    pages = Path(mlflow.server.__file__).parent / "js" / "build" / "static" / "js"
    (script,) = pages.glob("main.*.js")
    text = script.read_text(encoding="utf-8")
    assert all(word in text for word in (*EXPERIMENT_KIND.keys(), *EXPERIMENT_KIND.values()))


def test_the_processors_monitor_measures_percentages():
    monitor = system_monitors()[0]
    monitor.collect_metrics()
    measured = monitor.aggregate_metrics()
    assert {"cpu_utilization_percentage", "system_memory_usage_percentage"} <= measured.keys()
    monitor.clear_metrics()
