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
from ganseg_dist.federation.record import FederationRecord
from ganseg_dist.inference.federation_card import federation_facts, scores_text
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
        scores=scores_text(_scores_kept(history, run.kept)) if history else "",
        federation=federation_facts(record, config, run) if record else None,
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
