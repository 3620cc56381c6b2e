"""An experiment's results as a table with intervals, and the texts of its rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ganseg_dist.atomic import write_csv, write_file, write_json
from ganseg_dist.data.cohort import MODALITIES
from ganseg_dist.errors import DataError
from ganseg_dist.metrics.registry import find_score
from ganseg_dist.metrics.statistics import Interval, PairedComparison
from ganseg_dist.plots import Figure
from ganseg_dist.plots.save import save_png
from ganseg_dist.plural import counted
from ganseg_dist.printable import printable_markdown
from ganseg_dist.report.score_text import NOTHING, in_a_sentence, modality_label, score_label
from ganseg_dist.studies.experiments.measures import Measure, RowSets
from ganseg_dist.studies.trial import TrialResult

REPEATED = ("seed", "site model", "fold")
"""Labels that number the repetitions of a row rather than distinguish rows."""

SETTINGS = {"percentage": "% of training patients", "patients": "patients trained", "perturbation": "change"}
"""Headers of labels whose name is not clear enough."""
ARM_NAMES = {"gan": "GAN"}
UNCHANGED = {"as they are": "images as they are"}
SHARED_TRAINING = "folds share training data, which the interval does not count"
WHOLE = "all"
"""Value of the fold label in the row of all folds together."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: results that differ only in the labels of `REPEATED`."""

    labels: dict[str, Any]
    runs: int
    scores: dict[str, Interval]
    """95% intervals over test patients; n counts patients."""
    seconds: float
    """Mean wall time of a run."""
    reference: str = ""
    """Title of the first row of the same setting; empty for that row itself."""
    against: Mapping[str, PairedComparison] = field(default_factory=dict)
    """Each score less the reference's, over the same patients."""
    published: Mapping[str, float] = field(default_factory=dict)
    """Scores that the paper prints for this setting, on its own images."""
    titles: Mapping[str, str] = field(default_factory=dict)
    """The scores' names for people."""
    patients_known: bool = True
    """False where n counts images, each of which counts as a patient."""
    fold: bool = False
    """Whether this is one fold, whose patients are part of an earlier row of all folds."""

    @property
    def title(self) -> str:
        """Its labels in a line."""
        return row_title(self.labels)


def tabulate(
    results: Sequence[TrialResult],
    measures: Sequence[Measure],
    published: Mapping[Any, Mapping[str, float]] | None = None,
    *,
    published_by: str = "",
    compared: Sequence[str] = ("arm",),
) -> list[Row]:
    """Rows in the order in which they first appear.

    Args:
        measures: measures whose numbers some row lacks are left out.
        published: published scores by the value of the label `published_by`.
        compared: labels that may differ between a row and the first that it is compared with; the others are the
            setting that both share.

    Raises DataError when the results have numbers for none of the measures.
    """
    numbers = [row.scores.keys() for result in results for row in result.rows]
    available = set(numbers[0]).intersection(*numbers[1:]) if numbers else set()
    scorable = [measure for measure in measures if available.issuperset(measure.needed)]
    if not scorable:
        names = ", ".join(measure.name for measure in measures)
        raise DataError(f"test patients: have no {names} in common; give cases with the same labels")
    groups: dict[tuple[Any, ...], list[TrialResult]] = {}
    for result in results:
        key = tuple((name, value) for name, value in result.values.items() if name not in REPEATED)
        groups.setdefault(key, []).append(result)
    first_of: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    published_scores = published or {}
    rows: list[Row] = []
    for key, members in groups.items():
        first = first_of.setdefault(tuple(pair for pair in key if pair[0] not in compared), key)
        row = replace(
            _row(dict(key), members, scorable), published=published_scores.get(dict(key).get(published_by), {})
        )
        if first != key:
            sets, others = _by_seed(members), _by_seed(groups[first])
            row = replace(
                row,
                reference=row_title({name: value for name, value in first if name in compared}),
                against={measure.name: measure.difference(sets, others) for measure in scorable},
            )
        rows += _with_folds(row, members, scorable)
    return rows


