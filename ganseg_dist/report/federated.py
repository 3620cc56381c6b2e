"""The federation section of a run's page: sites and their data, rounds, traffic, privacy, and the comparison."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ganseg_dist.config import RunConfig
from ganseg_dist.engine.trainer import prepare_state
from ganseg_dist.engine.world import World
from ganseg_dist.federation.comparison import ALONE, FEDERATED, OWN, ComparedScore
from ganseg_dist.federation.fingerprint.differences import Difference, differences, subject
from ganseg_dist.federation.fingerprint.disclosure import Points
from ganseg_dist.federation.fingerprint.histograms import Axis, Fingerprint, Scale, sum_fingerprints
from ganseg_dist.federation.public_key import short_key
from ganseg_dist.federation.record import FederationRecord, SiteCounts
from ganseg_dist.federation.shared_parameters import SharedParameters
from ganseg_dist.federation.site_settings import SiteSettings
from ganseg_dist.inference.card import describe_local_data, describe_privacy, describe_settings
from ganseg_dist.metrics.statistics import Interval, PairedComparison
from ganseg_dist.plots import Figure
from ganseg_dist.plots.intervals import Bar, grouped_chart
from ganseg_dist.plots.lines import MOST_NAMED, Histogram, histogram_chart, round_chart
from ganseg_dist.plots.save import svg
from ganseg_dist.plural import counted, duration
from ganseg_dist.report.reading import Records
from ganseg_dist.report.score_text import (
    better_in_words,
    between,
    byte_size,
    capitalised,
    joined,
    number,
    score_label,
    signed_number,
    verdict,
)
from ganseg_dist.report.section import Chart, interval_bar
from ganseg_dist.runs import RunRecord
from ganseg_dist.systems import build_system

MEGA = 1e6
ALL_SITES = "all sites"
MOST_TICKS = 7


@dataclass(frozen=True, slots=True)
class SiteRow:
    """One row of the table of sites."""

    name: str
    counts: SiteCounts | None
    examples: float | None
    """Its number of examples in the last round that used its update."""
    weight: float | None
    """Mean over the rounds that used its update."""
    rounds: int
    left_out: int
    unanswered: int = 0
    """Rounds whose deadline it missed."""
    seconds: float | None = None
    """Mean time from a request to its update."""
    scores: str | None = None
    """`sent` or `withheld`; None for a site without an update."""
    key: str | None = None
    """The short form of its key's fingerprint; None in a simulation."""
    other_code: str | None = None
    """What it runs, where that differs from the server's code."""


def federation_view(records: Records) -> dict[str, Any] | None:
    """What federation.html.j2 shows; None for a run that was trained in one place, or without a recorded round."""
    record, config, described, simulation = records.federation, records.config, records.description, records.simulation
    if record is None or not record.rounds or config is None:
        return None
    comparison, fingerprints = records.comparison, records.fingerprints
    site_differences = differences(fingerprints)
    main = comparison.scores[0] if comparison is not None and comparison.scores else None
    patients = "patients" if comparison is None or comparison.patients_known else "images, patients unknown"
    best_of = {stage: kept.best_of[0] for stage, kept in described.kept.items() if kept.best_of}
    return {
        "record": record,
        "simulated": bool(simulation or described.sites),  # the data of all sites were in one place
        "settings": describe_settings(config),
        "sites": [site_row(record, name) for name in record.names],
        "timed": any(kept.seconds is not None for kept in record.rounds),
        "traffic": describe_traffic(record),
        "too_small": [f"{name} takes no part: it {reason}." for name, reason in described.left_out.items()],
        "local_data": describe_local_data(described.absent),
        "privacy": describe_privacy(record, config),
        "verdicts": list(_verdicts(main)) if main is not None else [],
        "patients": patients,
        "untested": [site.name for site in simulation if not (site.split or {}).get("test")],
        "compared": _comparison_chart(main, patients) if main is not None and main.at_sites else None,
        "data": fingerprint_charts(sum_fingerprints(fingerprints.values()), fingerprints, site_differences)
        if fingerprints
        else [],
        "withheld": _describe_withholding(described, simulation),
        "outliers": [difference.line() for difference in site_differences if difference.stands_out],
        "charts": [
            *_score_charts(record, best_of),
            _weight_chart(record),
            _bytes_chart(record, config),
            *_time_chart(record),
            *_epsilon_chart(record, config),
        ],
    }


