"""A small convolutional classifier of whole images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ganseg_dist.errors import ConfigError
from ganseg_dist.models.layers import conv_block, group_norm, xavier_initialise

PREFIXES = ("detector.", "classifier.")
"""Names under which a file of weights may hold a `Classifier`."""


class Classifier(nn.Module):
    """Convolution blocks with max-pooling between them, global mean and maximum, a linear head.

    `widths` are the channels of the blocks, finest first; the side is halved len(widths) - 1 times.
    """

    def __init__(self, channels_in: int, classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            conv_block(below, here, group_norm) for below, here in zip([channels_in, *widths[:-1]], widths, strict=True)
        )
        self.head = nn.Linear(2 * widths[-1], classes)
        xavier_initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """(B, channels_in, H, W) to logits (B, K)."""
        logits: Tensor = self.head(self.features(image))
        return logits

    def features(self, image: Tensor) -> Tensor:
        """The head's input, (B, 2 * widths[-1]): global means for diffuse features, maxima for small lesions."""
        for index, block in enumerate(self.blocks):
            image = block(F.max_pool2d(image, 2) if index else image)
        return torch.cat([image.mean((2, 3)), image.amax((2, 3))], dim=1)


def load_pretrained(classifier: Classifier, file: Path) -> None:
    """Load the `detector.*` or `classifier.*` tensors of a safetensors file.

    The head keeps its weights where the file's has another shape. Raises ConfigError naming what does not fit.
    """
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError):
        raise ConfigError(f"system.pretrained: {file} is missing or no safetensors file; give one") from None
    stored = {
        name.removeprefix(prefix): tensor
        for prefix in PREFIXES
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    if not stored:
        raise ConfigError(f"system.pretrained: {file} has no detector.* or classifier.* weights; give another file")
    weights = classifier.state_dict()
    for name, current in weights.items():
        if name in stored and stored[name].shape == current.shape:
            weights[name] = stored[name]
        elif not name.startswith("head."):
            status = f"of shape {tuple(stored[name].shape)}" if name in stored else "missing"
            raise ConfigError(
                f"system.pretrained: {file}: {name} is {status} and not of shape {tuple(current.shape)}; "
                "take the system.widths and data.modalities that it was trained with"
            )
        if not weights[name].isfinite().all():
            raise ConfigError(f"system.pretrained: {file}: {name} holds NaN or infinity; give another file")
    classifier.load_state_dict(weights)
