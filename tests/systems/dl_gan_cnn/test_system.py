import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch.nn import functional as F

from ganseg_dist.config import override
from ganseg_dist.data.batch import BACKGROUND, Batch
from ganseg_dist.engine.step import train_step
from ganseg_dist.engine.trainer import prepare_state
from ganseg_dist.engine.world import World
from ganseg_dist.errors import ConfigError
from ganseg_dist.models.vgg16 import VGG16
from ganseg_dist.systems import build_system
from ganseg_dist.systems.dl_gan_cnn.config import DLGANCNNConfig
from ganseg_dist.systems.dl_gan_cnn.recipes import dl_gan_cnn, dl_gan_cnn_debug
from ganseg_dist.systems.dl_gan_cnn.system import DLGANCNN, saturating_generator_loss

SIDE = 32
SEEN = {"data.modalities": ["t1", "flair"], "data.classes": ["no lesion", "lesion"]}
MASKS = {"data.regions": ["wt"]}


def config(**changes):
    return override(dl_gan_cnn_debug(), SEEN | changes)


def system(**changes) -> DLGANCNN:
    torch.manual_seed(0)
    return build_system(config(**changes))


def disc(radius: float) -> torch.Tensor:
    axis = torch.arange(SIDE) - SIDE / 2 + 0.5
    return ((axis[:, None] ** 2 + axis[None] ** 2).sqrt() < radius).float()


def heads(channels: int = 2, examples: int = 4) -> Batch:
    """Round heads; the brightest cluster is a disc of radius 8, every other head has a lesion of radius 4."""
    torch.manual_seed(1)
    image = torch.where(disc(14) > 0, torch.rand(examples, channels, SIDE, SIDE) - 0.5, BACKGROUND)
    kmeans = torch.where(disc(8) > 0, 1.0, BACKGROUND).expand(examples, 1, SIDE, SIDE)
    label = torch.arange(examples) % 2
    regions = disc(4) * label[:, None, None, None]
    return Batch(torch.cat([image, kmeans], dim=1), regions, torch.arange(examples), label)


def with_samples(model: DLGANCNN, batch: Batch, stage: str = "classify") -> Batch:
    samples = [model.sample(stage, np.random.default_rng(example)) for example in range(len(batch.label))]
    return replace(
        batch, samples={name: torch.from_numpy(np.stack([one[name] for one in samples])) for name in samples[0]}
    )


def rows_of(batch: Batch, rows: slice) -> Batch:
    samples = {name: value[rows] for name, value in batch.samples.items()}
    return Batch(batch.image[rows], batch.regions[rows], batch.case[rows], batch.label[rows], samples)


ARMS = {
    "with the GAN": {},
    "with the GAN, from masks": MASKS,
    "as the paper reads": {"system.reading": "paper"},
    "the plain CNN": {"system.gan": False},
    "VGG16": {"system.gan": False, "system.classifier": "vgg16"},
    "VGG16 on feature maps": {"system.classifier": "vgg16"},
}
EVERY_ARM = pytest.mark.parametrize("changes", ARMS.values(), ids=ARMS)


def test_dl_gan_cnn_rejects_unresolved_config():
    with pytest.raises(ConfigError, match="resolved from a cohort"):
        build_system(dl_gan_cnn_debug())


def test_dl_gan_cnn_rejects_generator_without_clusters():
    with pytest.raises(ConfigError, match=r"data\.clusters: the generator needs the initial mask"):
        system(**{"data.clusters": None})
    assert system(**{"data.clusters": None, "system.gan": False})


def test_dl_gan_cnn_stages_with_and_without_gan():
    features, classify = system().stages
    assert [(p.name, p.trains, dict(p.weights)) for p in features.phases] == [
        ("discriminator", ("discriminator",), {"discriminator": 1.0}),
        ("generator", ("generator",), {"adversarial": 1.0, "reconstruction": 100.0}),
    ]
    assert features.monitor.scores == ()  # its last epoch is kept
    assert [(p.name, p.trains) for p in classify.phases] == [("classifier", ("classifier",))]
    assert (classify.monitor.scores, classify.monitor.mode) == (("cross_entropy",), "min")
    plain = system(**{"system.gan": False})
    assert plain.networks.keys() == {"classifier"}
    assert [stage.name for stage in plain.stages] == ["classify"]


def test_dl_gan_cnn_vgg16_uses_vgg_learning_rate():
    rates = {"train.learning_rate": 2e-3, "system.vgg_learning_rate": 3e-5}
    assert system(**rates).stages[-1].learning_rate == 2e-3
    vgg = {"system.gan": False, "system.classifier": "vgg16"}
    assert system(**rates, **vgg).stages[-1].learning_rate == 3e-5


