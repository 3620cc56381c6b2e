import pytest
import torch
from safetensors.torch import save_file

from ganseg_dist.errors import ConfigError
from ganseg_dist.models.vgg16 import VGG16, hidden_units

WIDTH = 2


def network(channels: int = 3, classes: int = 5) -> VGG16:
    torch.manual_seed(0)
    return VGG16(channels, classes, WIDTH)


def test_vgg16_layers_are_configuration_d():
    weights = {name: tuple(w.shape) for name, w in network(classes=1000).state_dict().items() if "weight" in name}
    widths = [WIDTH * times for times in (1, 1, 2, 2, 4, 4, 4, 8, 8, 8, 8, 8, 8)]
    kernels = [(here, below, 3, 3) for below, here in zip([3, *widths[:-1]], widths, strict=True)]
    hidden = WIDTH * 64
    assert list(weights.values()) == [*kernels, (hidden, widths[-1] * 7 * 7), (hidden, hidden), (1000, hidden)]
    assert list(weights)[-4:] == ["features.28.weight", *(f"classifier.{layer}.weight" for layer in (0, 3, 6))]
    assert hidden_units(64) == 4096


@pytest.mark.parametrize(("channels", "side"), [(1, 16), (4, 40)])
def test_vgg16_accepts_any_channels_and_side(channels, side):
    assert network(channels)(torch.randn(2, channels, side, side)).shape == (2, 5)


def test_vgg16_applies_given_dropout_mask():
    vgg, image = network(), torch.randn(2, 3, 32, 32)
    nothing = torch.zeros(2, 2 * hidden_units(WIDTH))
    assert torch.equal(vgg(image, torch.ones_like(nothing)), vgg(image))
    assert torch.equal(vgg(image, nothing), torch.zeros(2, 5))
    assert torch.equal(vgg.train()(image), vgg.eval()(image))


def test_vgg16_load_pretrained_copies_all_but_last_layer(tmp_path):
    given, file = network(classes=7), tmp_path / "vgg.safetensors"
    save_file(given.state_dict(), file)
    torch.manual_seed(1)
    fresh = VGG16(3, 5, WIDTH)
    head = fresh.classifier["6"].weight.clone()
    fresh.load_pretrained(file)
    assert torch.equal(fresh.features(torch.ones(1, 3, 32, 32)), given.features(torch.ones(1, 3, 32, 32)))
    assert torch.equal(fresh.classifier["3"].weight, given.classifier["3"].weight)
    assert torch.equal(fresh.classifier["6"].weight, head)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_vgg16_load_pretrained_adapts_first_layer_to_grey(tmp_path, channels):
    given, file = network(), tmp_path / "vgg.safetensors"
    save_file(given.state_dict(), file)
    other = network(channels)
    other.load_pretrained(file)
    grey = torch.randn(1, 1, 16, 16)
    in_colour, in_channels = (net.features[0](grey.expand(1, c, 16, 16)) for net, c in ((given, 3), (other, channels)))
    assert torch.allclose(in_colour, in_channels, atol=1e-5)


def test_vgg16_load_pretrained_rejects_other_file(tmp_path):
    file = tmp_path / "vgg.safetensors"
    file.write_bytes(b"a pickle, perhaps")
    with pytest.raises(ConfigError, match=r"vgg\.safetensors: cannot be read as safetensors"):
        network().load_pretrained(file)


def test_vgg16_load_pretrained_rejects_other_size(tmp_path):
    file = tmp_path / "vgg.safetensors"
    save_file(VGG16(3, 5, 4).state_dict(), file)
    with pytest.raises(ConfigError, match=r"features\.0\.weight is missing or of another size than \(2, 3, 3, 3\)"):
        network().load_pretrained(file)