def describe_traffic(record: FederationRecord) -> str:
    """`12 MB in 6 rounds, 2 MB a round: 1.2 MB to the sites, 0.8 MB from them`."""
    rounds = len(record.rounds)
    out, back = (
        sum(getattr(kept, name) for kept in record.rounds) / max(rounds, 1) for name in ("bytes_out", "bytes_in")
    )
    return (
        f"{byte_size(record.bytes_moved)} in {counted(rounds, 'round')}, {byte_size(out + back)} a round: "
        f"{byte_size(out)} to the sites, {byte_size(back)} from them"
    )


def site_row(record: FederationRecord, name: str) -> SiteRow:
    """Summarise a site over all rounds."""
    parts = list(record.of_site(name).values())
    counts = record.sites.get(name)
    versions = counts.versions if counts is not None else None
    differs = versions is not None and record.server is not None and versions.code != record.server.code
    seconds = [part.seconds for part in parts if part.seconds is not None]
    unread = any(left.site == name and left.kind == "evaluate" for left in record.quarantined)
    sent = unread or any(part.scores for part in parts)
    return SiteRow(
        name,
        counts,
        parts[-1].examples if parts else None,
        math.fsum(part.weight for part in parts) / len(parts) if parts else None,
        len(parts),
        len(record.left_out(name)),
        unanswered=sum(name in kept.unanswered for kept in record.rounds),
        seconds=math.fsum(seconds) / len(seconds) if seconds else None,
        scores=("sent" if sent else "withheld") if parts else None,
        key=short_key(counts.key) if counts is not None and counts.key is not None else None,
        other_code=versions.text if versions is not None and differs else None,
    )


def raw_bytes(record: FederationRecord, config: RunConfig) -> dict[int, int]:
    """By round, the bytes that the sites' replies would take as float32.

    A site replies with the shared networks that the stage trains, whatever becomes of its update.
    """
    system = build_system(config)
    state = prepare_state(system, config, World())
    update = {}
    for index, stage in enumerate(system.stages):
        shapes = SharedParameters.of(state, system, config, index).trained(system, index).shapes
        update[stage.name] = 4 * sum(map(math.prod, shapes.values()))
    replies = {
        kept.round: len(kept.sites) + sum(left.round == kept.round for left in record.quarantined)
        for kept in record.rounds
    }
    return {kept.round: replies[kept.round] * update.get(kept.stage, 0) for kept in record.rounds}


def _describe_withholding(described: RunRecord, simulation: Sequence[SiteSettings]) -> str:
    """What sites withhold. A simulation records its sites' minimum_group; hospitals do not disclose theirs."""
    if not simulation and not described.sites:
        return "Each hospital withholds numbers of fewer patients than its minimum_group."
    if not simulation:
        return "Simulation: the sites' folders, which hold the minimum that was applied, are gone."
    if all(site.policy.minimum_group <= 1 for site in simulation):
        return "Simulation: no minimum was applied."
    return "Simulation: each site withholds numbers of fewer patients than its minimum_group."


def _verdicts(main: ComparedScore) -> Iterator[str]:
    """Compare the federated model with pooled data and with the sites alone, and name its worst site."""
    yield f"{main.title} against all data pooled: {_describe_difference(main.less_pooled, main.score)}."
    if main.percent_of_pooled is not None:
        yield f"It reaches {main.percent_of_pooled:.1f}% of the score with all data pooled."
    yield f"{main.title} against the {ALONE}: {_describe_difference(main.less_alone, main.score)}."
    if main.worst_site is not None and len(main.at_sites) > 1:
        worst = main.at_sites[main.worst_site][FEDERATED]
        bounds = f"{between(worst, main.score)}, " if worst.known else ""
        yield f"It is worst at {main.worst_site}: {number(worst.mean, main.score)} ({bounds}n = {worst.n})."


def _describe_difference(compared: PairedComparison, score: str) -> str:
    """The verdict with the mean difference, its interval and n; with too few patients there is no verdict."""
    gap = compared.difference
    outcome = verdict(compared, score) or "too few to compare"
    return f"{outcome}, {signed_number(gap.mean, score)} ({between(gap, score, signed=True)}, n = {gap.n})"


def _comparison_chart(main: ComparedScore, patients: str) -> Chart:
    """All test patients, then each site's: federated, pooled, and the site alone."""
    groups = {f"{ALL_SITES} ({main.federated.n})": _bars(main.federated, main.pooled, main.alone)}
    for site, arms in main.at_sites.items():
        groups[f"{site} ({arms[FEDERATED].n})"] = _bars(arms[FEDERATED], arms["pooled"], arms.get(OWN))
    means = "; ".join(
        f"{group}: {', '.join(f'{bar.label} {bar.mean:.3f}' for bar in bars)}" for group, bars in groups.items()
    )
    return Chart(
        f"{main.title} by site of the test {patients.split(',')[0]}",
        svg(grouped_chart(groups, axis=main.title), f"{main.title} with 95% intervals. {means}."),
        f"Means with 95% intervals; in brackets how many {patients}. Alone: at a site, the model of its data; of "
        f"{ALL_SITES}, the mean over the sites' models.",
    )


