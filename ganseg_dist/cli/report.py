"""`ganseg report`: the HTML report of a run or a sweep."""

from __future__ import annotations

from ganseg_dist.cli import show
from ganseg_dist.cli.options import RUN


def report(run: str = RUN) -> None:
    """Write the report of a run, or of a sweep, on one page.

    RUN/report.html, self-contained: curves, overlays, tables and how to repeat the run. What the run does not have
    yet, such as an evaluation, is left out.

    Pictures show the patient's left on the right (radiological), or with GANSEG_DISPLAY=neurological on the left; each
    names its convention.
    """
    from ganseg_dist.cli.models import check_not_experiment
    from ganseg_dist.cli.remote_runs import fetch_runs
    from ganseg_dist.report.page import write_report
    from ganseg_dist.runs import find_run
    from ganseg_dist.studies.study import find_study
    from ganseg_dist.studies.sweeps.publish import write_page
    from ganseg_dist.studies.sweeps.sweep import Sweep
    from ganseg_dist.tracking.results import log_report

    fetch_runs(run)
    check_not_experiment(run)
    sweep = find_study(run, "sweep")
    if sweep is not None:
        show.echo(str(write_page(Sweep.of(sweep))))
        return
    found = find_run(run)
    page = write_report(found)
    log_report(found, page)
    show.echo(str(page))
