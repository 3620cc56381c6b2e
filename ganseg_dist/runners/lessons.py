"""Whether there is something to learn from: a stage in which no example counts would train on nothing and finish."""

from __future__ import annotations

from collections.abc import Mapping

from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Cohort
from ganseg_dist.data.slices import SliceSet
from ganseg_dist.engine.fit import StageData
from ganseg_dist.errors import DataError
from ganseg_dist.runners.prepare import Preflight
from ganseg_dist.systems import build_system
from ganseg_dist.systems.base import Stage

MEND_MASKS = "check the masks, and what their values mean"


def refuse_empty_masks(found: Preflight, cohort: Cohort) -> None:
    """Raises DataError where there are masks and all are empty: before anything is split or prepared."""
    empty = {finding.case for finding in found.findings if finding.check == "empty-mask"}
    masked = [case for case in cohort.cases if case.mask is not None]
    if masked and all(case.id in empty for case in masked):
        raise DataError(f"{cohort.root}: all {len(masked)} masks are empty: there is nothing to segment; {MEND_MASKS}")


def refuse_empty_stages(config: RunConfig, data: Mapping[str, StageData], cohort: Cohort) -> None:
    """Look at every stage's training slices.

    Args:
        config: resolved.
        data: by source, as `Prepared.open` gives it.

    Raises DataError naming the stage where a classifier's images are of fewer than two classes, or no slice of a
    segmenter's shows a lesion. Tumour-free slices are asked for where a stage learns from them (engine/loader.py).
    """
    for stage in build_system(config).stages:
        slices = data[stage.source].train
        if config.system.task == "classification":
            _refuse_one_class(config, stage, slices, cohort)
        elif stage.examples == "all" and not slices.has_lesion.any():
            raise DataError(
                f"{cohort.root}: stage {stage.name}: no slice of the {len(slices.cases)} training cases shows a "
                f"lesion; {MEND_MASKS}, or add patients"
            )


def unjudged(config: RunConfig, data: Mapping[str, StageData]) -> str | None:
    """Why no epoch of a segmenter's last stage can be scored; none where some can.

    Args:
        config: resolved.
        data: by source, as `Prepared.open` gives it.
    """
    validation = data[build_system(config).stages[-1].source].validation
    if config.system.task != "segmentation" or validation.has_lesion.any():
        return None
    mend = "raise data.validation_fraction, or draw other patients with another seed"
    return f"no validation patient of {len(validation.cases)} shows a lesion, so that no epoch can be scored; {mend}"


def _refuse_one_class(config: RunConfig, stage: Stage, slices: SliceSet, cohort: Cohort) -> None:
    classes = config.data.classes or ()
    there = [name for index, name in enumerate(classes) if (slices.label == index).any()]
    if len(there) > 1:
        return
    known = f"all of one class, {there[0]}" if there else "of no known class"
    others = ", ".join(name for name in classes if name not in there)
    raise DataError(
        f"{cohort.root}: stage {stage.name}: the {len(slices)} images of its training patients are {known}; "
        f"add patients with images of {others}"
    )
