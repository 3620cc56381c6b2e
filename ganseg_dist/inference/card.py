"""The model card: a model's description, its training data, and what it must not be used for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Split
from ganseg_dist.data.labels import LESION_IN_PICTURES
from ganseg_dist.data.record import DataRecord
from ganseg_dist.engine.state import Epoch
from ganseg_dist.federation.record import FederationRecord, RoundRecord, SiteCounts
from ganseg_dist.federation.strategy import strategy_of
from ganseg_dist.plural import counted
from ganseg_dist.printable import printable_markdown
from ganseg_dist.runs import Kept, RunRecord

TEMPLATE = "card.md.j2"


def model_card(
    config: RunConfig,
    data: DataRecord,
    split: Split,
    history: Sequence[Epoch],
    run: RunRecord,
    federation: FederationRecord | None = None,
) -> str:
    """Markdown from a run's records, with counts alone: it names no patient or path."""
    record = federation if federation is not None and federation.rounds else None
    sites = Counter(case.site for case in data.cases)
    environment = Environment(
        loader=PackageLoader("ganseg_dist", "inference"),
        finalize=_escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE).render(
        config=config,
        data=data,
        split=split,
        run=run,
        kind=config.system.title if config.system.synthesises else f"the control of {config.system.title} (no GAN)",
        regions=config.data.regions or (),
        lesion_in_pictures=LESION_IN_PICTURES,
        cases=_trained_cases(data, split),
        sites=", ".join(f"{site} {count}" for site, count in sorted(sites.items())),
        excluded=len({finding.case for finding in data.excluded}),
        epochs=record.epochs_done[-1] if record else len(history),  # history has only the last epoch of a round
        scores=_scores_text(_scores_kept(history, run.kept)) if history else "",
        federation=_federation_facts(record, config, run) if record else None,
        counted=counted,
    )


def _escaped(value: Any) -> Any:
    """Names come from the data and the sites, and the card is rendered as Markdown wherever the model goes."""
    return printable_markdown(value) if isinstance(value, str) else value


def _trained_cases(data: DataRecord, split: Split) -> str:
    """Numbers of all cases and of those that trained: patients, or pictures where a split cannot separate patients."""
    cases, unknown = len(data.cases), data.unknown_patients
    if not unknown:
        return (
            f"{counted(cases, 'case')} of {counted(len(data.patients), 'patient')}; "
            f"{counted(len(split.train), 'patient')}"
        )
    whose = "patients unknown" if unknown == cases else f"the patients of {unknown} unknown"
    return f"{counted(cases, 'image')}; {whose}; {len(split.train)}"


def _scores_kept(history: Sequence[Epoch], kept: Mapping[str, Kept]) -> Mapping[str, float]:
    """Scores of the last stage in the epoch whose weights are the model's."""
    stage = history[-1].stage
    return {record.epoch: record.scores for record in history if record.stage == stage}[kept[stage].epoch]


def _federation_facts(record: FederationRecord, config: RunConfig, run: RunRecord) -> dict[str, Any]:
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
    scores = (f"{site} {_scores_text(part.scores)}" for site, part in sorted(record.sites.items()) if part.scores)
    return "; ".join(scores) or "none"


def _scores_text(scores: Mapping[str, float]) -> str:
    """`dice_wt 0.812, dice_tc 0.743`."""
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())


def _describe_left_out(record: FederationRecord) -> str:
    """Number of messages left out by site and reason, or `none`."""
    reasons = Counter((left.site, left.reason) for left in record.quarantined)
    counts = (f"{count} of {site} ({reason})" for (site, reason), count in sorted(reasons.items()))
    return "; ".join(counts) or "none"
