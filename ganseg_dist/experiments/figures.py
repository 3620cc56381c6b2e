"""A table's rows as a figure."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from ganseg_dist.experiments.table import Row

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's, apart for every kind of colour vision."""


def curves(rows: Sequence[Row], x: str, title: str) -> Figure:
    """The first score against how much of the training patients was given, label `x`: a line an arm, with intervals,
    and the published figures dashed.
    """
    score = next(iter(rows[0].scores))
    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    arms = list(dict.fromkeys(row.labels["arm"] for row in rows))
    for number, arm in enumerate(arms):
        own = [row for row in rows if row.labels["arm"] == arm]
        places = [row.labels[x] + 0.6 * (number - (len(arms) - 1) / 2) for row in own]
        intervals = [row.scores[score] for row in own]
        means = [interval.mean for interval in intervals]
        below = [interval.mean - interval.low for interval in intervals]
        above = [interval.high - interval.mean for interval in intervals]
        colour = COLOURS[number % len(COLOURS)]
        axes.errorbar(places, means, yerr=[below, above], fmt="-o", color=colour, capsize=3, label=arm)
    name = _published_name(score)
    told = {row.labels[x]: row.published[name] for row in rows if name in row.published}
    if told:
        axes.plot(list(told), list(told.values()), color="0.6", linestyle="--", label="published, other images")
    axes.set_xlabel(f"{x} of the training patients")
    axes.set_ylabel(score)
    axes.legend(frameon=False)
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def intervals(rows: Sequence[Row], title: str) -> Figure:
    """A panel a score, in it a line a row: mean, interval, and what is published hollow."""
    scores = list(rows[0].scores)
    figure = Figure(figsize=(3.5 + 2.1 * len(scores), 1.9 + 0.3 * len(rows)), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for axes, score in zip(panels, scores, strict=True):
        for place, row in enumerate(rows):
            interval = row.scores[score]
            axes.plot([interval.low, interval.high], [place, place], color=COLOURS[0])
            axes.plot([interval.mean], [place], "o", color=COLOURS[0], markersize=5)
        name = _published_name(score)
        told = {place: row.published[name] for place, row in enumerate(rows) if name in row.published}
        axes.plot(list(told.values()), list(told), "D", color="0.45", fillstyle="none")
        if len(rows) > 1 and sum(not row.reference for row in rows) == 1:  # all are compared with the first
            axes.axvline(rows[0].scores[score].mean, color="0.8", linewidth=1, zorder=0)
        axes.set_xlabel(score)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(rows)), [row.title for row in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    note = "; hollow: published, other images" if any(row.published for row in rows) else ""
    n = rows[0].scores[scores[0]].n
    figure.suptitle(f"{title}\nmean and 95% interval over {n} patients{note}", x=0.01, ha="left", fontsize=10)
    return figure


def _published_name(score: str) -> str:
    """Papers name no region."""
    return score.rpartition("/")[2]