def _bars(federated: Interval, pooled: Interval, alone: Interval | None) -> list[Bar]:
    arms = {"federated": federated, "pooled": pooled, "alone": alone}
    return [interval_bar(name, arm, emphasised=name == "federated") for name, arm in arms.items() if arm is not None]


def _score_charts(record: FederationRecord, best_of: Mapping[str, str]) -> Iterator[Chart]:
    """For each stage, the score that selects its epoch (else its first score) at each site."""
    for stage in dict.fromkeys(kept.stage for kept in record.rounds):
        rounds = [kept for kept in record.rounds if kept.stage == stage]
        scores = list(dict.fromkeys(score for kept in rounds for score in kept.scores))
        if not scores:
            continue
        score = best_of.get(stage, scores[0])
        lines = {
            site: line
            for site in record.names
            if (line := [
                (kept.round, kept.sites[site].scores[score])
                for kept in rounds
                if site in kept.sites and score in kept.sites[site].scores
            ])
        }  # fmt: skip
        mean = [(kept.round, kept.scores[score]) for kept in rounds if score in kept.scores]
        if not lines or not mean:
            continue
        label, better = score_label(score), better_in_words(score)
        ends = joined([f"{site} {line[-1][1]:.3g}" for site, line in lines.items()])
        yield Chart(
            f"{label} in validation, stage {stage}",
            svg(
                round_chart(lines, axis=label, mean=mean),
                f"Validation {label} at each site over the rounds of stage {stage}. At the end: {ends}.",
            ),
            f"Of each round's new weights on the site's validation cases; bold: the mean over all sites' cases"
            f"{f'; {better}' if better else ''}.{_naming_note(lines)}",
        )


def _weight_chart(record: FederationRecord) -> Chart:
    lines = {
        site: [(number, part.weight) for number, part in parts.items()]
        for site in record.names
        if (parts := record.of_site(site))
    }
    weights = joined([f"{site} {line[-1][1]:.2f}" for site, line in lines.items()])
    return Chart(
        "Weights",
        svg(round_chart(lines, axis="share", from_zero=True), f"Weight of each site by round. Last: {weights}."),
        f"Share of each site's update in a round; a gap where the site had none.{_naming_note(lines)}",
    )


def _naming_note(lines: Mapping[str, object]) -> str:
    """The caption's note on which sites are named when there are many."""
    return "" if len(lines) <= MOST_NAMED else " The sites that end highest and lowest are named."


def _bytes_chart(record: FederationRecord, config: RunConfig) -> Chart:
    """Bytes in both directions, and the size as float32 where the encoding is coarser."""
    lines = {
        "to the sites": [(kept.round, kept.bytes_out / MEGA) for kept in record.rounds],
        "from the sites": [(kept.round, kept.bytes_in / MEGA) for kept in record.rounds],
    }
    share = ""
    if config.federation.encoding != "fp32":
        raw = raw_bytes(record, config)
        lines["as float32"] = [(kept.round, raw[kept.round] / MEGA) for kept in record.rounds]
        sent, plain = sum(kept.bytes_in for kept in record.rounds), sum(raw.values())
        share = f" The sites' updates take {100 * sent / plain:.0f}% of their size as float32."
    return Chart(
        "Bytes transferred",
        svg(
            round_chart(lines, axis="MB", from_zero=True),
            f"Megabytes of tensors by round. {describe_traffic(record)}.",
        ),
        f"Tensors alone, all sites together; training and scoring.{share}",
    )


def _time_chart(record: FederationRecord) -> Iterator[Chart]:
    """How long each site took for its update, and each round as a whole."""
    lines = {
        site: line
        for site in record.names
        if (line := [(n, part.seconds) for n, part in record.of_site(site).items() if part.seconds is not None])
    }
    rounds = [(kept.round, kept.seconds) for kept in record.rounds if kept.seconds is not None]
    if lines and rounds:
        longest = max(rounds, key=lambda each: each[1])
        yield Chart(
            "Time of rounds",
            svg(
                round_chart({**lines, "whole round": rounds}, axis="s", from_zero=True),
                f"Seconds by round. The longest, round {longest[0]}, took {duration(longest[1])}.",
            ),
            f"From the request to each site's update; the whole round includes scoring.{_naming_note(lines)}",
        )


