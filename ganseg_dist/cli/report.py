"""`ganseg report`: one page to look at."""

from __future__ import annotations

import typer


def report(run: str = typer.Argument(help="A run's name, folder or MLflow id.")) -> None:
    """Write the run's report: one self-contained HTML page with curves, overlays, tables and how to repeat it."""
    from ganseg_dist.report import write_report
    from ganseg_dist.runs import find_run
    from ganseg_dist.tracking.results import log_report

    found = find_run(run)
    page = write_report(found)
    log_report(found, page)
    typer.echo(str(page))