def _row(labels: dict[str, Any], members: Sequence[TrialResult], measures: Sequence[Measure]) -> Row:
    """A row without a comparison."""
    sets = _by_seed(members)
    return Row(
        labels,
        len(members),
        {
            measure.name: measure.interval(sets, sampled_seeds="site model" not in members[0].values)
            for measure in measures
        },
        float(np.mean([member.seconds for member in members])),
        titles={measure.name: measure.title for measure in measures},
        patients_known=all(member.patients_known for member in members),
    )


def _with_folds(row: Row, members: Sequence[TrialResult], measures: Sequence[Measure]) -> list[Row]:
    """A row, followed by a row per fold where its members are folds."""
    if not all("fold" in member.values for member in members):
        return [row]
    folds = [
        replace(_row({"fold": member.values["fold"], **row.labels}, [member], measures), fold=True)
        for member in members
    ]
    return [replace(row, labels={"fold": WHOLE, **row.labels}), *folds]


def _by_seed(members: Sequence[TrialResult]) -> RowSets:
    """The rows of each repetition; folds have different patients and together form one set."""
    sets: dict[Any, list[Any]] = {}
    for member in members:
        sets.setdefault((member.values.get("seed"), member.values.get("site model")), []).extend(member.rows)
    return list(sets.values())


