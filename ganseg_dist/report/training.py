"""Training curves: what history.json says of each stage, as charts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from ganseg_dist.report.figures import Span, line_chart
from ganseg_dist.report.labels import counted, direction, joined, lower_is_better, region_label, score_label
from ganseg_dist.report.records import Epoch

Lines = dict[str, list[tuple[int, float]]]

WEIGHT = "weight_"
"""Dynamic weights stand among the losses as `phase/weight_term`."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure and the sentence under it."""

    title: str
    figure: str
    caption: str


@dataclass(frozen=True, slots=True)
class StageCurves:
    """One stage of training."""

    name: str
    epochs: int
    phases: tuple[str, ...]
    charts: tuple[Chart, ...]


def stage_curves(history: Sequence[Epoch], regions: Sequence[str], chooses: str | None = None) -> list[StageCurves]:
    """Losses, validation scores and dynamic weights of every stage, in the order they were trained.

    Args:
        chooses: the one score by which an epoch is kept, in the stages that have it; every score then has a chart of
            its own. None: a stage's scores are of one kind, share a chart, and their mean chooses.
    """
    stages = dict.fromkeys(epoch.stage for epoch in history)
    return [_stage(name, [epoch for epoch in history if epoch.stage == name], regions, chooses) for name in stages]


def phase_spans(epochs: Sequence[Epoch]) -> list[Span]:
    """Runs of epochs in which the same phases learnt; none where nothing changed."""
    runs = [
        (phases, [epoch.epoch + 1 for epoch in members])
        for phases, members in groupby(epochs, key=lambda epoch: _phases([epoch]))
    ]
    return [Span(numbers[0], numbers[-1], " + ".join(phases)) for phases, numbers in runs] if len(runs) > 1 else []


def best_epoch(epochs: Sequence[Epoch], chooses: str | None = None) -> int | None:
    """The epoch, counted from 1, with the best of the score that chooses, or the best mean; none without scores."""
    watched = {
        epoch.epoch + 1: [value for score, value in epoch.scores.items() if chooses in (None, score)]
        for epoch in epochs
    }
    means = {number: sum(values) / len(values) for number, values in watched.items() if values}
    if not means:
        return None
    score = chooses or next(score for epoch in epochs for score in epoch.scores)
    best = min if lower_is_better(score) else max
    return best(means, key=lambda number: means[number])


def _stage(name: str, epochs: Sequence[Epoch], regions: Sequence[str], chooses: str | None) -> StageCurves:
    losses = _terms(epochs, weights=False)
    weights = _terms(epochs, weights=True)
    scores = {} if chooses else _scores(epochs, regions)
    spans, best = phase_spans(epochs), best_epoch(epochs)
    within = f"in stage {name}, over {counted(len(epochs), 'epoch')}"
    charts = []
    if losses:
        figure = line_chart(losses, spans=spans, description=_described("Training losses", losses, within))
        charts.append(Chart("Losses", figure, "Mean over each epoch's steps, before weighting."))
    if scores:
        score = next(score for epoch in epochs for score in epoch.scores)
        label = score_label(score)
        figure = line_chart(
            scores, spans=spans, marked=best, description=_described(f"Validation {label}", scores, within)
        )
        better = "lower" if lower_is_better(score) else "higher"
        caption = f"{label} on the validation patients; {better} is better. Dotted: epoch {best}, the best mean."
        charts.append(Chart("Validation", figure, caption))
    if chooses:
        charts += _charts_by_score(epochs, spans, chooses, within)
    if weights:
        figure = line_chart(weights, spans=spans, description=_described("Dynamic loss weights", weights, within))
        charts.append(Chart("Dynamic weights", figure, "What each loss term was multiplied by, mean over each epoch."))
    return StageCurves(name, len(epochs), _phases(epochs), tuple(charts))


def _charts_by_score(epochs: Sequence[Epoch], spans: Sequence[Span], chooses: str, within: str) -> Iterator[Chart]:
    """A chart a score, in which the epoch that was kept is marked where the stage keeps one."""
    best = best_epoch(epochs, chooses)
    kept = f" Dotted: epoch {best}, the best {score_label(chooses).lower()}." if best is not None else ""
    for score in dict.fromkeys(score for epoch in epochs for score in epoch.scores):
        label = score_label(score)
        line = {label: [(epoch.epoch + 1, epoch.scores[score]) for epoch in epochs if score in epoch.scores]}
        figure = line_chart(line, spans=spans, marked=best, description=_described(f"Validation {label}", line, within))
        better = {"↑": "; higher is better", "↓": "; lower is better"}.get(direction(score), "")
        yield Chart(
            f"{label[0].upper()}{label[1:]} in validation", figure, f"On the validation patients{better}.{kept}"
        )


def _phases(epochs: Iterable[Epoch]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.partition("/")[0] for epoch in epochs for name in epoch.losses))


def _terms(epochs: Sequence[Epoch], *, weights: bool) -> Lines:
    """Lines by `phase/term`, those of one term joined into one where its phases took turns."""
    by_phase: dict[str, Lines] = {}
    for epoch in epochs:
        for name, value in epoch.losses.items():
            phase, _, term = name.partition("/")
            if term.startswith(WEIGHT) == weights:
                line = by_phase.setdefault(term.removeprefix(WEIGHT), {}).setdefault(phase, [])
                line.append((epoch.epoch + 1, value))
    lines: Lines = {}
    for term, phases in by_phase.items():
        joint = sorted(point for line in phases.values() for point in line)
        if len({number for number, _ in joint}) == len(joint):
            lines[score_label(term)] = joint
        else:
            lines |= {f"{phase}: {score_label(term)}": line for phase, line in phases.items()}
    return lines


def _scores(epochs: Sequence[Epoch], regions: Sequence[str]) -> Lines:
    lines: Lines = {}
    for epoch in epochs:
        for score, value in epoch.scores.items():
            region = score.removeprefix("dice_")
            name = region_label(region, regions) if region != score else score_label(score)
            lines.setdefault(name, []).append((epoch.epoch + 1, value))
    return lines


def _described(what: str, lines: Mapping[str, Sequence[tuple[int, float]]], within: str) -> str:
    ends = joined([f"{name} from {line[0][1]:.3g} to {line[-1][1]:.3g}" for name, line in lines.items()])
    return f"{what} {within}: {ends}."