def test_discriminator_channels_follow_reading():
    assert dl_gan_cnn().system.discriminator_channels == (64, 128, 256)
    assert override(dl_gan_cnn(), {"system.reading": "paper"}).system.discriminator_channels == (64, 32, 16)
    assert dl_gan_cnn_debug().system.discriminator_channels == (4, 8)


def test_dl_gan_cnn_arm_names_classifier():
    assert DLGANCNNConfig().arm == "DL-GAN-CNN (CNN)"
    assert DLGANCNNConfig().control().arm == "CNN"
    assert DLGANCNNConfig(gan=False, classifier="vgg16").arm == "VGG16, random initialisation"
    assert DLGANCNNConfig(gan=False, classifier="vgg16", pretrained="vgg.safetensors").arm == "VGG16, pretrained"


def test_dl_gan_cnn_control_keeps_classifier():
    control = DLGANCNNConfig(classifier="vgg16", vgg_width=8, features_epochs=3, reading="paper").control()
    assert (control.gan, control.classifier, control.vgg_width, control.reading) == (False, "vgg16", 8, "paper")
    assert control.features_epochs == DLGANCNNConfig().features_epochs


def test_dl_gan_cnn_config_rejects_unknown_classifier():
    with pytest.raises(ValidationError, match="cnn"):
        DLGANCNNConfig(classifier="vgg19")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_dl_gan_cnn_accepts_any_number_of_modalities(channels):
    model = system(**{"data.modalities": [f"m{index}" for index in range(channels)], "data.classes": ["a", "b", "c"]})
    batch = heads(channels)
    prediction = model.predict(batch)
    assert prediction.classes.shape == (4, 3)
    assert torch.allclose(prediction.classes.sum(1), torch.ones(4))
    assert prediction.synthetic.shape == (4, channels, SIDE, SIDE)
    assert all(torch.isfinite(term) for phase in model.networks for term in model.losses(phase, batch).values())


def test_real_features_are_image_inside_mask():
    batch = heads()
    real = system(**MASKS).real_features(batch)
    inside = batch.regions.expand_as(real) > 0
    assert torch.equal(real[inside], batch.image[:, :2][inside])
    assert (real[~inside] == BACKGROUND).all()
    assert (real[0] == BACKGROUND).all()  # no lesion, nothing on the map


def test_real_features_without_masks_are_image_inside_dilated_cluster():
    batch = heads()
    real = system().real_features(batch)
    rim = F.max_pool2d(disc(8)[None], 5, stride=1, padding=2)[0] > 0
    assert rim.sum() > disc(8).sum()
    assert torch.equal(real[:, :, rim], batch.image[:, :2, rim])
    assert (real[:, :, ~rim] == BACKGROUND).all()


def test_features_are_background_outside_foreground():
    model, batch = system(), heads()
    features = model.features(batch)
    assert (features[:, :, disc(14) == 0] == BACKGROUND).all()
    assert (features[:, :, disc(14) > 0] > BACKGROUND).all()


def test_condition_ignores_brightness_of_kmeans_channel():
    model, batch = system(), heads()
    duller = batch.image.clone()
    duller[:, 2] = torch.where(duller[:, 2] > BACKGROUND, duller[:, 2] * 0.9 - 0.1, BACKGROUND)
    assert torch.equal(model.condition(replace(batch, image=duller)), model.condition(batch))


@EVERY_ARM
def test_dl_gan_cnn_step_changes_trained_networks_only(changes):
    settings = config(**changes)
    model = system(**changes)
    state = prepare_state(model, settings, World())
    for stage in model.stages:
        batch = with_samples(model, heads(), stage.name)
        for phase in stage.phases:
            before = {name: {k: v.clone() for k, v in net.state_dict().items()} for name, net in model.networks.items()}
            logged = train_step(model, phase, batch, settings, state, World())
            assert {name.split("/")[1] for name in logged} == set(phase.weights)
            changed = {
                name
                for name, net in model.networks.items()
                if any(not torch.equal(value, before[name][key]) for key, value in net.state_dict().items())
            }
            assert changed == set(phase.trains)


@EVERY_ARM
def test_dl_gan_cnn_gradients_of_half_batches_average_to_whole(changes):
    model = system(**changes)
    for stage in model.stages:
        batch = with_samples(model, heads(), stage.name)
        batch = replace(batch, label=torch.tensor([0, -1, 1, 1]))  # the halves know unequally many classes
        for phase in stage.phases:
            whole = gradients(model, phase, batch)
            halves = [gradients(model, phase, rows_of(batch, rows)) for rows in (slice(2), slice(2, 4))]
            assert whole
            for one, *others in zip(whole, *halves, strict=True):
                assert torch.allclose(one, sum(others) / 2, rtol=1e-4, atol=1e-6)


def gradients(model: DLGANCNN, phase, batch: Batch) -> list[torch.Tensor]:
    weights = [weight for name in phase.trains for weight in model.networks[name].parameters()]
    total = sum(phase.weights[name] * term for name, term in model.losses(phase.name, batch).items())
    return list(torch.autograd.grad(total, weights))


