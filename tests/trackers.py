"""A tracker that keeps what a terminal, a log and MLflow would get."""

from ganseg_dist.engine.tracker import Tracker


class WarningTracker(Tracker):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, step: int, warning: str) -> None:
        self.warnings.append(warning)
