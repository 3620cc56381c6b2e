"""The tracker that writes to MLflow from rank 0, wherever that runs."""

from __future__ import annotations

import logging
import math
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ganseg_dist.compat.mlflow import system_monitors
from ganseg_dist.display import Convention
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.tracking.connection import connect
from ganseg_dist.tracking.description import metric_name
from ganseg_dist.tracking.outbox import Outbox, Parcel
from ganseg_dist.tracking.overlay import examples_png
from ganseg_dist.tracking.tracked_run import TrackedRun

if TYPE_CHECKING:
    from mlflow import MlflowClient

SAMPLE_SECONDS = 10.0

POINTS_A_CALL = 1000
LONGEST_TAG = 5000
Point = tuple[str, float, int]
"""A metric's name, value and step."""

logger = logging.getLogger(__name__)


class SystemMetrics:
    """Samples processor, memory and GPU every few seconds, and once more when it is closed.

    MLflow's SystemMetricsMonitor ends at the first request that fails; here samples are sent like the run's other
    metrics and survive an outage.
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


class MLflowTracker(Tracker):
    """Writes to an existing run. Training never waits: the outbox sends in its own thread."""

    def __init__(self, tracked: TrackedRun, convention: Convention) -> None:
        self._uri, self._run_id, self._convention = tracked.uri, tracked.run_id, convention
        self._outbox = Outbox(tracked.destination, self._is_reachable)
        self._system = SystemMetrics(self._post_system)

    @classmethod
    def of(cls, tracked: TrackedRun, convention: Convention = Convention.RADIOLOGICAL) -> Tracker:
        """The tracker of a run from `open_tracking`; one that ignores all where the run is untracked."""
        return Tracker() if tracked.run_id is None else cls(tracked, convention)

    def steps(self, first_step: int, values: Mapping[str, list[float]]) -> None:
        """Log per-step losses by name; a phase that did not step leaves no point."""
        self._post(
            (name, value, first_step + index) for name, series in values.items() for index, value in enumerate(series)
        )

    def epoch(self, step: int, scores: Mapping[str, float]) -> None:
        """Log an epoch's scores, at the step after its last."""
        self._post((name, value, step) for name, value in scores.items())

    def examples(
        self, step: int, stage: str, pictures: Mapping[str, npt.NDArray[Any]], sides_known: npt.NDArray[np.bool_]
    ) -> None:
        """Log overlays as `examples/STAGE/step-N.png`."""
        try:
            png = examples_png(pictures, sides_known, self._convention)
        except (KeyError, ValueError) as error:
            logger.warning("no example pictures at step %d: %s", step, error)
            return
        file = Path("examples", stage, f"step-{step:07d}.png")
        self._outbox.put(Parcel("pictures", 1, partial(self._send_file, file, png)))

    def warn(self, step: int, warning: str) -> None:
        """Set a tag, which the list of runs shows, to the newest warning."""
        text = f"step {step}: {warning}"[:LONGEST_TAG]
        self._outbox.put(Parcel("warnings", 1, lambda: self._client.set_tag(self._run_id, "warning", text)))

    def close(self) -> None:
        """Send what waits, for a bounded time, and log what was lost."""
        self._system.close()
        self._outbox.close()

    @cached_property
    def _client(self) -> MlflowClient:
        """Made in the outbox's thread: opening a store takes seconds, and may fail."""
        return connect(self._uri)

    def _is_reachable(self) -> bool:
        try:
            self._client.get_run(self._run_id)
        except Exception:
            return False
        return True

    @cached_property
    def _run_began(self) -> int:
        """The run's first start in milliseconds, before any resumption."""
        return int(self._client.get_run(self._run_id).info.start_time)

    def _post(self, points: Iterable[Point]) -> None:
        """Queue the finite points. They get their time here: a call repeated after a lost reply then adds nothing."""
        now = int(time.time() * 1000)
        finite = [point for point in points if math.isfinite(point[1])]
        for start in range(0, len(finite), POINTS_A_CALL):
            batch = finite[start : start + POINTS_A_CALL]
            self._outbox.put(Parcel("metrics", len(batch), partial(self._send_points, batch, now)))

    def _post_system(self, sample: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self._outbox.put(Parcel("metrics", len(sample), partial(self._send_system, sample, now)))

    def _send_points(self, points: list[Point], timestamp: int) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(metric_name(name), value, timestamp, step) for name, value, step in points]
        self._client.log_batch(self._run_id, metrics=metrics)

    def _send_system(self, sample: Mapping[str, float], timestamp: int) -> None:
        """A machine metric's step is the run's age in seconds."""
        age = (timestamp - self._run_began) // 1000
        self._send_points([(name, value, age) for name, value in sample.items()], timestamp)

    def _send_file(self, file: Path, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            local = Path(temporary, file.name)
            local.write_bytes(content)
            self._client.log_artifact(self._run_id, str(local), file.parent.as_posix())
