import pytest
import torch
from torch import nn

from ganseg_dist.models.dcgan import DCGANDiscriminator, DCGANGenerator

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


def generator(size=32, widths=(4, 8, 8), channels=2):
    torch.manual_seed(0)
    return DCGANGenerator(6, channels, size, widths)


@pytest.mark.parametrize(("size", "widths"), [(16, (4, 8)), (24, (4, 8, 8)), (128, (4, 4, 4, 8, 8, 8))])
def test_dcgan_generator_returns_images_in_range(size, widths):
    images = generator(size, widths)(torch.randn(3, 6))
    assert images.shape == (3, 2, size, size)
    assert images.abs().max() < 1


@pytest.mark.parametrize(("size", "widths"), [(16, (4,)), (24, (4, 8)), (40, (4, 8)), (128, (4, 4, 4, 8, 8))])
def test_dcgan_discriminator_returns_logits_per_image(size, widths):
    images = torch.randn(3, 2, size, size)
    assert DCGANDiscriminator(2, size, widths)(images).shape == (3, 1)
    assert DCGANDiscriminator(2, size, widths, outputs=4)(images).shape == (3, 4)


def test_dcgan_generator_depends_on_z_and_is_deterministic():
    network, z = generator(), torch.randn(2, 6)
    one, other = network(z)
    assert (one - other).abs().mean() > 0.05
    assert torch.equal(network(z), network(z))


def test_dcgan_generator_z_changes_global_level():
    """z raises a feature uniformly, which instance norm would remove."""
    network = generator()
    with torch.no_grad():
        network.project.weight.zero_()
        network.project.weight[: 8 * 8, 0] = 1.0  # the first feature, on all of the 8 x 8 grid
    low, high = network(torch.eye(6)[:1] * torch.tensor([[-1.0], [1.0]]))
    assert (low - high).abs().mean() > 0.01


def test_dcgan_outputs_do_not_depend_on_batch():
    z, images = torch.randn(4, 6), torch.randn(4, 2, 32, 32)
    network, discriminator = generator(), DCGANDiscriminator(2, 32, (4, 8))
    assert torch.allclose(network(z)[2:3], network(z[2:3]), atol=1e-5)
    assert torch.allclose(discriminator(images)[2:3], discriminator(images[2:3]), atol=1e-5)
    assert not any(isinstance(part, BATCH_NORMS) for model in (network, discriminator) for part in model.modules())


def test_dcgan_discriminator_distinguishes_absolute_intensities():
    torch.manual_seed(0)
    discriminator = DCGANDiscriminator(1, 16, (8,))
    dark, bright = torch.full((1, 1, 16, 16), -0.5), torch.full((1, 1, 16, 16), 0.5)
    assert (discriminator(dark) - discriminator(bright)).abs().min() > 1e-3


def test_dcgan_discriminator_sees_whole_image():
    discriminator, image = DCGANDiscriminator(1, 32, (4, 8)), torch.randn(1, 1, 32, 32, requires_grad=True)
    discriminator(image).sum().backward()
    assert (image.grad != 0).float().mean() > 0.95
