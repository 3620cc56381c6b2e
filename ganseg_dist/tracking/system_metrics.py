"""Samples how busy the machine is while it trains, with MLflow's own monitors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from ganseg_dist.compat.mlflow import system_monitors

SAMPLE_SECONDS = 10.0


class SystemMetrics:
    """Samples processor, memory and GPU every few seconds, and once more when it is closed.

    MLflow's SystemMetricsMonitor itself ends at the first request that fails; here samples take the way of the
    run's other metrics, and survive an outage with them.
    """

    def __init__(self, post: Callable[[Mapping[str, float]], None], seconds: float = SAMPLE_SECONDS) -> None:
        """`post` receives names as MLflow writes them (`system/cpu_utilization_percentage`), in their units."""
        self._post, self._seconds = post, seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work, name="ganseg-system-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take the last sample and stop."""
        self._done.set()
        self._thread.join(timeout=self._seconds)

    def _work(self) -> None:
        monitors = system_monitors()
        self._sample(monitors)  # the first reading only starts the processor's clock: its load counts from here
        over = False
        while not over:
            over = self._done.wait(self._seconds)
            self._post(self._sample(monitors))

    def _sample(self, monitors: list[Any]) -> dict[str, float]:
        sample: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            sample |= {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        return sample
