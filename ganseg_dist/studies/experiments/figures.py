"""A table's rows as a figure: means with 95% intervals, and beside them the differences to the reference row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ganseg_dist.metrics.statistics import Interval
from ganseg_dist.plots import Figure, comparisons
from ganseg_dist.plots.comparisons import Meaning, Panel, amount_figure, row_figure
from ganseg_dist.plural import counted
from ganseg_dist.report.section import interval_bar
from ganseg_dist.studies.experiments.table import SHARED_TRAINING, Row, describe_subjects, label_text, row_title


def intervals(rows: Sequence[Row], title: str) -> Figure:
    """A panel per score with a line per row; the second panel is the first score's difference to the reference row.

    Rows that differ in their arm and in other labels are grouped by the latter, with a colour per arm.
    """
    panels = [_score_panel(rows, score) for score in rows[0].scores]
    panels[1:1] = _difference_panel(rows)
    same_n = len({_first(row).n for row in rows}) == 1
    grouped, names = _is_grouped(rows), _arm_names(rows)
    plotted = []
    for row in rows:
        label = (_group(row) if grouped else row.title) + ("" if same_n else f" (n = {_first(row).n})")
        series = names.index(row.labels["arm"]) if grouped else 0
        plotted.append(comparisons.Row(label, _group(row), series, minor=row.fold))
    return row_figure(_title(rows, title), plotted, panels, list(_legend(rows)))


def curves(rows: Sequence[Row], x: str, title: str) -> Figure:
    """The first score against the label `x`, the share of training patients: a line per arm, with intervals.

    Beside it the differences to the first arm, where there are several.
    """
    panels = [_score_panel(rows, next(iter(rows[0].scores))), *_difference_panel(rows)]
    names = _arm_names(rows)
    plotted = []
    for row in rows:
        amount, count = float(row.labels[x]), row.labels.get("patients")
        label = f"{amount:g}%" + ("" if count is None else f"\n({count})")
        plotted.append(comparisons.Row(label, "", names.index(row.labels["arm"]) if names else 0, amount))
    label = "share of the training patients" + (" (number)" if "patients" in rows[0].labels else "")
    return amount_figure(_title(rows, title), label, plotted, panels, list(_legend(rows, differences=False)))


def _score_panel(rows: Sequence[Row], score: str) -> Panel:
    compared = len(rows) > 1 and sum(not row.reference for row in rows) == 1  # all are compared with the first
    return Panel(
        rows[0].titles[score],
        [interval_bar(row.title, row.scores[score], emphasised=True) for row in rows],
        published=[row.published.get(score.rpartition("/")[2]) for row in rows],  # papers name no region
        reference=rows[0].scores[score].mean if compared else None,
    )


def _difference_panel(rows: Sequence[Row]) -> Iterator[Panel]:
    """Paired differences of the first score, if any, emphasised where the rows differ significantly."""
    score = next(iter(rows[0].scores))
    pairs = [row.against.get(score) for row in rows]
    if any(pairs):
        bars = [
            None if pair is None else interval_bar(row.title, pair.difference, emphasised=bool(pair.differs))
            for row, pair in zip(rows, pairs, strict=True)
        ]
        references = dict.fromkeys(row.reference for row in rows if row.reference)
        yield Panel(f"{rows[0].titles[score]} less {' or '.join(references)}", bars, difference=True)


def _first(row: Row) -> Interval:
    return next(iter(row.scores.values()))


def _group(row: Row) -> str:
    """Name of a row's group, which its rows share: all labels but the arm, or the first label."""
    if "arm" in row.labels and len(row.labels) > 1:
        return row_title({name: value for name, value in row.labels.items() if name != "arm"})
    return "folds" if row.fold else str(next(iter(row.labels.values())))


def _is_grouped(rows: Sequence[Row]) -> bool:
    labels = rows[0].labels
    return "arm" in labels and len(labels) > 1 and len({_group(row) for row in rows}) > 1 and len(_arm_names(rows)) > 1


def _arm_names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.labels["arm"] for row in rows if "arm" in row.labels))


def _title(rows: Sequence[Row], title: str) -> str:
    """The figure's title: the experiment, the number of test patients, and the seeds per row."""
    counts = sorted({_first(row).n for row in rows if not row.fold})
    known = all(row.patients_known for row in rows)
    over = describe_subjects(counts[-1], patients_known=known)
    if len(counts) > 1:
        over = f"{counts[0]} to {over}"
    runs = {row.runs for row in rows if not row.fold}
    folds = any(row.fold for row in rows)
    seeds = f"; {counted(min(runs), 'seed')}" if len(runs) == 1 and not folds and min(runs) > 1 else ""
    what = "Mean and 95% interval over" if counts[-1] > 1 else "Mean of"
    shared = f"\n{SHARED_TRAINING}" if folds else ""
    return f"{title}\n{what} {over}{seeds}{shared}"


def _legend(rows: Sequence[Row], *, differences: bool = True) -> Iterator[Meaning]:
    coloured = _is_grouped(rows)
    if coloured:
        for number, name in enumerate(_arm_names(rows)):
            yield Meaning(label_text({"arm": name}, "arm"), number)
    else:
        yield Meaning("all folds together" if rows[0].labels.get("fold") else "mean and 95% interval")
    if any(row.fold for row in rows):
        yield Meaning("a single fold", "muted", size=4)
    pairs = [pair for row in rows for pair in list(row.against.values())[:1]] if differences else []
    if any(pair.differs for pair in pairs):
        text = "difference shown: its interval leaves 0 out, and sign flips agree"
        yield Meaning(text, "ink" if coloured else 0, line=False)
    if not all(pair.differs for pair in pairs):
        few = ", or too few patients to compare" if any(pair.differs is None for pair in pairs) else ""
        yield Meaning(f"no difference shown{few}", "ink" if coloured else 0, line=False, hollow=True)
    if any(row.published for row in rows):
        yield Meaning("published, of other images; a triangle: beyond the axis", "muted", "D", line=False, hollow=True)
