"""Features of images for distances between distributions, and the names of these distances.

FID and KID are defined on features of Inception v3, whose weights no package ships: with the user's file the distances
are `fid` and `kid`, and over the run's segmenter or detector `fid_encoder` and `kid_encoder`, which compare only with
distances under the same network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ganseg_dist.errors import DataError, MissingDependency, RunError
from ganseg_dist.metrics.synthesis import Images, frechet_distance, kernel_distance
from ganseg_dist.models.classifier import Classifier
from ganseg_dist.models.unet import UNet
from ganseg_dist.synthesis.results import Distances
from ganseg_dist.systems.base import System

IMAGES_AT_ONCE = 16
INCEPTION_SIDE = 299
INCEPTION_FEATURES = 2048


@dataclass(frozen=True, slots=True)
class OwnEncoder:
    """The coarsest features of a network with max-pooling between its levels, and its first convolution's raw output.

    The coarse ones, averaged over the image, describe its content, but normalisation over an image makes them
    insensitive to brightness, contrast and texture. Those show in the mean and the spread of the first convolution's
    output, before any normalisation.
    """

    levels: nn.ModuleList
    """Finest first; each begins with a convolution."""
    suffix: str = "_encoder"
    """Ends the names of its distances."""

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, D), D the channels of the last level and twice those of the first convolution."""
        features = images.to(next(self.levels.parameters()).device)
        finest = self.levels[0]
        assert isinstance(finest, nn.Sequential)
        raw = finest[0](features).float()
        for depth, level in enumerate(self.levels):
            features = level(nn.functional.max_pool2d(features, 2) if depth else features)
        coarse = features.float().mean(dim=(2, 3))
        return torch.cat([coarse, raw.mean(dim=(2, 3)), raw.std(dim=(2, 3))], dim=1)


@dataclass(frozen=True, slots=True)
class InceptionEncoder:
    """The user's Inception v3, run by ONNX Runtime: (N, 3, 299, 299) in [-1, 1] to (N, 2048)."""

    session: Any
    suffix: str = ""

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 1 or 3, H, W) to (B, 2048); grey is given to all three colours, and any size is resampled.

        Raises DataError for another number of channels.
        """
        if images.shape[1] not in (1, 3):
            raise DataError(f"fid: images of {images.shape[1]} channels, Inception takes 1 or 3; give one modality")
        side = (INCEPTION_SIDE, INCEPTION_SIDE)
        resampled = nn.functional.interpolate(images.float().cpu(), side, mode="bilinear", antialias=True)
        image = resampled.expand(-1, 3, -1, -1).contiguous().numpy()
        return torch.from_numpy(self.session.run(None, {self.session.get_inputs()[0].name: image})[0])


Encoder = OwnEncoder | InceptionEncoder


def own_encoder(system: System) -> OwnEncoder:
    """The encoder of a system's segmenter or detector. Raises RunError when it has neither.

    A detector trained on generated images has them labelled with their class: in its coarse features, what they share
    with real ones weighs more than what distinguishes them.
    """
    segmenter, detector = (system.networks.get(name) for name in ("segmenter", "detector"))
    if isinstance(segmenter, UNet):
        return OwnEncoder(segmenter.encoder)
    if isinstance(detector, Classifier):
        return OwnEncoder(detector.blocks)
    raise RunError(
        "fid_encoder: this model has no segmenter or detector whose features to take; give an Inception file"
    )


def load_inception(file: Path) -> InceptionEncoder:
    """An Inception v3 in ONNX, from its image in [-1, 1], (N, 3, 299, 299), to its last pooled features, (N, 2048).

    That the weights are those of published FIDs is not checked.

    Raises MissingDependency when the onnx extra is not installed, and RunError when the file is missing, is no ONNX
    or has other shapes.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependency(f"{file}: needs the onnx extra: pip install 'ganseg-dist[onnx]'") from None
    if not file.is_file():
        raise RunError(f"{file}: is not there; give an Inception v3 as an .onnx file")
    try:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception:  # ONNX Runtime raises errors of many classes
        raise RunError(f"{file}: is not a model that ONNX Runtime can read; export it again") from None
    takes, gives = ([part.shape for part in parts] for parts in (session.get_inputs(), session.get_outputs()))
    side = INCEPTION_SIDE
    if [shape[1:] for shape in takes] != [[3, side, side]] or [shape[1:] for shape in gives] != [[INCEPTION_FEATURES]]:
        raise RunError(
            f"{file}: takes {takes} and gives {gives}; "
            f"an Inception for FID takes (N, 3, {side}, {side}) and gives (N, {INCEPTION_FEATURES})"
        )
    return InceptionEncoder(session)


def features(encoder: Encoder, images: Images) -> npt.NDArray[np.float32]:
    """Features (N, D) of images (N, C, H, W) in [-1, 1], a few at a time."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), IMAGES_AT_ONCE):
            few = torch.from_numpy(np.ascontiguousarray(images[start : start + IMAGES_AT_ONCE], np.float32))
            parts.append(encoder(few).cpu().numpy())
    return np.concatenate(parts)


def distribution_distances(encoder: Encoder, synthetic: Images, real: Images) -> Distances:
    """Frechet and kernel distance between images (N, C, H, W) and (M, C, H, W), each by its name.

    Raises DataError when either has fewer than four images.
    """
    both = [features(encoder, images) for images in (synthetic, real)]
    return {f"fid{encoder.suffix}": frechet_distance(*both), f"kid{encoder.suffix}": kernel_distance(*both)}
