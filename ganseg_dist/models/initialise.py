"""Weight initialisation."""

from __future__ import annotations

from torch import nn

SMALL = 0.02
"""Standard deviation of a GAN's initial weights (Radford et al. 2016, Section 4; Isola et al. 2017, Appendix 6.2)."""


def xavier_initialise(network: nn.Module) -> None:
    """Xavier-uniform convolutions with zero biases, everywhere (GANet-Seg, Section 5.4.2)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def small_initialise(network: nn.Module) -> None:
    """N(0, 0.02) with zero biases, for generators of whole images and their discriminators.

    With Xavier's larger weights the first images are full of edges, and training leaves a woven texture over the
    images.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, std=SMALL)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
