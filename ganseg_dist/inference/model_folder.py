"""The model folder: weights, config, thresholds and card, all that `ganseg predict` needs, without a pickle."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError, with_config
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ganseg_dist import __version__
from ganseg_dist.atomic import whole_folder, write_json, write_text
from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.labels import LabelScheme
from ganseg_dist.digests import damage_as, read_sealed, sealed, verify_file
from ganseg_dist.engine.state import weights_of
from ganseg_dist.errors import ConfigError, DataError, RunError, one_line
from ganseg_dist.files import confined, sha256
from ganseg_dist.systems import build_system
from ganseg_dist.systems.base import System

FORMAT = 4
WEIGHTS = "networks.safetensors"
REMEDY = "export or train the model again"


Probability = Annotated[float, Field(strict=True, ge=0, le=1)]


@with_config(extra="forbid")
@dataclass(frozen=True, slots=True)
class Thresholds:
    """Operating points; the defaults hold until `ganseg calibrate` has chosen better ones."""

    regions: Mapping[str, Probability] = field(default_factory=dict)
    """Probability from which on a voxel belongs to a region; 0.5 where not given."""
    realism: Annotated[FiniteFloat, Field(strict=True)] | None = None
    """Slice realism below which a slice is called abnormal; none: not calibrated."""
    calibrated_on: Annotated[int, Field(strict=True, ge=0)] = 0
    """Validation patients they were chosen on; 0: defaults."""

    def of(self, region: str) -> float:
        """The region's threshold."""
        return self.regions.get(region, 0.5)


def write_model(
    folder: Path,
    config: RunConfig,
    weights: Path,
    scheme: LabelScheme,
    *,
    card: str,
    facts: Mapping[str, Any],
    thresholds: Thresholds,
) -> None:
    """Put a model folder together beside its place, then move it there, with the weights of a checkpoint.

    `facts` are those behind the card, for programs: phantom or not, cohort, versions. Raises RunError naming a tensor
    that is not finite.
    """
    _check_finite(load_file(weights), weights, "training diverged: lower train.learning_rate and train again")
    with whole_folder(folder) as unfinished:
        shutil.copyfile(weights, unfinished / WEIGHTS)
        write_text(unfinished / "config.json", config.to_json())
        write_thresholds(unfinished, thresholds)
        write_text(unfinished / "card.md", card)
        description = {
            "format": FORMAT,
            "ganseg": __version__,
            "weights": sha256(unfinished / WEIGHTS),
            "config": sha256(unfinished / "config.json"),
            "labels": scheme.to_json(),
        }
        write_json(unfinished / "model.json", sealed(description | dict(facts)))


@dataclass(frozen=True, slots=True)
class Model:
    """The content of a model folder."""

    config: RunConfig
    system: System
    """On the CPU, in evaluation mode, its weights frozen."""
    thresholds: Thresholds
    channels: tuple[str, ...]
    """Modalities in the order of the channels of its training files; empty where they had one channel each."""
    scheme: LabelScheme
    """The meaning of the values in the masks that it writes."""
    absent: frozenset[str] = frozenset()
    """Networks that stayed at the sites of a federation: here they have their initial weights, and predict nothing."""


def load_model(folder: Path) -> Model:
    """The model of a folder.

    Raises RunError naming the file that is missing, damaged, of another version or a link that leads elsewhere; also
    where a weight is NaN.
    """
    description = _read(folder / "model.json")
    model_files(folder)
    if description.get("format") != FORMAT:
        raise RunError(
            f"{folder / 'model.json'}: model format {description.get('format')}, and ganseg-dist {__version__} reads "
            f"{FORMAT}; use the version that wrote it, {description.get('ganseg', 'which is unknown')}, or {REMEDY}"
        )
    config = _read_config(folder / "config.json", description.get("config"))
    system = build_system(_self_contained(config))
    weights = read_weights(folder, description.get("weights"))
    for name, network in system.networks.items():
        try:
            network.load_state_dict(weights_of(weights, name))
        except RuntimeError:
            raise RunError(
                f"{folder / WEIGHTS}: its {name} does not fit config.json; {REMEDY}, with the version that made it"
            ) from None
        network.eval().requires_grad_(False)
    channels, absent = (_names(folder, description, field) for field in ("channels", "absent"))
    scheme = _scheme(folder, description, config)
    return Model(config, system, read_thresholds(folder), channels, scheme, frozenset(absent))