def test_dl_gan_cnn_discriminator_sees_condition_unless_paper_reading():
    batch = heads()
    other = replace(batch, image=torch.cat([batch.image[:, :2], -batch.image[:, 2:]], dim=1))
    features = batch.image[:, :2]
    corrected, paper = system(), system(**{"system.reading": "paper"})
    assert not torch.equal(corrected._discriminate(features, batch), corrected._discriminate(features, other))
    assert torch.equal(paper._discriminate(features, batch), paper._discriminate(features, other))


def test_saturating_generator_loss_is_equation_8():
    logits = torch.tensor([[0.0], [-30.0]], requires_grad=True)  # D(G) of 1/2 and of almost 0
    loss = saturating_generator_loss(logits)
    assert loss.item() == pytest.approx((math.log(0.5) + 0) / 2, abs=1e-6)
    (slope,) = torch.autograd.grad(loss, logits)
    assert slope.ravel().tolist() == pytest.approx([-0.25, 0])  # no slope where D is sure
    assert set(system(**{"system.reading": "paper"}).losses("generator", heads())) == {"adversarial"}


def test_dl_gan_cnn_feature_scores_match_hand_computation():
    model, batch = system(**MASKS), heads()
    image = torch.where(disc(14) > 0, 0.5, BACKGROUND).expand(4, 2, SIDE, SIDE)
    batch = replace(batch, image=torch.cat([image, batch.image[:, 2:]], dim=1))
    model.features = lambda shown: torch.where(disc(14) > 0, -0.7, BACKGROUND).expand(4, 2, SIDE, SIDE)
    scores = model.validate("features", batch)
    foreground, lesion = disc(14).sum().item(), disc(4).sum().item()
    l1 = (scores["l1"].numerator / scores["l1"].denominator).tolist()
    with_lesion = (1.2 * lesion + 0.3 * (foreground - lesion)) / foreground
    assert l1 == pytest.approx([0.3, with_lesion] * 2, rel=1e-5)
    presence = scores["presence"]
    assert (presence.relevant > 0).tolist() == [False, True, False, True]
    assert (presence.numerator / presence.denominator)[1::2].tolist() == pytest.approx([0.3 / 1.5] * 2, rel=1e-5)


def test_dl_gan_cnn_classifier_scores_match_hand_computation():
    model, batch = system(**{"system.gan": False}), replace(heads(), label=torch.tensor([0, 1, 0, -1]))
    model.networks["classifier"].forward = lambda image: torch.tensor([[0.0, 0.0], [0.0, 9.0], [0.0, 9.0], [9.0, 0.0]])
    scores = model.validate("classify", batch)
    assert scores["accuracy"].numerator.tolist() == [1, 1, 0, 0]
    assert scores["cross_entropy"].numerator.tolist() == pytest.approx([math.log(2), 0, 9, 0], abs=1e-3)
    assert all(ratio.relevant.tolist() == ratio.denominator.tolist() == [1, 1, 1, 0] for ratio in scores.values())


def test_dl_gan_cnn_samples_dropout_for_vgg16_training_only():
    model = system(**{"system.gan": False, "system.classifier": "vgg16"})
    kept = model.sample("classify", np.random.default_rng(0))["kept"]
    assert kept.shape == (2 * 128,)
    assert set(np.unique(kept)) == {0.0, 2.0}
    assert 0.3 < (kept > 0).mean() < 0.7
    batch = with_samples(model, heads())
    assert torch.equal(model.predict(batch).classes, model.predict(heads()).classes)
    assert not torch.equal(
        model.losses("classifier", batch)["cross_entropy"], model.losses("classifier", heads())["cross_entropy"]
    )
    assert system().sample("classify", np.random.default_rng(0)) == {}


def test_dl_gan_cnn_vgg16_loads_pretrained_weights(tmp_path):
    torch.manual_seed(5)
    given, file = VGG16(3, 10, 2), tmp_path / "vgg.safetensors"
    save_file(given.state_dict(), file)
    model = system(**{"system.gan": False, "system.classifier": "vgg16", "system.pretrained": str(file)})
    assert torch.equal(model.networks["classifier"].features[2].weight, given.features[2].weight)


def test_dl_gan_cnn_generator_learns_lesion_features():
    changes = MASKS | {"train.learning_rate": 5e-3, "train.weight_decay": 0.0}
    settings, model, batch = config(**changes), system(**changes), heads()
    state = prepare_state(model, settings, World())
    before = l1(model, batch)
    for _ in range(60):
        for phase in model.stages[0].phases:
            train_step(model, phase, batch, settings, state, World())
    assert l1(model, batch) < 0.5 * before


def l1(model: DLGANCNN, batch: Batch) -> float:
    with torch.no_grad():
        score = model.validate("features", batch)["l1"]
    return (score.numerator / score.denominator).mean().item()
