"""The model card: a model's description, its training data, and what it must not be used for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Split
from ganseg_dist.data.labels import LESION_IN_PICTURES
from ganseg_dist.data.record import DataRecord
from ganseg_dist.engine.state import Epoch
from ganseg_dist.federation.record import FederationRecord
from ganseg_dist.inference.federation_card import federation_lines
from ganseg_dist.plural import counted
from ganseg_dist.printable import printable_markdown
from ganseg_dist.runs import Kept, RunRecord


def model_card(
    config: RunConfig,
    data: DataRecord,
    split: Split,
    history: Sequence[Epoch],
    run: RunRecord,
    federation: FederationRecord | None = None,
) -> str:
    """Markdown from a run's records, with counts alone: it names no patient or path."""
    scores = _scores_kept(history, run.kept) if history else {}
    record = federation if federation is not None and federation.rounds else None
    epochs = record.epochs_done[-1] if record else len(history)  # history has only the last epoch of a round
    kind = config.system.title if config.system.synthesises else f"the control of {config.system.title} (no GAN)"
    lines = [
        f"# {run.name}",
        "",
        f"{kind}, recipe `{config.recipe}`, {config.system.reading} reading. Research software: not a medical device.",
        "",
    ]
    if data.phantom:
        lines += ["**Trained on a synthetic phantom cohort, not on patients.**", ""]
    if data.synthetic:
        lines += ["**Trained on images that a generator made, not on patients.**", ""]
    lines += [
        "## Input and output",
        f"- Modalities, in order: {', '.join(config.data.modalities or ())}",
        *([f"- Channels of a file, in order: {', '.join(data.channels)}"] if data.channels else []),
        *([f"- Regions: {', '.join(config.data.regions)}"] if config.data.regions else []),
        *_label_lines(data, config),
        *([f"- Classes, in order: {', '.join(config.data.classes)}"] if config.data.classes else []),
        f"- Slices of {config.data.size} x {config.data.size} pixels at {config.data.spacing_mm} mm or coarser",
        "",
        "## Data",
        *(_cohort_lines(data, split) if data.cases else ["- Stayed at the sites: the server saw none of it"]),
        "",
        "## Training",
        f"- Seed {config.seed}; {counted(epochs, 'epoch')} over all stages in {(run.seconds or 0) / 60:.1f} minutes",
        f"- Validation scores of the epoch kept: {', '.join(f'{k} {v:.3f}' for k, v in scores.items()) or 'none'}",
        f"- Code {run.version}, commit {run.commit or 'unknown'}",
        "",
        *([*federation_lines(record, config, run), ""] if record else []),
        f"Scores on held-out {'images' if data.unknown_patients else 'patients'}, with intervals, are in the run's "
        "evaluation, not here.",
    ]
    return "\n".join(map(printable_markdown, lines)) + "\n"  # names come from the data and the sites


def _label_lines(data: DataRecord, config: RunConfig) -> list[str]:
    """The meaning of a mask's values, and how many masks (in a federation, sites) use others."""
    regions = config.data.regions or ()
    if not regions:
        return []
    scheme = data.labels.of_model(regions, "data.json: labels")
    lines = [f"- Values of a mask: {scheme.describe()}"]
    if len(regions) == 1:
        lines = [f"{lines[0]}; in a picture the lesion is {LESION_IN_PICTURES}"]
    others = data.otherwise_labelled
    if others and data.cases:
        lines.append(f"- {others} of its masks use other values or names; these are those of most masks")
    elif others:
        lines.append(f"- Other values or names in the masks of {counted(others, 'site')}: these are the canonical ones")
    return lines


def _cohort_lines(data: DataRecord, split: Split) -> list[str]:
    """Cases and patients by part; for pictures of unknown patients, a warning that a split cannot separate them."""
    cases, unknown = len(data.cases), data.unknown_patients
    sizes = [len(part) for part in (split.train, split.validation, split.test)]
    if not unknown:
        patients = len(data.patients)
        of = f"{counted(cases, 'case')} of {counted(patients, 'patient')}"
        lines = [f"- {of}; {counted(sizes[0], 'patient')} trained, {sizes[1]} validated, {sizes[2]} held out"]
        return [*lines, *_sources(data)]
    whose = "patients unknown" if unknown == cases else f"the patients of {unknown} unknown"
    return [
        f"- {counted(cases, 'image')}; {whose}; {sizes[0]} trained, {sizes[1]} validated, {sizes[2]} held out",
        "- **One patient's images may be in training and in test at once**: scores are upper bounds",
        *_sources(data),
    ]


def _sources(data: DataRecord) -> list[str]:
    """Cases per site, and the number of cases that preflight excluded."""
    sites = Counter(case.site for case in data.cases)
    return [
        f"- Cases per site: {', '.join(f'{site} {count}' for site, count in sorted(sites.items()))}",
        f"- Cases excluded by preflight: {len({finding.case for finding in data.excluded})}",
    ]


def _scores_kept(history: Sequence[Epoch], kept: Mapping[str, Kept]) -> Mapping[str, float]:
    """Scores of the last stage in the epoch whose weights are the model's."""
    stage = history[-1].stage
    return {record.epoch: record.scores for record in history if record.stage == stage}[kept[stage].epoch]
