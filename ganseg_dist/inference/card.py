"""The model card: what a model is, what it learnt from, and what it must not be used for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Split


def model_card(
    config: RunConfig,
    data: Mapping[str, Any],
    split: Split,
    history: Sequence[Mapping[str, Any]],
    run: Mapping[str, Any],
) -> str:
    """Markdown from a run's records. Counts alone: no patient or path is named."""
    sites = Counter(case["site"] for case in data["cases"])
    scores = _scores_kept(history, run["kept"]) if history else {}
    kind = config.system.title if config.system.synthesises else f"the control of {config.system.title} (no GAN)"
    lines = [
        f"# {run['name']}",
        "",
        f"{kind}, recipe `{config.recipe}`, {config.system.reading} reading. Research software: not a medical device.",
        "",
    ]
    if data["phantom"]:
        lines += ["**Trained on a synthetic phantom cohort, not on patients.**", ""]
    if data.get("synthetic"):
        lines += ["**Trained on images that a generator painted, not on patients.**", ""]
    lines += [
        "## Input and output",
        f"- Modalities, in order: {', '.join(config.data.modalities or ())}",
        *([f"- Channels of a file, in order: {', '.join(data['channels'])}"] if data.get("channels") else []),
        f"- Regions: {', '.join(config.data.regions or ())}",
        f"- Slices of {config.data.size} x {config.data.size} pixels at {config.data.spacing_mm} mm or coarser",
        "",
        "## Data",
        f"- {len(data['cases'])} cases of {len({case['patient'] for case in data['cases']})} patients; "
        f"{len(split.train)} patients trained, {len(split.validation)} validated, {len(split.test)} held out",
        f"- Cases per site: {', '.join(f'{site} {count}' for site, count in sorted(sites.items()))}",
        f"- Cases excluded by preflight: {len({finding['case'] for finding in data['excluded']})}",
        "",
        "## Training",
        f"- Seed {config.seed}; {len(history)} epochs over all stages in {run['seconds'] / 60:.1f} minutes",
        f"- Validation scores of the epoch kept: {', '.join(f'{k} {v:.3f}' for k, v in scores.items()) or 'none'}",
        f"- Code {run['version']}, commit {run['commit'] or 'unknown'}",
        "",
        "Scores on held-out patients, with intervals, are in the run's evaluation, not here.",
    ]
    return "\n".join(lines) + "\n"


def _scores_kept(history: Sequence[Mapping[str, Any]], kept: Mapping[str, Any]) -> Mapping[str, float]:
    """Scores of the last stage in the epoch whose weights are the model's."""
    stage = history[-1]["stage"]
    of_stage: dict[int, Mapping[str, float]] = {
        record["epoch"]: record["scores"] for record in history if record["stage"] == stage
    }
    return of_stage[kept[stage]["epoch"]]
