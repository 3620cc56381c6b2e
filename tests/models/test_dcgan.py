import pytest
import torch
from torch import nn

from ganseg_dist.models.dcgan import DCGANDiscriminator, DCGANGenerator

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


def generator(size=32, widths=(4, 8, 8), channels=2):
    torch.manual_seed(0)
    return DCGANGenerator(6, channels, size, widths)


@pytest.mark.parametrize(("size", "widths"), [(16, (4, 8)), (24, (4, 8, 8)), (128, (4, 4, 4, 8, 8, 8))])
def test_images_of_the_size(size, widths):
    images = generator(size, widths)(torch.randn(3, 6))
    assert images.shape == (3, 2, size, size)
    assert images.abs().max() < 1


@pytest.mark.parametrize(("size", "widths"), [(16, (4,)), (24, (4, 8)), (40, (4, 8)), (128, (4, 4, 4, 8, 8))])
def test_a_logit_an_image(size, widths):
    images = torch.randn(3, 2, size, size)
    assert DCGANDiscriminator(2, size, widths)(images).shape == (3, 1)
    assert DCGANDiscriminator(2, size, widths, outputs=4)(images).shape == (3, 4)


def test_two_z_make_two_images_and_one_makes_one():
    made, z = generator(), torch.randn(2, 6)
    one, other = made(z)
    assert (one - other).abs().mean() > 0.05
    assert torch.equal(made(z), made(z))


def test_z_can_set_the_level_of_a_feature_over_the_whole_image():
    """A feature that z raises everywhere alike: instance norm would take it out again."""
    made = generator()
    with torch.no_grad():
        made.project.weight.zero_()
        made.project.weight[: 8 * 8, 0] = 1.0  # the first feature, on all of the 8 x 8 grid
    low, high = made(torch.eye(6)[:1] * torch.tensor([[-1.0], [1.0]]))
    assert (low - high).abs().mean() > 0.01


def test_an_example_does_not_depend_on_its_batch():
    z, images = torch.randn(4, 6), torch.randn(4, 2, 32, 32)
    made, judge = generator(), DCGANDiscriminator(2, 32, (4, 8))
    assert torch.allclose(made(z)[2:3], made(z[2:3]), atol=1e-5)
    assert torch.allclose(judge(images)[2:3], judge(images[2:3]), atol=1e-5)
    assert not any(isinstance(part, BATCH_NORMS) for network in (made, judge) for part in network.modules())


def test_the_first_layer_sees_absolute_intensities():
    torch.manual_seed(0)
    judge = DCGANDiscriminator(1, 16, (8,))
    dark, bright = torch.full((1, 1, 16, 16), -0.5), torch.full((1, 1, 16, 16), 0.5)
    assert not torch.allclose(judge(dark), judge(bright), atol=1e-3)


def test_the_whole_image_is_seen():
    judge, image = DCGANDiscriminator(1, 32, (4, 8)), torch.randn(1, 1, 32, 32, requires_grad=True)
    judge(image).sum().backward()
    assert (image.grad != 0).float().mean() > 0.95
