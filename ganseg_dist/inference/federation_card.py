"""What a model card says of a federation: who trained it together, by which rules, and what nobody has measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ganseg_dist.config import RunConfig
from ganseg_dist.federation.record import FederationRecord, RoundRecord, SiteCounts
from ganseg_dist.plural import counted


def federation_lines(record: FederationRecord, config: RunConfig, run: Mapping[str, Any]) -> list[str]:
    """The card's section, Markdown. Sites are named; no patient is.

    Args:
        run: run.json, with the networks that stayed at the sites and the epochs kept.
    """
    return [
        "## Federation",
        f"- Sites: {', '.join(f'{name}{_counts_told(record.sites.get(name))}' for name in record.names)}",
        f"- {counted(len(record.rounds), 'round')}, {counted(record.epochs_done[-1], 'epoch')} over all stages",
        *(f"- {name}: {told}" for name, told in settings_told(config).items()),
        f"- Stayed at the sites: {stayed_told(run.get('absent', ()))}",
        f"- Validation at the sites, of the epoch kept: {_scores_told(kept_round(record.rounds, run['kept']))}",
        f"- Updates left out: {_left_out_told(record)}",
        f"- Privacy: {privacy_told(record, config)}",
        *([f"- Memorisation: {MEMORISATION}"] if config.system.synthesises else []),
    ]


MEMORISATION = (
    "a GAN learnt from these sites' images, and this card holds no audit of whether it gives any of them back; ganseg "
    "synthesize makes one (audit.json) before it writes an image, and so should whoever passes generated images on"
)


def stayed_told(absent: Sequence[str]) -> str:
    """What no site ever sent.

    Args:
        absent: networks that were not shared.
    """
    return ", ".join(["images, masks, optimizer states", *(f"the {name}" for name in absent)])


def settings_told(config: RunConfig) -> dict[str, str]:
    """The rules of a federation that decide what its model is, in words."""
    federation = config.federation
    largest = f"no site above {federation.largest_share:.0%} or an equal share"
    told = {
        "Strategy": _strategy_told(config),
        "Weights": f"by {federation.weighting}, {largest}",
        "Updates": federation.encoding
        + (f", {federation.kept_share:.0%} of the values" if federation.encoding == "topk" else ""),
        "Firewall": f"on, changes up to {federation.largest_norm_ratio:g} times the usual one"
        if federation.firewall
        else "off",
    }
    if federation.norm_layers == "local":
        told["Normalisation layers"] = "each site's own"
    if federation.personalised:
        told["Personalised"] = ", ".join(federation.personalised)
    return told


def privacy_told(record: FederationRecord, config: RunConfig) -> str:
    """What is promised to a site and to a patient, or that nothing is."""
    told = [*_site_privacy_told(record, config), *_patient_privacy_told(config)]
    return "; ".join(told) or "none promised to a site or a patient; weights are not anonymous"


def _site_privacy_told(record: FederationRecord, config: RunConfig) -> list[str]:
    if record.epsilon is None:
        return []
    privacy = config.federation.privacy
    return [
        f"epsilon {record.epsilon:.3g} at delta {privacy.delta:g} for any one site, noise added by "
        f"{'the server' if privacy.where == 'server' else 'each site'}, updates clipped to {privacy.clip_norm:g}"
    ]


def _patient_privacy_told(config: RunConfig) -> list[str]:
    """Sites add this noise in their own steps and keep the account: the server knows what was asked of them."""
    privacy = config.train.privacy
    if not privacy.on:
        return []
    if privacy.noise_multiplier is None:
        asked = f"epsilon {privacy.epsilon:g} at delta {privacy.delta:g}"
    else:
        asked = f"noise multiplier {privacy.noise_multiplier:g}, from which each site's own epsilon follows,"
    return [f"{asked} for any one patient of a site, in its own steps, gradients clipped to {privacy.clip_norm:g}"]


def kept_round(rounds: Sequence[RoundRecord], kept: Mapping[str, Any]) -> RoundRecord:
    """The last stage's round that ended with the epoch which was kept, or its last where none did.

    Args:
        kept: by stage, as run.json has it.
    """
    stage = rounds[-1].stage
    of_stage = [record for record in rounds if record.stage == stage]
    epoch = kept[stage]["epoch"] if stage in kept else None
    return next((record for record in of_stage if record.until - 1 == epoch), of_stage[-1])


def _strategy_told(config: RunConfig) -> str:
    federation = config.federation
    rate, betas = federation.server_learning_rate, " and ".join(f"{beta:g}" for beta in federation.server_betas)
    adaptive = f" (learning rate {rate:g}, betas {betas})"
    more = {
        "fedprox": f" (mu {federation.proximal_weight:g})",
        "fedadam": adaptive,
        "fedyogi": adaptive,
        "trimmed": f" ({federation.trimmed_share:.0%} of the sites at either end)",
        "krum": f" (Multi-Krum, {federation.suspected_sites} suspected)",
    }
    return f"{federation.strategy}{more.get(federation.strategy, '')}"


def _counts_told(counts: SiteCounts | None) -> str:
    if counts is None:
        return ""
    if counts.cases is None:
        return f" ({counted(counts.patients, 'patient')})"
    return f" ({counted(counts.cases, 'case')})"


def _scores_told(record: RoundRecord) -> str:
    """`north dice_wt 0.812; south dice_wt 0.743`."""
    told = (
        f"{site} {', '.join(f'{name} {value:.3f}' for name, value in part.scores.items())}"
        for site, part in sorted(record.sites.items())
        if part.scores
    )
    return "; ".join(told) or "none"


def _left_out_told(record: FederationRecord) -> str:
    """How many by site and why, or none."""
    reasons = Counter((left.site, left.reason) for left in record.quarantined)
    told = (f"{count} of {site} ({reason})" for (site, reason), count in sorted(reasons.items()))
    return "; ".join(told) or "none"
