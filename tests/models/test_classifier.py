import pytest
import torch
from safetensors.torch import save_file

from ganseg_dist.errors import ConfigError
from ganseg_dist.models.classifier import Classifier, load_pretrained
from ganseg_dist.models.layers import group_norm


def classifier(channels=2, classes=2, widths=(4, 8), seed=0):
    torch.manual_seed(seed)
    return Classifier(channels, classes, widths)


def saved_weights(folder, network, prefix="detector."):
    file = folder / "weights.safetensors"
    save_file({f"{prefix}{name}": tensor for name, tensor in network.state_dict().items()}, file)
    return file


@pytest.mark.parametrize("side", [16, 24, 40])
def test_classifier_returns_logit_per_class_for_any_size(side):
    assert classifier(classes=3, widths=(4, 8, 8))(torch.zeros(5, 2, side, side)).shape == (5, 3)


def test_classifier_output_does_not_depend_on_batch():
    network, images = classifier(), torch.randn(4, 2, 16, 16)
    assert torch.allclose(network(images)[1:2], network(images[1:2]), atol=1e-6)


def test_classifier_features_are_mean_and_maximum():
    network = classifier()
    network.blocks = torch.nn.ModuleList([torch.nn.Identity()])
    image = torch.zeros(1, 2, 4, 4)
    image[0, 0, 1, 2], image[0, 1] = 8.0, 0.5
    assert network.features(image).tolist() == [[0.5, 0.5, 8.0, 0.5]]


@pytest.mark.parametrize(("channels", "groups"), [(4, 1), (8, 1), (12, 1), (16, 2), (64, 8)])
def test_group_norm_has_one_group_per_8_channels_from_16_on(channels, groups):
    assert group_norm(channels).num_groups == groups


def test_group_norm_keeps_ratio_of_features_in_a_group():
    """Two flat features, 1 and 3: instance norm would make both 0."""
    image = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert group_norm(2)(image)[0, :, 0, 0].tolist() == pytest.approx([-1, 1], abs=1e-4)


@pytest.mark.parametrize("prefix", ["detector.", "classifier."])
def test_load_pretrained_copies_weights(tmp_path, prefix):
    source, network = classifier(seed=1), classifier()
    load_pretrained(network, saved_weights(tmp_path, source, prefix))
    for name, weight in source.state_dict().items():
        assert torch.equal(network.state_dict()[name], weight)


def test_load_pretrained_keeps_head_for_other_number_of_classes(tmp_path):
    source, network, fresh = classifier(classes=5, seed=1), classifier(), classifier()
    load_pretrained(network, saved_weights(tmp_path, source))
    assert torch.equal(network.head.weight, fresh.head.weight)
    assert torch.equal(network.blocks[0][0].weight, source.blocks[0][0].weight)


@pytest.mark.parametrize("other", [{"channels": 3}, {"widths": (4, 4)}, {"widths": (4,)}])
def test_load_pretrained_rejects_other_architecture(tmp_path, other):
    network, fresh = classifier(), classifier()
    with pytest.raises(ConfigError, match=r"^system\.pretrained: .*weights\.safetensors: blocks\.") as caught:
        load_pretrained(network, saved_weights(tmp_path, classifier(**other)))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), fresh.parameters(), strict=True))


def test_load_pretrained_names_non_finite_weight(tmp_path):
    source = classifier()
    source.blocks[1][0].weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(ConfigError, match=r"weights\.safetensors: blocks\.1\.0\.weight holds NaN or infinity; give"):
        load_pretrained(classifier(), saved_weights(tmp_path, source))


def test_load_pretrained_rejects_other_files(tmp_path):
    nonsense = tmp_path / "weights.pt"
    nonsense.write_bytes(b"\x80\x04not safe")
    for file in (nonsense, tmp_path / "nowhere.safetensors", tmp_path):
        with pytest.raises(ConfigError, match="is missing or no safetensors file"):
            load_pretrained(classifier(), file)
    with pytest.raises(ConfigError, match=r"has no detector\.\* or classifier\.\* weights"):
        load_pretrained(classifier(), saved_weights(tmp_path, classifier(), "segmenter."))
