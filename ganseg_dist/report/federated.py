"""The federation section of a run's page: sites, rounds, traffic, privacy, and the comparison at each site."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ganseg_dist.config import RunConfig
from ganseg_dist.engine.trainer import prepare_state
from ganseg_dist.engine.world import World
from ganseg_dist.federation.comparison import ComparedScore
from ganseg_dist.federation.fingerprint.differences import differences
from ganseg_dist.federation.fingerprint.histograms import sum_fingerprints
from ganseg_dist.federation.record import FederationRecord, SiteCounts
from ganseg_dist.federation.shared_parameters import SharedParameters
from ganseg_dist.inference.federation_card import describe_local_data, describe_privacy, describe_settings
from ganseg_dist.metrics.statistics import Interval, PairedComparison
from ganseg_dist.plots.intervals import Bar, grouped_chart
from ganseg_dist.plots.lines import MOST_NAMED, round_chart
from ganseg_dist.plots.save import svg
from ganseg_dist.plural import counted
from ganseg_dist.report.fingerprint import fingerprint_charts
from ganseg_dist.report.labels import (
    better_in_words,
    between,
    byte_size,
    joined,
    number,
    score_label,
    signed_number,
    verdict,
)
from ganseg_dist.report.records import Records, SimulatedSite
from ganseg_dist.report.section import Chart, interval_bar
from ganseg_dist.runs import RunRecord
from ganseg_dist.systems import build_system

MEGA = 1e6
MEAN_OF_SITES = "mean of the sites alone"
SITE_ALONE = "the site alone"
ALL_SITES = "all sites"


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
        "traffic": describe_traffic(record),
        "local_data": describe_local_data(described.absent),
        "privacy": describe_privacy(record, config),
        "verdicts": list(_verdicts(main)) if main is not None else [],
        "patients": patients,
        "untested": [site.name for site in simulation if not site.split.test],
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
    return SiteRow(
        name,
        record.sites.get(name),
        parts[-1].examples if parts else None,
        math.fsum(part.weight for part in parts) / len(parts) if parts else None,
        len(parts),
        len(record.left_out(name)),
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


def _describe_withholding(described: RunRecord, simulation: Sequence[SimulatedSite]) -> str:
    """What sites withhold. A simulation records its sites' minimum_group; hospitals do not disclose theirs."""
    if not simulation and not described.sites:
        return "Each hospital withholds numbers of fewer patients than its minimum_group."
    if not simulation:
        return "Simulation: the sites' folders, which hold the minimum that was applied, are gone."
    if all(site.minimum_group <= 1 for site in simulation):
        return "Simulation: no minimum was applied."
    return "Simulation: each site withholds numbers of fewer patients than its minimum_group."


def _verdicts(main: ComparedScore) -> Iterator[str]:
    """Compare the federated model with pooled data and with the sites alone, and name its worst site."""
    yield f"{main.title} against all data pooled: {_describe_difference(main.less_pooled, main.score)}."
    if main.percent_of_pooled is not None:
        yield f"It reaches {main.percent_of_pooled:.1f}% of the score with all data pooled."
    yield f"{main.title} against the {MEAN_OF_SITES}: {_describe_difference(main.less_alone, main.score)}."
    if main.worst_site is not None and len(main.at_sites) > 1:
        worst = main.at_sites[main.worst_site]["federated"]
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
        groups[f"{site} ({arms['federated'].n})"] = _bars(arms["federated"], arms["pooled"], arms.get(SITE_ALONE))
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
