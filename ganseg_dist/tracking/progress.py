"""Shows the progress of a run: a bar on a terminal, a line an epoch anywhere else."""

from __future__ import annotations

from collections.abc import Mapping

from rich.progress import BarColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column

from ganseg_dist.console import PlainColumn, PlainConsole
from ganseg_dist.engine.tracker import Progress, Tracker


class RichProgress(Tracker):
    """Shows a run on standard error. Rich draws in its own thread, so being called often costs little."""

    def __init__(self, console: PlainConsole | None = None) -> None:
        self.console = console or PlainConsole(stderr=True)
        self.bar = Bar(
            PlainColumn("{task.description}"),
            BarColumn(bar_width=16, table_column=Column(no_wrap=True)),
            PlainColumn("{task.fields[where]}"),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            PlainColumn("left"),
            # On a narrow terminal the scores alone are folded.
            PlainColumn("{task.fields[scores]}", table_column=Column()),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.last: Progress | None = None

    def progress(self, progress: Progress) -> None:
        """Move the bar; a bar counts the batches of a whole stage."""
        previous, self.last = self.last, progress
        if not self.bar.disable:
            self._update_bar(progress, new_stage=previous is None or previous.stage != progress.stage)

    def epoch(self, step: int, scores: Mapping[str, float]) -> None:
        """Write the finished epoch's line, where there is no bar."""
        if self.last is None or not self.bar.disable:
            return
        stage = self.last.stage
        named = {name.removeprefix(f"{stage}/"): value for name, value in scores.items()}
        # Validation scores first, then losses, which have their phase before them.
        ordered = sorted(named, key=lambda name: "/" in name)
        values = "  ".join(f"{name} {named[name]:.4g}" for name in ordered)
        line = f"{stage} epoch {self.last.epoch + 1}/{self.last.epochs}  {values}".rstrip()
        self.console.print(line, soft_wrap=True)

    def warn(self, step: int, warning: str) -> None:
        """Write the warning on a new line, above the bar where there is one."""
        self.console.print(f"warning: {warning}", soft_wrap=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self.bar.stop()

    def _update_bar(self, progress: Progress, *, new_stage: bool) -> None:
        """Rich estimates the time left from the progress since the task began, so a resumed stage begins part way."""
        done = progress.epoch * progress.batches + progress.batch
        if new_stage:
            for task in self.bar.task_ids:
                self.bar.remove_task(task)
            total = progress.epochs * progress.batches
            self.bar.add_task(progress.stage, total=total, completed=done, where="", scores="")
            self.bar.start()
        self.bar.update(
            self.bar.task_ids[0],
            completed=done,
            description=f"{progress.stage} epoch {progress.epoch + 1}/{progress.epochs}",
            where=f"{progress.unit} {progress.batch}/{progress.batches}{progress.note and f', {progress.note}'}",
            scores="  ".join(f"{name} {value:.3f}" for name, value in progress.scores.items()),
        )