def read_weights(folder: Path, digest: str | None) -> dict[str, Tensor]:
    """The networks' tensors as `network.parameter`. Raises RunError when the file is damaged, or one is not finite."""
    file = folder / WEIGHTS
    try:
        with damage_as(RunError, REMEDY):
            verify_file(file, digest)
        weights = load_file(file)
    except SafetensorError as error:
        raise RunError(f"{file}: is no safetensors file ({one_line(error)}); {REMEDY}") from None
    _check_finite(weights, file, "train the model again with a lower train.learning_rate")
    return weights


def _check_finite(weights: Mapping[str, Tensor], file: Path, remedy: str) -> None:
    """Raises RunError naming the first tensor that holds NaN or infinity, and its file."""
    for name, tensor in weights.items():
        numbers = tensor.float() if tensor.is_floating_point() else tensor  # isfinite takes no 8-bit float
        if not torch.isfinite(numbers).all():
            raise RunError(f"{file}: {name} holds NaN or infinity; {remedy}")


def write_thresholds(folder: Path, thresholds: Thresholds) -> None:
    """Write operating points to a model folder, in place of earlier ones."""
    write_json(folder / "thresholds.json", sealed(asdict(thresholds)))


def read_thresholds(folder: Path) -> Thresholds:
    """The model's operating points. Raises RunError when the file is not what `ganseg calibrate` writes."""
    file = folder / "thresholds.json"
    try:
        return TypeAdapter(Thresholds).validate_python(_read(file))
    except ValidationError:
        raise RunError(f"{file}: holds no thresholds in [0, 1]; run ganseg calibrate, or {REMEDY}") from None


def weights_digest(folder: Path) -> str | None:
    """SHA-256 of the weights, which identifies the model. Raises RunError when model.json is missing or damaged."""
    return _read(folder / "model.json").get("weights")


def read_scheme(folder: Path) -> LabelScheme:
    """The meaning of the values in the model's masks. Raises RunError when model.json lacks it."""
    description = _read(folder / "model.json")
    return _scheme(folder, description, _read_config(folder / "config.json", description.get("config")))


def model_files(folder: Path) -> tuple[Path, ...]:
    """All files of a model. Raises RunError for a link out of the folder, which may be an attack."""
    files = sorted(path for path in folder.iterdir() if not path.is_dir())
    remedy = "put the file itself there, or export the model again"
    return tuple(confined(folder, file.name, folder, remedy, error=RunError) for file in files)


def is_model_folder(folder: Path) -> bool:
    """Whether this is a model folder, as `ganseg export` writes."""
    return (folder / "model.json").is_file()


def _self_contained(config: RunConfig) -> RunConfig:
    """The config without `system.pretrained`: the model has all weights, and that file may not exist here."""
    if getattr(config.system, "pretrained", None) is None:
        return config
    return override(config, {"system.pretrained": None})


def _names(folder: Path, description: Mapping[str, Any], field: str) -> tuple[str, ...]:
    """A list of names in model.json; empty where there is none. Raises RunError for anything else."""
    names = description.get(field, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RunError(f"{folder / 'model.json'}: {field}: is no list of names; {REMEDY}")
    return tuple(names)


def _scheme(folder: Path, description: Mapping[str, Any], config: RunConfig) -> LabelScheme:
    """The label scheme in model.json. Raises RunError where it is not that of the config's regions."""
    where = f"{folder / 'model.json'}: labels"
    try:
        return LabelScheme.from_json(description.get("labels"), where).of_model(config.data.regions or (), where)
    except DataError as error:
        raise RunError(f"{error}; {REMEDY}") from None


def _read_config(file: Path, digest: str | None) -> RunConfig:
    with damage_as(RunError, REMEDY):
        verify_file(file, digest)
    try:
        return RunConfig.load(file)
    except ConfigError as error:
        raise RunError(f"{error}; {REMEDY}") from None


def _read(file: Path) -> dict[str, Any]:
    with damage_as(RunError, REMEDY):
        return read_sealed(file)
