import pytest
import torch
from torch import nn

from ganseg_dist.models.layers import instance_norm
from ganseg_dist.models.unet import UNet


def test_unet_keeps_image_shape_and_reports_downsampling():
    network = UNet(4, 3, (4, 8, 12))
    assert network.downsampling == 4
    assert network(torch.zeros(2, 4, 16, 24)).shape == (2, 3, 16, 24)


def test_unet_parameter_count_matches_hand_computation():
    """Encoder blocks 1-2 and 2-3, transposed 3-2, decoder 4-2, head 2-1; two affine numbers per channel and norm."""
    blocks = [(1, 2), (2, 3), (4, 2)]
    convolutions = sum(9 * (below * here + here * here) + 2 * 2 * here for below, here in blocks)
    upsample, head = 4 * 3 * 2 + 2, 2 * 1 + 1
    assert sum(p.numel() for p in UNet(1, 1, (2, 3)).parameters()) == convolutions + upsample + head


def test_unet_skips_carry_pixel_detail():
    """With the upsampling path zeroed, a changed pixel changes the output most in its own neighbourhood."""
    torch.manual_seed(0)
    network = UNet(1, 1, (4, 4)).eval()
    for layer in network.upsample:
        nn.init.zeros_(layer.weight)
    image = torch.rand(1, 1, 8, 8)
    changed = image.clone()
    changed[..., 3, 3] += 1
    difference = (network(changed) - network(image)).abs()[0, 0]
    assert difference.max() > 0.1
    row, column = divmod(int(difference.argmax()), 8)
    assert max(abs(row - 3), abs(column - 3)) <= 2


def test_instance_norm_equals_torch_instance_norm():
    x = torch.randn(2, 5, 6, 7)
    assert torch.allclose(instance_norm(5)(x), nn.InstanceNorm2d(5)(x), atol=1e-5)


def test_unet_initialises_xavier_weights_and_zero_biases():
    torch.manual_seed(0)
    network = UNet(4, 3, (64, 128))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(layer.weight)
            bound = (6 / (fan_in + fan_out)) ** 0.5
            assert layer.weight.abs().max() <= bound
            assert layer.weight.abs().max() > 0.9 * bound
            assert layer.bias is None or (layer.bias == 0).all()


def test_unet_rejects_side_that_cannot_be_halved():
    with pytest.raises(RuntimeError):
        UNet(1, 1, (2, 2, 2))(torch.zeros(1, 1, 10, 10))
