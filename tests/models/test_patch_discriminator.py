import pytest
import torch

from ganseg_dist.models.patch_discriminator import PatchDiscriminator


@pytest.mark.parametrize(("widths", "side"), [((4,), 16), ((4, 8), 8), ((4, 8, 8), 4)])
def test_patch_discriminator_returns_logit_per_patch(widths, side):
    assert PatchDiscriminator(3, widths)(torch.zeros(2, 3, 32, 32)).shape == (2, 1, side, side)


def test_patch_discriminator_returns_unbounded_logits():
    torch.manual_seed(0)
    logits = PatchDiscriminator(1, (8, 8))(10 * torch.randn(8, 1, 32, 32))
    assert logits.min() < 0
    assert logits.max() > 1


def test_patch_discriminator_distinguishes_absolute_intensities():
    """Two flat images differ in their level only, which a norm after the first layer would remove."""
    torch.manual_seed(0)
    network = PatchDiscriminator(1, (8,))
    dark, bright = torch.full((1, 1, 16, 16), -0.5), torch.full((1, 1, 16, 16), 0.5)
    assert (network(dark) - network(bright)).abs().min() > 1e-3