def _epsilon_chart(record: FederationRecord, config: RunConfig) -> Iterator[Chart]:
    line = [(kept.round, kept.epsilon) for kept in record.rounds if kept.epsilon is not None]
    if line:
        delta = config.federation.privacy.delta
        yield Chart(
            "Privacy spent",
            svg(
                round_chart({"epsilon": line}, axis="epsilon", from_zero=True),
                f"Epsilon by round, {line[-1][1]:.3g} in the end.",
            ),
            f"Epsilon by the end of each round, at a delta of {delta:g}; lower is more private.",
        )


def fingerprint_charts(
    total: Fingerprint, sites: Mapping[str, Fingerprint], site_differences: Sequence[Difference] = ()
) -> list[Chart]:
    """One chart for each histogram: a thin line a site and a bold one for all together, in percent of each line's sum.

    Every patient counts alike. Of many sites only those that stand out are named. A histogram without a patient on its
    scale, such as millimetres of pictures, is left out. Sites that may not be shown count in `total` alone.
    """
    charts = []
    for name, axis in total.axes.items():
        if axis.scale is not None and not total.disclosed(name)[len(axis.apart) :].any():
            continue
        off = [difference for difference in site_differences if difference.histogram == name and difference.stands_out]
        points = [(site, fingerprint.disclosed(name)) for site, fingerprint in sites.items()]
        points.append((ALL_SITES, total.disclosed(name)))
        if not any(of_site.any() for _, of_site in points):
            continue
        title = capitalised(subject(name))
        per_patient = not name.startswith(("seen/", "raw/"))
        figure = _fingerprint_chart(axis, points, {difference.site for difference in off}, per_patient=per_patient)
        charts.append(Chart(title, svg(figure, title), _fingerprint_caption(name, sites, off)))
    return charts


def _fingerprint_caption(name: str, sites: Mapping[str, Fingerprint], off: Sequence[Difference]) -> str:
    silent = [site for site, fingerprint in sites.items() if not fingerprint.disclosed(name).any()]
    notes = [f"{joined(silent)} {'discloses' if len(silent) == 1 else 'disclose'} nothing here."] if silent else []
    notes += [f"Stands out: {difference.line()}." for difference in off]
    return " ".join(notes)


def _fingerprint_chart(axis: Axis, points: Sequence[tuple[str, Points]], off: set[str], *, per_patient: bool) -> Figure:
    """The filled bins of each site and, last and so on top, of their sum; the sites in `off` stand out."""
    filled = np.any([of_site > 0 for _, of_site in points], axis=0)
    apart = [bin_ for bin_ in range(len(axis.apart)) if filled[bin_] or axis.scale is None]
    first, last = _filled_range(filled[len(axis.apart) :])
    together = len(points) - 1
    few = together <= MOST_NAMED
    histograms = []
    for index, (site, of_site) in enumerate(points):
        if of_site.any():
            shares = 100 * of_site / of_site.sum()
            number, named = (None, True) if index == together else (index, few or site in off)
            histograms.append(Histogram(site, shares[apart], shares[len(axis.apart) :][first:last], number, named))
    return histogram_chart(
        histograms,
        apart=[axis.apart[bin_] for bin_ in apart],
        ticks=_scale_ticks(axis.scale, first, last) if axis.scale is not None else (),
        x_label=(axis.scale.unit or "exported value") if axis.scale is not None else "",
        y_label="share of the patients (%)" if per_patient else "share of the foreground (%)",
    )


def _filled_range(filled: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """The range of the scale's non-empty bins, widened by one bin at either end; (0, 0) where there are none."""
    bins = np.flatnonzero(filled)
    return (max(int(bins[0]) - 1, 0), min(int(bins[-1]) + 2, len(filled))) if bins.size else (0, 0)


def _scale_ticks(scale: Scale, first: int, last: int) -> list[tuple[float, str]]:
    """Labels at whole steps of the scale, with their distance in bins from the first shown bin's edge."""
    low, high = (scale.first + scale.width * (bin_ - 1) for bin_ in (first, last))
    whole = np.arange(np.ceil(low), np.floor(high) + 1) + 0.0  # a negative zero would read -0
    step = -(-len(whole) // MOST_TICKS)
    places: npt.NDArray[np.float64] = whole[whole % step == 0]
    return [(float((place - low) / scale.width), f"{scale.value(float(place)):g}") for place in places]
