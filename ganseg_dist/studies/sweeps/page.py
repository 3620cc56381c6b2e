"""The HTML report of a sweep."""

from __future__ import annotations

import base64
from collections import Counter
from pathlib import Path

from ganseg_dist.atomic import write_text
from ganseg_dist.plural import counted
from ganseg_dist.report.environment import page_environment
from ganseg_dist.studies.sweeps.importance import ENOUGH_FOR_IMPORTANCE
from ganseg_dist.studies.sweeps.publish import chosen_by, table_of
from ganseg_dist.studies.sweeps.sweep import Sweep

TITLES = {
    "curves": "How the trials learnt",
    "slices": "The score over each threshold: the first trial and the best in colour",
    "parallel": "Which values were good: an axis a field that was varied, a line a trial, the best in colour",
    "importance": "Which fields matter",
    "pareto": "What trades against what",
}


def write_page(sweep: Sweep) -> Path:
    """Write report.html, self-contained, into the sweep's folder, with the figures that exist there.

    Raises RunError when no trial was scored.
    """
    folder, request = sweep.folder, sweep.request
    pictures = [
        (title, base64.b64encode((folder / f"{name}.png").read_bytes()).decode())
        for name, title in TITLES.items()
        if (folder / f"{name}.png").exists()
    ]
    header, rows = table_of(sweep)
    page = (
        page_environment("studies/sweeps", "report")
        .get_template("sweep.html.j2")
        .render(
            name=sweep.run.name,
            patients=counted(sweep.patients, "validation patient"),
            chosen=chosen_by(sweep),
            metrics=sweep.metrics,
            recipe=request["config"]["recipe"],
            space=sweep.space,
            phantom=request["phantom"],
            of_run=request.get("run"),
            next_command=sweep.next_command,
            privacy=request.get("privacy"),
            states=[(count, state) for state, count in Counter(trial.state for trial in sweep.trials).items()],
            trials=sweep.trials,
            first=sweep.trials[0],
            best=sweep.best,
            pictures=pictures,
            importance=(folder / "importance.png").exists(),
            enough=ENOUGH_FOR_IMPORTANCE,
            header=header,
            rows=rows,
        )
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"
