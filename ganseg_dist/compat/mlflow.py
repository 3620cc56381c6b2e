"""Undocumented parts of MLflow, written against MLflow 3.17."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

EXPERIMENT_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Tag of an experiment; without it MLflow's pages show it as one for language models, and hide the runs."""
MISSING = "RESOURCE_DOES_NOT_EXIST"
"""`MlflowException.error_code` for a run that the store does not have."""


def system_monitors() -> list[Any]:
    """MLflow's monitors that work here: those of a GPU need one, and nvidia-ml-py.

    Each has `collect_metrics()`, `aggregate_metrics()` (name to mean since the last clearing) and `clear_metrics()`.
    The documented way to them, `mlflow.enable_system_metrics_logging`, ends at the first request that fails.
    """
    monitors: list[Any] = []
    with suppress(ImportError):
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor

        monitors.append(CPUMonitor())
    with suppress(ImportError, RuntimeError):
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

        monitors.append(GPUMonitor())
    return monitors
