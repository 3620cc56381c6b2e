"""An experiment's outcomes as a table with intervals, and as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ganseg_dist.atomic import write_csv, write_file, write_json
from ganseg_dist.experiments.run import Outcome
from ganseg_dist.metrics.statistics import Interval, PairedComparison, bootstrap_mean, compare_paired

REPEATED = ("seed", "fold", "patients")
"""Labels that repeat a row rather than tell it from others."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's, apart for every kind of colour vision."""


@dataclass(frozen=True, slots=True)
class Row:
    """Outcomes that differ in their seed or fold alone."""

    labels: dict[str, Any]
    runs: int
    scores: dict[str, Interval]
    """95% intervals over test patients; n counts patients."""
    against: PairedComparison | None
    """Less the first arm of the same setting, over the same patients."""
    seconds: float
    """Mean wall time of a run."""
    published: Mapping[str, float] | None = None
    """What the paper prints for this setting, of its own images."""


def tabulate(
    outcomes: Sequence[Outcome],
    scores: Sequence[str],
    published: Mapping[Any, Mapping[str, float]] | None = None,
    *,
    published_by: str = "",
) -> list[Row]:
    """Rows in the order in which they first appear.

    Args:
        scores: names as in CaseRow.scores; the first is compared between arms.
        published: by the value of the label `published_by`.
    """
    groups: dict[tuple[Any, ...], list[Outcome]] = {}
    for outcome in outcomes:
        key = tuple((name, value) for name, value in outcome.labels.items() if name not in REPEATED)
        groups.setdefault(key, []).append(outcome)
    first_of: dict[tuple[Any, ...], dict[str, float]] = {}
    rows = []
    for key, members in groups.items():
        cases = [row for member in members for row in member.rows]
        known = [score for score in scores if all(score in row.scores for row in cases)]
        patients = [row.patient for row in cases]
        by_patient = _means(members, known[0])
        setting = tuple(pair for pair in key if pair[0] != "arm")
        reference = first_of.setdefault(setting, by_patient)
        rows.append(
            Row(
                dict(key),
                len(members),
                {score: bootstrap_mean([row.scores[score] for row in cases], patients) for score in known},
                None if reference is by_patient else compare_paired(by_patient, reference),
                float(np.mean([member.seconds for member in members])),
                None if published is None else published.get(dict(key).get(published_by)),
            )
        )
    return rows


def _means(outcomes: Sequence[Outcome], score: str) -> dict[str, float]:
    """Each patient's mean over cases and seeds."""
    values: dict[str, list[float]] = {}
    for outcome in outcomes:
        for row in outcome.rows:
            values.setdefault(row.patient, []).append(row.scores[score])
    return {patient: float(np.mean(scores)) for patient, scores in values.items()}


def header_and_cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """For a terminal."""
    labels, scores = list(rows[0].labels), list(rows[0].scores)
    published = list(rows[0].published or {})
    header = [*labels, "runs", "n", *scores, "less the first arm", *(f"published {name}" for name in published)]
    cells = []
    for row in rows:
        shown = [f"{row.scores[s].mean:.3f} [{row.scores[s].low:.3f}, {row.scores[s].high:.3f}]" for s in scores]
        cells.append(
            [
                *(str(row.labels[name]) for name in labels),
                str(row.runs),
                str(row.scores[scores[0]].n),
                *shown,
                _difference(row.against),
                *(f"{(row.published or {}).get(name, float('nan')):.2f}" for name in published),
            ]
        )
    return header, cells


def save_table(folder: Path, rows: Sequence[Row], *, x: str | None, title: str) -> tuple[Path, Path]:
    """Write table.csv, table.json and figure.png; returns the table's and the figure's path.

    Raises GansegError when the disk refuses.
    """
    flat = [
        {**row.labels, "runs": row.runs, "seconds": round(row.seconds, 1)}
        | {f"{s}_{end}": v for s, interval in row.scores.items() for end, v in asdict(interval).items()}
        | {f"published_{name}": value for name, value in (row.published or {}).items()}
        for row in rows
    ]
    write_csv(folder / "table.csv", flat)
    write_json(folder / "table.json", [asdict(row) for row in rows])
    figure = _curves(rows, x, title) if x is not None else _intervals(rows, title)
    write_file(folder / "figure.png", lambda unfinished: FigureCanvasAgg(figure).print_png(str(unfinished)))
    return folder / "table.csv", folder / "figure.png"


def _curves(rows: Sequence[Row], x: str, title: str) -> Figure:
    """The first score against a label, a line an arm, with intervals, and the published figures dashed."""
    score = next(iter(rows[0].scores))
    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    arms = list(dict.fromkeys(row.labels["arm"] for row in rows))
    for number, arm in enumerate(arms):
        own = [row for row in rows if row.labels["arm"] == arm]
        places = [row.labels[x] + 0.6 * (number - (len(arms) - 1) / 2) for row in own]
        _draw(axes, places, [row.scores[score] for row in own], COLOURS[number % len(COLOURS)], arm, "-o")
    told = {row.labels[x]: row.published[score.rpartition("/")[2]] for row in rows if row.published}
    if told:
        axes.plot(list(told), list(told.values()), color="0.6", linestyle="--", label="published, other images")
    axes.set_xlabel(x)
    axes.set_ylabel(score)
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def _intervals(rows: Sequence[Row], title: str) -> Figure:
    """One line a row: the first score's mean and interval."""
    score = next(iter(rows[0].scores))
    figure = Figure(figsize=(7, 1.2 + 0.35 * len(rows)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        interval = row.scores[score]
        axes.plot([interval.low, interval.high], [place, place], color=COLOURS[0])
        axes.plot([interval.mean], [place], "o", color=COLOURS[0])
    axes.set_yticks(range(len(rows)), [", ".join(str(value) for value in row.labels.values()) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"{score}, mean and 95% interval over {rows[0].scores[score].n} patients")
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw(
    axes: Any, places: Sequence[float], intervals: Sequence[Interval], colour: str, label: str, form: str
) -> None:
    means = [interval.mean for interval in intervals]
    below = [interval.mean - interval.low for interval in intervals]
    above = [interval.high - interval.mean for interval in intervals]
    axes.errorbar(places, means, yerr=[below, above], fmt=form, color=colour, capsize=3, label=label)


def _difference(comparison: PairedComparison | None) -> str:
    if comparison is None:
        return ""
    interval = comparison.difference
    verdict = "" if comparison.differs else " (none shown)"
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]{verdict}"