def header_and_cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and cells for a terminal; differences only of the first score."""
    labels, scores, titles = list(rows[0].labels), list(rows[0].scores), rows[0].titles
    published = list(dict.fromkeys(name for row in rows for name in row.published))
    references = list(dict.fromkeys(row.reference for row in rows if row.reference))
    header = [
        *(SETTINGS.get(name, name) for name in labels),
        "runs",
        "n" if all(row.patients_known for row in rows) else "images, patients unknown",
        *(titles[score] for score in scores),
        *([f"{titles[scores[0]]} less {references[0]}"] if references else []),
        *(f"published {in_a_sentence(score_label(name))}" for name in published),
    ]
    cells = [
        [
            *(label_text(row.labels, name) for name in labels),
            str(row.runs),
            str(row.scores[scores[0]].n),
            *(interval_text(row.scores[score], score) for score in scores),
            *([difference_text(row.against.get(scores[0]), scores[0])] if references else []),
            *(f"{row.published[name]:.4g}" if name in row.published else NOTHING for name in published),
        ]
        for row in rows
    ]
    return header, cells


def means(rows: Sequence[Row]) -> dict[str, float]:
    """Each score's mean by score and row, as `wt/dice/fraction 50 both`, in names without commas.

    A row's name has as few of its labels, from the first, as make all names unique.
    """
    labels = list(rows[0].labels)
    enough = next(
        n for n in range(1, len(labels) + 1) if len({_row_name(row, labels[:n]) for row in rows}) == len(rows)
    )
    return {
        f"{score}/{_row_name(row, labels[:enough])}": row.scores[score].mean for score in rows[0].scores for row in rows
    }


def _row_name(row: Row, labels: Sequence[str]) -> str:
    """A row's name: values that are text, and numbers after their label's name."""
    values = {name: row.labels[name] for name in labels if row.labels[name] != ""}
    parts = (value if isinstance(value, str) else f"{name} {value}" for name, value in values.items())
    return " ".join(parts).replace(",", "")


def markdown(title: str, rows: Sequence[Row]) -> str:
    """The table under its title, as Markdown."""
    return f"{_in_markdown(title)}\n\n{markdown_table(*header_and_cells(rows))}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; text of cells is escaped, so that it neither ends a cell nor is HTML."""
    lines = [[*map(_in_markdown, header)], ["---"] * len(header), *([*map(_in_markdown, row)] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _in_markdown(text: str) -> str:
    return printable_markdown(text).replace("|", r"\|")


def save_table(folder: Path, rows: Sequence[Row], figure: Figure) -> tuple[Path, Path, Path]:
    """Write table.csv, table.json and figure.png; returns their paths.

    Raises GansegError when they cannot be written.
    """
    table, data, picture = (folder / name for name in ("table.csv", "table.json", "figure.png"))
    write_csv(table, [_csv_row(row) for row in rows])
    write_json(data, [asdict(row) for row in rows])
    write_file(picture, lambda unfinished: save_png(figure, unfinished))
    return table, data, picture


def interval_text(interval: Interval, score: str, sign: str = "") -> str:
    """A mean with its interval, with the score's decimals, signed by `+`; a dash where there is no interval."""
    number = f"{{:{sign}.{find_score(score).decimals}f}}".format
    bounds = f"[{number(interval.low)}, {number(interval.high)}]" if interval.known else NOTHING
    return f"{number(interval.mean)} {bounds}"


def _csv_row(row: Row) -> dict[str, Any]:
    line: dict[str, Any] = {**row.labels, "runs": row.runs, "seconds": round(row.seconds, 1)}
    for score, interval in row.scores.items():
        line |= ends(interval, f"{score}_") | {f"{score}_n": interval.n}
    for score, comparison in row.against.items():
        line |= differences(comparison, f"{score}_less_first_")
    if not row.patients_known:
        line["n_counts"] = "images"
    return line | {f"published_{name}": value for name, value in row.published.items()}


def ends(interval: Interval, prefix: str = "") -> dict[str, Any]:
    """Mean, low and high as cells of a CSV; low and high are None where there is no interval."""
    low, high = (interval.low, interval.high) if interval.known else (None, None)
    return {f"{prefix}mean": interval.mean, f"{prefix}low": low, f"{prefix}high": high}


def differences(comparison: PairedComparison, prefix: str) -> dict[str, Any]:
    """The difference, whether it is shown, and the p value of each test, as cells of a CSV."""
    tests = ("differs", "p_t", "p_sign_flip", "p_wilcoxon")
    return ends(comparison.difference, prefix) | {f"{prefix}{name}": getattr(comparison, name) for name in tests}


def difference_text(comparison: PairedComparison | None, score: str) -> str:
    """A difference with its interval and whether it is shown; empty where nothing is compared."""
    if comparison is None:
        return ""
    verdict = {True: "", False: " (none shown)", None: " (too few patients)"}[comparison.differs]
    return f"{interval_text(comparison.difference, score, '+')}{verdict}"


def label_text(labels: Mapping[str, Any], name: str) -> str:
    """One label's value, with its unit; empty where the label has none."""
    value = labels[name]
    match name:
        case "strength" if value != "":
            return _strength(str(labels.get("perturbation", "")), float(value))
        case "perturbation":
            parts = UNCHANGED.get(str(value), str(value)).split(" ")
            return " ".join(modality_label(part) if part in MODALITIES else part for part in parts)
        case "arm":
            return ARM_NAMES.get(str(value), str(value))
    return str(value)


def row_title(labels: Mapping[str, Any]) -> str:
    """A row's labels in a line; empty ones are left out."""
    if "fold" in labels:
        return "all folds" if labels["fold"] == WHOLE else f"fold {labels['fold']}"
    return ", ".join(text for name in labels if (text := label_text(labels, name)))


def describe_subjects(n: int, *, patients_known: bool) -> str:
    """Count of test patients, or of test images where their patients are unknown."""
    return counted(n, "test patient") if patients_known else f"{counted(n, 'test image')}, patients unknown"


def heading(title: str, rows: Sequence[Row]) -> str:
    """A table's title with what its numbers are: a mean with an interval over patients or images."""
    subjects = "test patients" if all(row.patients_known for row in rows) else "test images, patients unknown"
    return f"{title} (mean, 95% interval over {subjects})"


def _strength(kind: str, strength: float) -> str:
    """Strength as text: a bias field's largest gain, gamma's two exponents, noise as a share of the range."""
    factor = math.exp(strength)
    match kind:
        case "bias field":
            return f"gain up to {factor:.2f}"
        case "gamma":
            return f"exponent {factor:.2f} or {1 / factor:.2f}"
        case _:
            return f"{strength:g} of the range"
