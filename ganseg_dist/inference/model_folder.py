"""The model folder: weights, config, thresholds and card. All that `ganseg predict` needs, and nothing to unpickle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ganseg_dist import __version__
from ganseg_dist.atomic import whole_folder, write_json, write_text
from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.labels import LabelScheme
from ganseg_dist.errors import ConfigError, DataError, RunError
from ganseg_dist.files import read_json, sha256
from ganseg_dist.systems import build_system
from ganseg_dist.systems.base import System

FORMAT = 2
WEIGHTS = "networks.safetensors"
MEND = "export or train the model again"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Operating points; the defaults stand until `ganseg calibrate` has chosen better ones."""

    regions: Mapping[str, float] = field(default_factory=dict)
    """Probability above which a voxel belongs to a region; 0.5 where not given."""
    realism: float | None = None
    """Slice realism below which a slice is called abnormal; none: not calibrated."""
    calibrated_on: int = 0
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
    """Put a model folder together beside its place, then move it there.

    Args:
        weights: the checkpoint's networks.safetensors.
        scheme: of the regions that it segments.
        card: the model card's Markdown.
        facts: what the card's numbers come from, for programs: phantom or not, cohort, versions.
    """
    with whole_folder(folder) as unfinished:
        shutil.copyfile(weights, unfinished / WEIGHTS)
        write_text(unfinished / "config.json", config.to_json())
        write_json(unfinished / "thresholds.json", asdict(thresholds))
        write_text(unfinished / "card.md", card)
        description = {
            "format": FORMAT,
            "ganseg": __version__,
            "weights": sha256(unfinished / WEIGHTS),
            "labels": scheme.to_json(),
        }
        write_json(unfinished / "model.json", description | dict(facts))


@dataclass(frozen=True, slots=True)
class Model:
    """What a model folder holds."""

    config: RunConfig
    system: System
    """On the CPU, in evaluation mode, its weights frozen."""
    thresholds: Thresholds
    channels: tuple[str, ...]
    """Modalities in the order of the channels of the files it learnt from; empty where they had one channel each."""
    scheme: LabelScheme
    """What the values of the masks that it writes mean."""
    absent: frozenset[str] = frozenset()
    """Networks that stayed at the sites of a federation: here they are as they began, and say nothing."""


def load_model(folder: Path) -> Model:
    """Raises RunError naming the file that is missing, damaged or of another version."""
    description = _read(folder / "model.json")
    if description.get("format") != FORMAT:
        raise RunError(
            f"{folder / 'model.json'}: model format {description.get('format')}, and ganseg-dist {__version__} reads "
            f"{FORMAT}; use the version that wrote it, {description.get('ganseg', 'which is unknown')}, or {MEND}"
        )
    config = _read_config(folder / "config.json")
    system = build_system(_self_contained(config))
    weights = read_weights(folder, description.get("weights"))
    for name, network in system.networks.items():
        own = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
        try:
            network.load_state_dict(own)
        except RuntimeError:
            raise RunError(
                f"{folder / WEIGHTS}: its {name} does not fit config.json; {MEND}, with the version that made it"
            ) from None
        network.eval().requires_grad_(False)
    channels, absent = tuple(description.get("channels") or ()), frozenset(description.get("absent") or ())
    return Model(config, system, read_thresholds(folder), channels, _scheme(folder, description, config), absent)


def read_weights(folder: Path, digest: str | None) -> dict[str, Tensor]:
    """The networks' tensors as `network.parameter`. Raises RunError when the file is damaged."""
    file = folder / WEIGHTS
    try:
        if sha256(file) != digest:
            raise RunError(f"{file}: is damaged (its digest differs from model.json); {MEND}")
        return load_file(file)
    except (OSError, SafetensorError):
        raise RunError(f"{file}: is missing or damaged; {MEND}") from None


def read_thresholds(folder: Path) -> Thresholds:
    """The model's operating points. Raises RunError when the file is not what `ganseg calibrate` writes."""
    file = folder / "thresholds.json"
    try:
        thresholds = Thresholds(**_read(file))
        sound = all(0 <= value <= 1 for value in thresholds.regions.values())
    except (TypeError, AttributeError):
        sound = False
    if not sound:
        raise RunError(f"{file}: holds no thresholds in [0, 1]; run ganseg calibrate, or {MEND}")
    return thresholds


def weights_digest(folder: Path) -> str | None:
    """By which a model is known again. Raises RunError when model.json is missing or damaged."""
    return _read(folder / "model.json").get("weights")


def read_scheme(folder: Path) -> LabelScheme:
    """What the values of the model's masks mean. Raises RunError when model.json does not say it."""
    return _scheme(folder, _read(folder / "model.json"), _read_config(folder / "config.json"))


def is_model_folder(folder: Path) -> bool:
    """Whether this is a model folder, as `ganseg export` writes."""
    return (folder / "model.json").is_file()


def _self_contained(config: RunConfig) -> RunConfig:
    """Less the file that training began from: everything is in the model's own weights, wherever it is carried."""
    if getattr(config.system, "pretrained", None) is None:
        return config
    return override(config, {"system.pretrained": None})


def _scheme(folder: Path, description: Mapping[str, Any], config: RunConfig) -> LabelScheme:
    """What model.json says of the labels. Raises RunError where they are not those of the config's regions."""
    where = f"{folder / 'model.json'}: labels"
    try:
        return LabelScheme.of_model(description.get("labels"), config.data.regions or (), where)
    except DataError as error:
        raise RunError(f"{error}; {MEND}") from None


def _read_config(file: Path) -> RunConfig:
    try:
        return RunConfig.from_json(json.dumps(_read(file)), str(file))
    except ConfigError as error:
        raise RunError(f"{error}; {MEND}") from None


def _read(file: Path) -> dict[str, Any]:
    try:
        value = read_json(file)
    except FileNotFoundError:
        raise RunError(f"{file}: is missing; {MEND}") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{file}: is not readable JSON ({error}); {MEND}") from None
    if not isinstance(value, dict):
        raise RunError(f"{file}: is not a JSON object; {MEND}")
    return value
