"""Config fields that a cohort decides: channels, regions, classes, and those that a healthy cohort adds."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from ganseg_dist.config import DataConfig, RunConfig, TrainConfig, override
from ganseg_dist.data.cohort import Cohort
from ganseg_dist.data.slices import LESION_CLASSES
from ganseg_dist.errors import ConfigError, DataError

DEFAULTS = {"data": DataConfig(), "train": TrainConfig()}

NOT = ("no", "non", "not", "without")
"""A class's first word."""
NOTHING = ("absent", "control", "healthy", "negative", "none", "normal", "nothing")
NOT_WHAT = re.compile("non?(cancer|disease|finding|lesion|tumou?r)s?")
"""Such words written as one, as in names of folders; nodules do not match."""


def resolve(config: RunConfig, cohort: Cohort, healthy: Cohort | None = None) -> RunConfig:
    """Fill in what the data decides: modalities, regions or classes, and what the paper's reading implies.

    Raises ConfigError for a name in the config that the cohort does not have.
    """
    system, data = config.system, config.data
    modalities = _chosen("modalities", data.modalities, cohort.modalities, cohort, "modality that all cases share")
    changes: dict[str, Any] = {"data.modalities": list(modalities)}
    if system.task == "segmentation" or cohort.regions:
        requested = _chosen("regions", data.regions, cohort.regions, cohort, "masks to train on")
        # Regions are nested and drawn one over the other, outermost first, whatever the requested order.
        regions = [name for name in cohort.regions if name in requested]
        if regions[0] != "wt":
            raise ConfigError(f"data.regions: {', '.join(regions)}: lacks wt, which the GAN judges; add it")
        changes["data.regions"] = regions
    if system.task == "classification":
        there = cohort.classes or (LESION_CLASSES if cohort.regions else ())
        classes = _chosen("classes", data.classes, there, cohort, "classes or masks to train on")
        if len(classes) < 2:
            raise DataError(f"{cohort.root}: has one class, {classes[0]}; a classifier needs two or more")
        changes["data.classes"] = list(classes if data.classes is not None else negative_first(classes))
    unknown = [name for name in system.gan_modalities or () if name not in modalities]
    if unknown:
        among = ", ".join(modalities)
        raise ConfigError(f"system.healthy_modalities: {unknown[0]} is not among the run's modalities {among}")
    if system.reading == "paper":
        changes |= {field: value for field, value in system.paper_data.items() if _untouched(config, field)}
    healthy_modalities = None if healthy is None else healthy.modalities
    of_healthy = system.healthy_fields(modalities, healthy_modalities, str(healthy.root) if healthy else "")
    return override(config, changes | of_healthy)


def negative_first(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Two classes with the one whose name means "nothing found" first: the second is the positive class.

    Where both or neither mean it, the order stays as it is (`order_message`). Benign does not mean it: something
    benign was found, and beside malignant the alphabet puts it first.
    """
    return tuple(sorted(classes, key=reads_negative, reverse=True)) if len(classes) == 2 else classes


def reads_negative(name: str) -> bool:
    """Whether a class's name means that nothing was found: `no lesion`, `notumor`, `Healthy control`."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    return bool(words) and (
        words[0] in NOT or any(word in NOTHING for word in words) or NOT_WHAT.fullmatch(words[0]) is not None
    )


def order_message(request: RunConfig, resolved: RunConfig) -> str | None:
    """Which of two classes is positive and how to swap them, where neither the user nor their names decide it."""
    classes = resolved.data.classes or ()
    if resolved.system.task != "classification" or request.data.classes is not None or len(classes) != 2:
        return None
    other, sought = classes
    if reads_negative(other) != reads_negative(sought):
        return None
    swapped = shlex.quote(f"data.classes={json.dumps([sought, other], ensure_ascii=False)}")
    return f"{sought} counts as the class to be found and {other} as negative; to swap them: --set {swapped}"


def _chosen(
    field: str, requested: tuple[str, ...] | None, there: tuple[str, ...], cohort: Cohort, what: str
) -> tuple[str, ...]:
    """The requested names, else all that the cohort has."""
    if not there:
        raise DataError(f"{cohort.root}: has no {what}; add the files, or leave out the cases without")
    unknown = [name for name in requested or () if name not in there]
    if unknown:
        raise ConfigError(f"data.{field}: {unknown[0]} is not in {cohort.root}, which has {', '.join(there)}")
    if requested is not None and len(set(requested)) < len(requested):
        raise ConfigError(f"data.{field}: {', '.join(requested)} names one twice; name each once")
    return requested or there


def check_no_overlap(cohort: Cohort, healthy: Cohort) -> None:
    """Raises DataError when a healthy subject may be a patient: the GAN would be trained on test patients."""
    shared = sorted({case.patient for case in cohort.cases} & {case.patient for case in healthy.cases})
    if shared:
        raise DataError(
            f"{healthy.root}: {len(shared)} of its subjects are patients of {cohort.root} too, such as {shared[0]}; "
            "leave them out, or, if they only share their names, rename them in a CSV manifest"
        )


def _untouched(config: RunConfig, field: str) -> bool:
    section, name = field.split(".")
    return bool(getattr(getattr(config, section), name) == getattr(DEFAULTS[section], name))
