import pytest
import torch

from ganseg_dist.systems.dl_gan_cnn.networks import FeatureGenerator


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_feature_generator_keeps_channels_within_tanh_range(channels):
    torch.manual_seed(0)
    feature_map = FeatureGenerator(channels + 1, channels, (4, 8, 8))(torch.randn(2, channels + 1, 16, 16))
    assert feature_map.shape == (2, channels, 16, 16)
    assert feature_map.abs().max() < 1


def test_feature_generator_skips_input_to_output_layer():
    generator = FeatureGenerator(2, 1, (4, 8))
    torch.nn.init.zeros_(generator.head.weight)
    with torch.no_grad():
        generator.head.weight[0, 4] = 2.0  # the first channel behind the U-Net's four is the image
    x = torch.linspace(-1, 1, 2 * 2 * 8 * 8).reshape(2, 2, 8, 8)
    assert torch.allclose(generator(x), torch.tanh(2 * x[:, :1]))


def test_feature_generator_output_does_not_depend_on_batch():
    torch.manual_seed(0)
    generator, x = FeatureGenerator(2, 1, (4, 8)), torch.randn(3, 2, 16, 16)
    assert torch.allclose(generator(x)[:1], generator(x[:1]), atol=1e-4)
