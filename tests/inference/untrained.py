"""Untrained models, for tests to which the weights do not matter."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.labels import BRATS, LabelScheme
from ganseg_dist.inference.model_folder import Thresholds, write_model
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.systems import build_system, recipe


def untrained_weights(config: RunConfig, file: Path) -> Path:
    torch.manual_seed(0)
    networks = build_system(config).networks
    weights = {
        f"{name}.{key}": value for name, network in networks.items() for key, value in network.state_dict().items()
    }
    for name in ("generator.condition_stem.weight", "generator.image_head.weight"):
        if name in weights:  # initial weights are so small that images are grey and no head is found
            weights[name] = 20 * weights[name]
    save_file(weights, file)
    return file


def model_folder(
    folder: Path,
    modalities: tuple[str, ...],
    regions: tuple[str, ...],
    *,
    thresholds: Thresholds | None = None,
    facts: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
    scheme: LabelScheme | None = None,
) -> Path:
    config = override(
        recipe("ganet_seg_debug"),
        {"data.modalities": list(modalities), "data.regions": list(regions), **(changes or {})},
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    weights = untrained_weights(config, folder.with_suffix(".untrained"))
    write_model(
        folder,
        config,
        weights,
        scheme or BRATS.of_regions(regions),
        card="",
        facts=facts or {},
        thresholds=thresholds or Thresholds(),
    )
    return folder


def predictor(folder: Path, modalities: tuple[str, ...], regions: tuple[str, ...], **more: Any) -> Predictor:
    return Predictor.load(model_folder(folder, modalities, regions, **more))
