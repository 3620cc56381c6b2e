"""How an experiment's table is published: to its folder, to MLflow and to the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ganseg_dist.cli import show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ganseg_dist.data.cohort import Cohort
    from ganseg_dist.runs import Run
    from ganseg_dist.studies.experiments.table import Row
    from ganseg_dist.tracking.tracked_run import TrackedRun


def called(cohort: Cohort) -> str:
    """The cohort's name, and that it is of no patients where it is not."""
    kind = " (phantom)" if cohort.phantom else " (synthetic)" if cohort.synthetic else ""
    return f"{cohort.root.name}{kind}"


@contextmanager
def ending(parent: TrackedRun) -> Iterator[None]:
    """The experiment's run in MLflow ends as its table does."""
    try:
        yield
    except BaseException:
        parent.end("FAILED")
        raise
    parent.end("FINISHED")


def publish(
    found: Run,
    parent: TrackedRun,
    rows: Sequence[Row],
    figure: Figure,
    title: str,
    *more: Path,
    metrics: Mapping[str, float] | None = None,
) -> None:
    """Table and figure to the folder, to MLflow and to the terminal.

    Args:
        more: files that belong to it, and are there.
        metrics: what MLflow is told beside the rows' means.
    """
    from ganseg_dist.studies.experiments.table import header_and_cells, markdown, means, save_table
    from ganseg_dist.tracking.results import log_experiment

    files = (*save_table(found.folder, rows, figure), *more)
    told = heading(title, rows)
    log_experiment(parent, means(rows) | dict(metrics or {}), markdown(told, rows), files)
    show.table(told, *header_and_cells(rows))
    show.echo(f"written: {', '.join(map(str, files))}")


def heading(title: str, rows: Sequence[Row]) -> str:
    """What stands above a table."""
    from ganseg_dist.studies.experiments.wording import averaged_over

    return f"{title} ({averaged_over(patients_known=all(row.patients_known for row in rows))})"
