"""The federation section of a model card: the sites, the rules, and what was not measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ganseg_dist.config import RunConfig
from ganseg_dist.federation.record import FederationRecord, RoundRecord, SiteCounts
from ganseg_dist.federation.strategy import strategy_of
from ganseg_dist.plural import counted
from ganseg_dist.runs import Kept, RunRecord


def federation_facts(record: FederationRecord, config: RunConfig, run: RunRecord) -> dict[str, Any]:
    """What the card's template shows of a federation. Sites are named; no patient is."""
    return {
        "sites": ", ".join(f"{name}{_describe_counts(record.sites.get(name))}" for name in record.names),
        "rounds": len(record.rounds),
        "settings": describe_settings(config),
        "local_data": describe_local_data(run.absent),
        "scores": _describe_scores(kept_round(record.rounds, run.kept)),
        "left_out": _describe_left_out(record),
        "privacy": describe_privacy(record, config),
    }


def describe_local_data(absent: Sequence[str]) -> str:
    """List what no site ever sent, with the networks that were not shared."""
    return ", ".join(["images, masks, optimizer states", *(f"the {name}" for name in absent)])


def describe_settings(config: RunConfig) -> dict[str, str]:
    """The rules of a federation that affect its model, as text."""
    federation = config.federation
    largest = f"no site above {federation.largest_share:.0%} or an equal share"
    settings = {
        "Strategy": _describe_strategy(config),
        "Weights": f"by {federation.weighting}, {largest}",
        "Updates": federation.encoding
        + (f", {federation.kept_share:.0%} of the values" if federation.encoding == "topk" else ""),
        "Firewall": f"on, changes up to {federation.largest_norm_ratio:g} times the usual one"
        if federation.firewall
        else "off",
    }
    if federation.norm_layers == "local":
        settings["Normalisation layers"] = "local to each site"
    if federation.personalised:
        settings["Personalised"] = ", ".join(federation.personalised)
    return settings


def describe_privacy(record: FederationRecord, config: RunConfig) -> str:
    """State the privacy guarantee of a site and of a patient, or that there is none."""
    guarantees = [*_describe_site_privacy(record, config), *_describe_patient_privacy(config)]
    return "; ".join(guarantees) or "none guaranteed to a site or a patient; weights are not anonymous"


def _describe_site_privacy(record: FederationRecord, config: RunConfig) -> list[str]:
    if record.epsilon is None:
        return []
    privacy = config.federation.privacy
    return [
        f"epsilon {record.epsilon:.3g} at delta {privacy.delta:g} for any one site, noise added by "
        f"{'the server' if privacy.where == 'server' else 'each site'}, updates clipped to {privacy.clip_norm:g}"
    ]


def _describe_patient_privacy(config: RunConfig) -> list[str]:
    """Sites add this noise in their steps and account for it: the server knows only the settings that it requested."""
    privacy = config.train.privacy
    if not privacy.on:
        return []
    if privacy.noise_multiplier is None:
        budget = f"epsilon {privacy.epsilon:g} at delta {privacy.delta:g}"
    else:
        budget = f"noise multiplier {privacy.noise_multiplier:g}, from which each site's epsilon follows,"
    return [f"{budget} for any one patient of a site, in its own steps, gradients clipped to {privacy.clip_norm:g}"]


def kept_round(rounds: Sequence[RoundRecord], kept: Mapping[str, Kept]) -> RoundRecord:
    """The last stage's round that ended with the stage's kept epoch, or its last where none did."""
    stage = rounds[-1].stage
    of_stage = [record for record in rounds if record.stage == stage]
    epoch = kept[stage].epoch if stage in kept else None
    return next((record for record in of_stage if record.until - 1 == epoch), of_stage[-1])


def _describe_strategy(config: RunConfig) -> str:
    details = strategy_of(config.federation).details
    return f"{config.federation.strategy}{details and f' ({details})'}"


def _describe_counts(counts: SiteCounts | None) -> str:
    if counts is None:
        return ""
    if counts.cases is None:
        return f" ({counted(counts.patients, 'patient')})"
    return f" ({counted(counts.cases, 'case')})"


def _describe_scores(record: RoundRecord) -> str:
    """`north dice_wt 0.812; south dice_wt 0.743`."""
    scores = (f"{site} {scores_text(part.scores)}" for site, part in sorted(record.sites.items()) if part.scores)
    return "; ".join(scores) or "none"


def scores_text(scores: Mapping[str, float]) -> str:
    """`dice_wt 0.812, dice_tc 0.743`."""
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())


def _describe_left_out(record: FederationRecord) -> str:
    """Number of updates left out by site and reason, or `none`."""
    reasons = Counter((left.site, left.reason) for left in record.quarantined)
    counts = (f"{count} of {site} ({reason})" for (site, reason), count in sorted(reasons.items()))
    return "; ".join(counts) or "none"
