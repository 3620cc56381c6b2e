import pytest
import torch

from ganseg_dist.systems.dl_gan_cnn.networks import FeatureGenerator


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_feature_map_has_the_image_s_channels_and_lies_within_tanh(channels):
    torch.manual_seed(0)
    made = FeatureGenerator(channels + 1, channels, (4, 8, 8))(torch.randn(2, channels + 1, 16, 16))
    assert made.shape == (2, channels, 16, 16)
    assert made.abs().max() < 1


def test_the_input_reaches_the_output_layer_as_it_is():
    generator = FeatureGenerator(2, 1, (4, 8))
    torch.nn.init.zeros_(generator.head.weight)
    with torch.no_grad():
        generator.head.weight[0, 4] = 2.0  # the first channel behind the U-Net's four is the image
    x = torch.linspace(-1, 1, 2 * 2 * 8 * 8).reshape(2, 2, 8, 8)
    assert torch.allclose(generator(x), torch.tanh(2 * x[:, :1]))


def test_no_example_depends_on_its_batch():
    torch.manual_seed(0)
    generator, x = FeatureGenerator(2, 1, (4, 8)), torch.randn(3, 2, 16, 16)
    assert torch.allclose(generator(x)[:1], generator(x[:1]), atol=1e-4)
