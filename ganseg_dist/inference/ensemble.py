"""Models that predict together: the mean of their probabilities, as nnU-Net does with cross-validation folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ganseg_dist import __version__
from ganseg_dist.atomic import write_json
from ganseg_dist.data.batch import Batch
from ganseg_dist.data.labels import LabelScheme
from ganseg_dist.digests import damage_as, read_sealed, sealed
from ganseg_dist.errors import RunError
from ganseg_dist.files import confined
from ganseg_dist.inference.model_folder import Model, Thresholds, load_model
from ganseg_dist.systems.base import Prediction, Ratio, Stage, System

FORMAT = 2
INDEX = "ensemble.json"
AVERAGED = ("probability", "anomaly", "score", "classes")
"""Parts of a prediction that are probabilities of the same pixels, slices or images in every member."""


class Ensemble:
    """Systems of one config as a system that only predicts."""

    stages: tuple[Stage, ...] = ()

    def __init__(self, members: Mapping[str, System]) -> None:
        self.members = members
        self.networks: Mapping[str, nn.Module] = {
            f"{name}.{part}": network for name, system in members.items() for part, network in system.networks.items()
        }

    def predict(self, batch: Batch) -> Prediction:
        """The mean of the members' probabilities of regions and classes, anomaly maps and realism.

        There is no reconstruction: each member fills the lesion of its mask, and where the masks differ a mean
        would show a half-filled lesion, which no member takes for healthy tissue.
        """
        predictions = [member.predict(batch) for member in self.members.values()]
        return Prediction(**{name: _mean([getattr(each, name) for each in predictions]) for name in AVERAGED})

    def sample(self, stage: str, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
        """Raises ValueError: an ensemble is not trained."""
        raise ValueError(f"an ensemble has no stage {stage!r}")

    def losses(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """Raises ValueError: an ensemble is not trained."""
        raise ValueError(f"an ensemble has no phase {phase!r}")

    def validate(self, stage: str, batch: Batch) -> dict[str, Ratio]:
        """Raises ValueError: an ensemble is not trained."""
        raise ValueError(f"an ensemble has no stage {stage!r}")


def average_members(members: Mapping[str, Model]) -> Model:
    """One model that predicts the mean of its members' predictions; a single member is returned as it is.

    Folds differ only in their patients, weights and thresholds.

    Raises RunError naming a member whose config or channels differ from the first one's, and the field.
    """
    (first_name, first), *others = members.items()
    if not others:
        return first
    expected = _settings(first)
    for name, model in others:
        settings = _settings(model)
        for field in expected | settings:
            if settings.get(field) != expected.get(field):
                raise RunError(
                    f"{name}: has {field} {_setting_text(settings.get(field))}, and {first_name} "
                    f"{_setting_text(expected.get(field))}; members of an ensemble are folds of one experiment"
                )
    system = Ensemble({name: model.system for name, model in members.items()})
    thresholds = mean_thresholds([model.thresholds for model in members.values()], first.config.data.regions or ())
    return Model(first.config, system, thresholds, first.channels, first.scheme)


def mean_thresholds(members: Sequence[Thresholds], regions: Sequence[str]) -> Thresholds:
    """Each threshold's mean over the members; of realism none unless every member has one.

    mean(p_i) >= mean(t_i) is sum(p_i - t_i) >= 0: each member counts by its distance from its operating point. A
    member's probabilities are calibrated to the threshold that was chosen for it, and a threshold for the mean itself
    cannot be chosen: each patient was trained on by some member.
    """
    realism = [each.realism for each in members if each.realism is not None]
    return Thresholds(
        {region: float(np.mean([each.of(region) for each in members])) for region in regions},
        float(np.mean(realism)) if len(realism) == len(members) else None,
        sum(each.calibrated_on for each in members),  # each fold is validated on other patients
    )


def load_together(folders: Mapping[str, Path]) -> Model:
    """The model of these model folders, by the names of the members.

    Raises RunError when one is incomplete or damaged, or is no fold of the same experiment as the first.
    """
    return average_members({name: load_model(folder) for name, folder in folders.items()})


def is_ensemble_folder(folder: Path) -> bool:
    """Whether this is an ensemble as `ganseg export` writes it: an index, and a model folder for each member."""
    return (folder / INDEX).is_file()


def write_index(folder: Path, members: Sequence[str]) -> None:
    """Write the index, which lists the folders of this one that are the members' model folders."""
    write_json(folder / INDEX, sealed({"format": FORMAT, "ganseg": __version__, "members": list(members)}))


def member_folders(folder: Path) -> dict[str, Path]:
    """The members' model folders, by name.

    Raises RunError when the index is damaged or of another version, and for a member that is listed twice or lies
    elsewhere.
    """
    file, remedy = folder / INDEX, "export the experiment again"
    with damage_as(RunError, remedy):
        index = read_sealed(file)
    names = index.get("members")
    if index.get("format") != FORMAT or not isinstance(names, list) or not names:
        raise RunError(f"{file}: lists no members that this version can read; {remedy}")
    folders = [confined(folder, name, file, remedy, error=RunError) for name in names]
    if len({place.resolve() for place in folders}) < len(folders):
        raise RunError(f"{file}: lists a member twice, which would count twice; {remedy}")
    return dict(zip(names, folders, strict=True))


def _mean(parts: Sequence[Tensor | None]) -> Tensor | None:
    """The mean over the members; None unless every member predicts this part."""
    given = [part for part in parts if part is not None]
    return torch.stack(given).mean(dim=0) if len(given) == len(parts) else None


def _settings(model: Model) -> dict[str, Any]:
    """All that members must have in common, by field: their inputs first, then their training."""
    config = model.config
    fields = {f"{part}.{name}": value for part in ("data", "system", "train") for name, value in getattr(config, part)}
    return {"channels": model.channels, **fields, "labels": model.scheme, "recipe": config.recipe, "seed": config.seed}


def _setting_text(value: Any) -> str:
    if isinstance(value, LabelScheme):
        return value.describe()
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
