"""Training curves: charts of each stage's records in history.json."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from ganseg_dist.engine.state import Epoch
from ganseg_dist.federation.record import RoundRecord
from ganseg_dist.metrics.registry import find_score
from ganseg_dist.plots.lines import Span, line_chart
from ganseg_dist.plots.save import svg
from ganseg_dist.plural import counted
from ganseg_dist.report.score_text import better_in_words, capitalised, in_a_sentence, joined, score_label, term_label
from ganseg_dist.report.section import Chart
from ganseg_dist.runs import Kept

Lines = dict[str, list[tuple[int, float]]]

WEIGHT = "weight_"
"""Dynamic weights are among the losses as `phase/weight_term`."""


@dataclass(frozen=True, slots=True)
class StageCurves:
    """One stage of training."""

    name: str
    rounds: int
    """Rounds of a federation; 0: the run was trained in one place."""
    epochs: int
    phases: tuple[str, ...]
    charts: tuple[Chart, ...]


def stage_curves(
    history: Sequence[Epoch],
    region_label: Callable[[str], str],
    kept: Mapping[str, Kept],
    rounds: Sequence[RoundRecord] = (),
) -> list[StageCurves]:
    """Losses, validation scores and dynamic weights of every stage, in the order they were trained.

    Args:
        history: all epochs; of a federation, the last epoch of each round.
        kept: by stage, the epoch whose weights it handed on; without one the captions leave it out.
        rounds: all rounds of a federation.
    """
    stages = dict.fromkeys(epoch.stage for epoch in history)
    return [
        _stage(
            name,
            [epoch for epoch in history if epoch.stage == name],
            region_label,
            kept.get(name),
            [record for record in rounds if record.stage == name],
        )
        for name in stages
    ]


def phase_spans(epochs: Sequence[Epoch]) -> list[Span]:
    """Spans of epochs in which the same phases trained; none where the phases never changed.

    A federation records only the last epoch of a round: the round's earlier epochs belong to that record's span.
    """
    runs = [
        (phases, max(epoch.epoch + 1 for epoch in members))
        for phases, members in groupby(epochs, key=lambda epoch: _phases([epoch]))
    ]
    firsts = [1, *(last + 1 for _, last in runs)]
    spans = [Span(first, last, " + ".join(phases)) for first, (phases, last) in zip(firsts, runs, strict=False)]
    return spans if len(spans) > 1 else []


def _stage(
    name: str,
    epochs: Sequence[Epoch],
    region_label: Callable[[str], str],
    kept: Kept | None,
    rounds: Sequence[RoundRecord],
) -> StageCurves:
    losses = _terms(epochs, weights=False)
    weights = _terms(epochs, weights=True)
    spans = phase_spans(epochs)
    done = epochs[-1].epoch + 1
    within = f"in stage {name}, over {counted(done, 'epoch')}"
    charts = []
    if losses:
        figure = svg(line_chart(losses, spans=spans), _describe_lines("Training losses", losses, within))
        charts.append(Chart("Losses", figure, f"{_averaged_over('Mean', rounds)}, before weighting."))
    charts += _score_charts(epochs, region_label, spans, kept, within, rounds)
    if weights:
        figure = svg(line_chart(weights, spans=spans), _describe_lines("Dynamic loss weights", weights, within))
        caption = f"Factors of the loss terms; {_averaged_over('mean', rounds)}."
        charts.append(Chart("Dynamic weights", figure, caption))
    return StageCurves(name, len(rounds), done, _phases(epochs), tuple(charts))


def _averaged_over(mean: str, rounds: Sequence[RoundRecord]) -> str:
    """The steps that a loss is averaged over; in a federation, a site reports the losses of its last epoch only."""
    steps = "the sites and the steps of each round's last epoch" if rounds else "each epoch's steps"
    return f"{mean} over {steps}"


def _score_charts(
    epochs: Sequence[Epoch],
    region_label: Callable[[str], str],
    spans: Sequence[Span],
    kept: Kept | None,
    within: str,
    rounds: Sequence[RoundRecord],
) -> Iterator[Chart]:
    """One chart for each kind of score with a line for each region; the best epoch is marked where it is kept."""
    best = kept.epoch + 1 if kept is not None and kept.best_of else None
    note = _kept_note(kept, rounds) if kept is not None else ""
    kinds = _scores(epochs, region_label)
    for kind, lines in kinds.items():
        label, better = score_label(kind), better_in_words(kind)
        description = _describe_lines(f"Validation {label}", lines, within)
        rises_to_1 = find_score(kind).mode == "max"
        figure = svg(line_chart(lines, spans=spans, marked=best, shares=rises_to_1), description)
        title = capitalised(label)
        yield Chart(
            f"{title} in validation", figure, f"{title} on the validation part{f'; {better}' if better else ''}.{note}"
        )


def _kept_note(kept: Kept, rounds: Sequence[RoundRecord]) -> str:
    """Which epoch's weights the stage hands on, as the end of a caption."""
    if not kept.best_of:
        return " The last epoch is kept."
    chooser = ("mean " if len(kept.best_of) > 1 else "") + in_a_sentence(score_label(kept.best_of[0]))
    ended = next((f", the end of round {record.round}" for record in rounds if record.until == kept.epoch + 1), "")
    return f" Dotted: epoch {kept.epoch + 1}{ended}, the best {chooser}, which is kept."


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
            lines[term_label(term)] = joint
        else:
            lines |= {f"{phase}: {term_label(term)}": line for phase, line in phases.items()}
    return lines


def _scores(epochs: Sequence[Epoch], region_label: Callable[[str], str]) -> dict[str, Lines]:
    """The lines of each kind of score, one a region or one alone."""
    kinds: dict[str, Lines] = {}
    for epoch in epochs:
        for score, value in epoch.scores.items():
            region = score.removeprefix("dice_")
            kind, name = (score, score_label(score)) if region == score else ("dice", region_label(region))
            kinds.setdefault(kind, {}).setdefault(name, []).append((epoch.epoch + 1, value))
    return kinds


def _describe_lines(what: str, lines: Mapping[str, Sequence[tuple[int, float]]], within: str) -> str:
    ends = joined([f"{name} from {line[0][1]:.3g} to {line[-1][1]:.3g}" for name, line in lines.items()])
    return f"{what} {within}: {ends}."
