"""An experiment's outcomes as a table with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ganseg_dist.atomic import write_csv, write_file, write_json
from ganseg_dist.errors import DataError
from ganseg_dist.experiments.measures import Measure, RowSets
from ganseg_dist.experiments.run import Outcome
from ganseg_dist.metrics.statistics import FEWEST_FOR_WILCOXON, Interval, PairedComparison

REPEATED = ("seed", "fold", "patients")
"""Labels that repeat a row rather than tell it from others."""


@dataclass(frozen=True, slots=True)
class Row:
    """Outcomes that differ in their seed or fold alone."""

    labels: dict[str, Any]
    runs: int
    scores: dict[str, Interval]
    """95% intervals over test patients; n counts patients."""
    seconds: float
    """Mean wall time of a run."""
    reference: str = ""
    """The row of the same setting that stands first; empty for itself."""
    against: Mapping[str, PairedComparison] = field(default_factory=dict)
    """Each score less the reference's, over the same patients."""
    published: Mapping[str, float] = field(default_factory=dict)
    """What the paper prints for this setting, of its own images."""

    @property
    def title(self) -> str:
        """Its labels in a line."""
        return title_of(self.labels)


def title_of(labels: Mapping[str, Any]) -> str:
    """Labels in a line; those that say nothing are left out."""
    return ", ".join(str(value) for value in labels.values() if value != "")


def tabulate(
    outcomes: Sequence[Outcome],
    measures: Sequence[Measure],
    published: Mapping[Any, Mapping[str, float]] | None = None,
    *,
    published_by: str = "",
    compared: Sequence[str] = ("arm",),
) -> list[Row]:
    """Rows in the order in which they first appear.

    Args:
        measures: those that some row of the outcomes lacks the numbers for are left out.
        published: by the value of the label `published_by`.
        compared: labels that may differ between a row and the first that it is compared with; the others are the
            setting that both share.

    Raises DataError when the outcomes have numbers for none of the measures.
    """
    numbers = [row.scores.keys() for outcome in outcomes for row in outcome.rows]
    there = set(numbers[0]).intersection(*numbers[1:]) if numbers else set()
    known = [measure for measure in measures if there.issuperset(measure.needs)]
    if not known:
        wanted = ", ".join(measure.name for measure in measures)
        raise DataError(f"test patients: have no {wanted} in common; give cases with the same labels")
    groups: dict[tuple[Any, ...], list[Outcome]] = {}
    for outcome in outcomes:
        key = tuple((name, value) for name, value in outcome.labels.items() if name not in REPEATED)
        groups.setdefault(key, []).append(outcome)
    first_of: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    rows = []
    for key, members in groups.items():
        first = first_of.setdefault(tuple(pair for pair in key if pair[0] not in compared), key)
        sets, others = _by_seed(members), _by_seed(groups[first])
        rows.append(
            Row(
                dict(key),
                len(members),
                {measure.name: measure.interval(sets) for measure in known},
                float(np.mean([member.seconds for member in members])),
                "" if first == key else title_of({name: value for name, value in first if name in compared}),
                {} if first == key else {measure.name: measure.difference(sets, others) for measure in known},
                (published or {}).get(dict(key).get(published_by), {}),
            )
        )
    return rows


def _by_seed(members: Sequence[Outcome]) -> RowSets:
    """The rows of each repetition; folds have other patients, and are one set together."""
    sets: dict[Any, list[Any]] = {}
    for member in members:
        sets.setdefault(member.labels.get("seed"), []).extend(member.rows)
    return list(sets.values())


def header_and_cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """For a terminal; of the differences the first score's alone."""
    labels, scores = list(rows[0].labels), list(rows[0].scores)
    published = list(dict.fromkeys(name for row in rows for name in row.published))
    references = list(dict.fromkeys(row.reference for row in rows if row.reference))
    less = [f"{scores[0]} less {references[0]}"] if references else []
    header = [*labels, "runs", "n", *scores, *less, *(f"published {name}" for name in published)]
    cells = []
    for row in rows:
        cells.append(
            [
                *(str(row.labels[name]) for name in labels),
                str(row.runs),
                str(row.scores[scores[0]].n),
                *(shown(row.scores[score]) for score in scores),
                *(_difference(row.against.get(scores[0])) for _ in less),
                *(f"{row.published[name]:.4g}" if name in row.published else "-" for name in published),
            ]
        )
    return header, cells


def means(rows: Sequence[Row]) -> dict[str, float]:
    """Each score's mean by score and row, as `wt/dice/fraction 50 both`, in names without commas.

    A row is called by as few of its labels, from the first, as tell all rows apart.
    """
    labels = list(rows[0].labels)
    enough = next(n for n in range(1, len(labels) + 1) if len({_called(row, labels[:n]) for row in rows}) == len(rows))
    return {
        f"{score}/{_called(row, labels[:enough])}": interval.mean
        for score in rows[0].scores
        for row in rows
        for interval in [row.scores[score]]
    }


def _called(row: Row, labels: Sequence[str]) -> str:
    """Words by themselves, numbers with what they count."""
    said = {name: row.labels[name] for name in labels if row.labels[name] != ""}
    words = (value if isinstance(value, str) else f"{name} {value}" for name, value in said.items())
    return " ".join(words).replace(",", "")


def markdown(title: str, rows: Sequence[Row]) -> str:
    """The table under its title, as Markdown."""
    header, cells = header_and_cells(rows)
    lines = [header, ["---"] * len(header), *cells]
    return f"{title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def save_table(folder: Path, rows: Sequence[Row], figure: Figure) -> tuple[Path, Path, Path]:
    """Write table.csv, table.json and figure.png; returns their paths.

    Raises GansegError when the disk refuses.
    """
    table, data, drawn = (folder / name for name in ("table.csv", "table.json", "figure.png"))
    write_csv(table, [_flat(row) for row in rows])
    write_json(data, [asdict(row) for row in rows])
    write_file(drawn, lambda unfinished: FigureCanvasAgg(figure).print_png(str(unfinished)))
    return table, data, drawn


def shown(interval: Interval) -> str:
    """A mean with its interval."""
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _flat(row: Row) -> dict[str, Any]:
    """A line of table.csv."""
    flat: dict[str, Any] = {**row.labels, "runs": row.runs, "seconds": round(row.seconds, 1)}
    for score, interval in row.scores.items():
        flat |= {f"{score}_{end}": value for end, value in asdict(interval).items()}
    for score, comparison in row.against.items():
        flat |= {f"{score}_less_first_{end}": getattr(comparison.difference, end) for end in ("mean", "low", "high")}
        flat[f"{score}_less_first_p"] = comparison.p_value
    return flat | {f"published_{name}": value for name, value in row.published.items()}


def _difference(comparison: PairedComparison | None) -> str:
    if comparison is None:
        return ""
    interval = comparison.difference
    verdict = "" if comparison.differs else " (none shown)"
    if interval.n < FEWEST_FOR_WILCOXON:  # resamples of so few are hardly ever on both sides of 0
        verdict = " (too few patients)"
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]{verdict}"
