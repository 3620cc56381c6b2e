"""Publish an experiment's table to its folder, to MLflow and to the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ganseg_dist.cli import show

if TYPE_CHECKING:
    from ganseg_dist.data.cohort import Cohort
    from ganseg_dist.plots import Figure
    from ganseg_dist.studies.experiments.table import Row
    from ganseg_dist.studies.study import Study
    from ganseg_dist.tracking.tracked_run import TrackedRun


def cohort_title(cohort: Cohort) -> str:
    """The cohort's name, marked where it is a phantom or synthetic."""
    kind = " (phantom)" if cohort.phantom else " (synthetic)" if cohort.synthetic else ""
    return f"{cohort.root.name}{kind}"


@contextmanager
def ending(parent: TrackedRun) -> Iterator[None]:
    """End the experiment's parent run in MLflow as FINISHED, or as FAILED when the block raises."""
    try:
        yield
    except BaseException:
        parent.end("FAILED")
        raise
    parent.end("FINISHED")


def publish(
    study: Study,
    parent: TrackedRun,
    rows: Sequence[Row],
    figure: Figure,
    title: str,
    *more: Path,
    metrics: Mapping[str, float] | None = None,
) -> None:
    """Write table and figure to the folder, to MLflow and to the terminal.

    MLflow also gets `more` files of the experiment, which exist already, and `metrics` besides the rows' means.
    """
    from ganseg_dist.studies.experiments.table import header_and_cells, heading, markdown, means, save_table
    from ganseg_dist.tracking.results import log_experiment

    files = (*save_table(study.folder, rows, figure), *more)
    caption = heading(title, rows)
    log_experiment(parent, means(rows) | dict(metrics or {}), markdown(caption, rows), files)
    show.table(caption, *header_and_cells(rows))
    show.echo(f"written: {', '.join(map(str, files))}")
