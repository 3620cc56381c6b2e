"""VGG16, a baseline of DL-GAN-CNN, for any number of channels."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ganseg_dist.errors import ConfigError

BLOCKS = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
"""Configuration D of Simonyan and Zisserman 2015: each block's width, in multiples of the first, and its layers."""

POOLED = 7
"""Side of the map that the fully connected layers take, for any image size."""

FIRST, LAST = "features.0.weight", "classifier.6"
"""Names of the layers that depend on the number of channels and of classes."""


class VGG16(nn.Module):
    """VGG16 without batch normalisation, randomly initialised; parameters are named as torchvision names them.

    `width` is that of the first block: 64 in the published network, fewer give a smaller one of the same structure.
    """

    def __init__(self, channels_in: int, classes: int, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        below = channels_in
        for multiple, depth in BLOCKS:
            for _ in range(depth):
                layers += [nn.Conv2d(below, multiple * width, 3, padding=1), nn.ReLU(inplace=True)]
                below = multiple * width
            layers.append(nn.MaxPool2d(2, ceil_mode=True))  # so that an image of 16 pixels can be halved five times
        self.features = nn.Sequential(*layers)
        hidden = hidden_units(width)
        self.classifier = nn.ModuleDict(
            {
                "0": nn.Linear(below * POOLED**2, hidden),
                "3": nn.Linear(hidden, hidden),
                "6": nn.Linear(hidden, classes),
            }
        )
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
                nn.init.zeros_(part.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """(B, channels_in, H, W) to logits (B, K).

        `kept`, (B, 2 * hidden_units(width)), is a dropout factor for each unit of the two hidden layers. The caller
        samples it, so that dropout depends on seed, epoch and example alone.
        """
        units = F.adaptive_avg_pool2d(self.features(x), POOLED).flatten(1)
        for layer, factors in zip(("0", "3"), (None, None) if kept is None else kept.chunk(2, dim=1), strict=True):
            units = torch.relu(self.classifier[layer](units))
            if factors is not None:
                units = units * factors
        logits: Tensor = self.classifier["6"](units)
        return logits

    def load_pretrained(self, file: Path) -> None:
        """Load weights named as torchvision names them; the last layer, which is for other classes, stays random.

        For other numbers of channels, the kernels of three colours are averaged and scaled so that the layer's
        output keeps its size. Raises ConfigError when the file is no safetensors file of a VGG16 of this width.
        """
        try:
            weights = load_file(file)
        except (OSError, SafetensorError):
            raise ConfigError(
                f"system.pretrained: {file}: cannot be read as safetensors; convert the weights to that format"
            ) from None
        expected = self.state_dict()
        colours = weights.get(FIRST)
        if colours is not None and colours.ndim == 4 and colours.shape[1] != expected[FIRST].shape[1]:
            channels = expected[FIRST].shape[1]
            mean = colours.mean(dim=1, keepdim=True)
            weights[FIRST] = mean.expand(-1, channels, -1, -1) * (colours.shape[1] / channels)
        for name, tensor in expected.items():
            if name.startswith(LAST):
                weights[name] = tensor
            elif name not in weights or weights[name].shape != tensor.shape:
                raise ConfigError(
                    f"system.pretrained: {file}: {name} is missing or of another size than {tuple(tensor.shape)}; "
                    "give the weights of a VGG16 without batch normalisation, and leave system.vgg_width at 64"
                )
            elif not weights[name].isfinite().all():
                raise ConfigError(f"system.pretrained: {file}: {name} holds NaN or infinity; give other weights")
        self.load_state_dict({name: weights[name] for name in expected})


def hidden_units(width: int) -> int:
    """Units of each of VGG16's two hidden layers: 4096 in the published network."""
    return 64 * width
