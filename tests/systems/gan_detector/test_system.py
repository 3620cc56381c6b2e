"""The GAN detector on images of a foreground with and without a bright disc."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ganseg_dist.config import override
from ganseg_dist.data.batch import BACKGROUND, Batch
from ganseg_dist.engine.checkpoint import Checkpoints
from ganseg_dist.engine.epochs import new_alarms
from ganseg_dist.engine.state import Epoch
from ganseg_dist.engine.step import train_step
from ganseg_dist.engine.trainer import prepare_state, train_member
from ganseg_dist.engine.validate import mean_over_cases
from ganseg_dist.engine.world import World
from ganseg_dist.errors import ConfigError
from ganseg_dist.systems import build_system, recipe
from ganseg_dist.systems.base import BEGINNERS_EPOCHS
from ganseg_dist.systems.gan_detector.system import cross_entropies
from tests.tiny import prepare, resolved
from tests.trackers import WarningTracker

SIDE = 32
KINDS = ("dcgan", "conditional", "wgan_gp")
PHASES = ("discriminator", "generator", "detector")
LESIONS = {"data.modalities": ["t1", "flair"], "data.classes": ["no lesion", "lesion"]}
TUMOURS = {"data.modalities": ["t1", "flair"], "data.classes": ["none", "glioma", "meningioma"]}
UNEVEN = (0, 0, 0, 1, 1, 1, -1, 1)
"""Labels whose halves hold unequal numbers of each kind."""


def configured(augment=LESIONS, **changes):
    return override(
        recipe("gan_detector_debug"), augment | {f"system.{name}": value for name, value in changes.items()}
    )


def build(augment=LESIONS, **changes):
    torch.manual_seed(0)
    return build_system(configured(augment, **changes))


def images(system, labels=UNEVEN, *, stage="synthesis", seed=0):
    """Heads with a disc where the label is not 0, each of another level, with its own noise."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    foreground, disc = (np.hypot(rows, columns) < radius for radius in (13, 6))
    rng = np.random.default_rng(seed)
    levels = rng.uniform(-0.6, 0.2, (len(labels), 2, 1, 1)) + 0.6 * disc * (np.array(labels) != 0)[:, None, None, None]
    each = [system.sample(stage, np.random.default_rng([seed, example])) for example in range(len(labels))]
    return Batch(
        torch.from_numpy(np.where(foreground, levels, BACKGROUND).astype(np.float32)),
        torch.zeros(len(labels), 0, SIDE, SIDE),
        torch.arange(len(labels)) // 2,
        torch.tensor(labels),
        {name: torch.from_numpy(np.stack([one[name] for one in each])) for name in each[0]},
    )


def rows_of(batch, chosen):
    samples = {name: value[chosen] for name, value in batch.samples.items()}
    return Batch(batch.image[chosen], batch.regions[chosen], batch.case[chosen], batch.label[chosen], samples)


def phase_of(system, name):
    return next(phase for stage in system.stages for phase in stage.phases if phase.name == name)


def total(system, phase, batch):
    weights = phase_of(system, phase).weights
    return sum(weights[name] * term for name, term in system.losses(phase, batch).items())


def gradients(system, phase, batch):
    (network,) = (system.networks[name] for name in phase_of(system, phase).trains)
    return torch.cat([g.flatten() for g in torch.autograd.grad(total(system, phase, batch), [*network.parameters()])])


# Construction


def test_gan_detector_rejects_unresolved_config():
    with pytest.raises(ConfigError, match="resolved from a cohort"):
        build_system(recipe("gan_detector_debug"))


@pytest.mark.parametrize(
    ("changes", "synthesises", "transforms"),
    [
        ({"augmentation": "none"}, False, False),
        ({"augmentation": "classical"}, False, True),
        ({"augmentation": "gan"}, True, False),
        ({"augmentation": "both"}, True, True),
        ({"augmentation": "gan", "gan": False}, False, False),
        ({"augmentation": "both", "gan": False}, False, True),
    ],
)
def test_gan_detector_arms_have_configured_augmentation(changes, synthesises, transforms):
    system = build(**changes)
    *synthesis, detect = system.stages
    assert [stage.name for stage in synthesis] == ["synthesis"] * synthesises
    assert ("generator" in system.networks) == ("discriminator" in system.networks) == synthesises
    assert detect.augmented == transforms
    assert detect.phases[0].weights.keys() == ({"real", "synthetic"} if synthesises else {"real"})
    assert system.sample("detect", np.random.default_rng(0)).keys() == ({"z"} if synthesises else set())


def test_gan_detector_control_keeps_classical_augmentation():
    config = configured(augmentation="gan", widths=[4, 4], generator="wgan_gp").system
    control = config.control()
    assert (control.augmentation, control.widths, control.transforms) == ("gan", (4, 4), False)
    assert not control.synthesises
    assert configured(augmentation="both").system.control().transforms


def test_gan_detector_arms_share_initial_weights_and_synthesis_stage():
    detectors = [build(augmentation=name).networks["detector"].state_dict() for name in ("none", "gan", "both")]
    for name, weight in detectors[0].items():
        assert all(torch.equal(weight, other[name]) for other in detectors)
    one, other = (build(augmentation=name) for name in ("gan", "both"))
    assert one.stages[0] == other.stages[0]
    assert not one.stages[0].augmented


def test_wgan_gp_critic_steps_five_times_per_generator_step():
    assert [phase.every for phase in build(generator="wgan_gp").stages[0].phases] == [1, 5]
    assert [phase.every for phase in build(generator="dcgan").stages[0].phases] == [1, 1]


def test_gan_detector_validates_widths_of_built_networks_only():
    deep = [4, 4, 4, 4, 4]
    with pytest.raises(ConfigError, match=r"system\.discriminator_widths"):
        configured(discriminator_widths=deep)
    assert configured(discriminator_widths=deep, gan=False).system.patch_widths == {}


def test_unconditional_generator_rejects_several_lesion_classes():
    with pytest.raises(ConfigError, match=r"cannot distinguish glioma, meningioma; take conditional$"):
        build(TUMOURS, generator="dcgan")
    assert build(TUMOURS, generator="dcgan", augmentation="none").networks.keys() == {"detector"}


def test_gan_detector_loads_pretrained_detector(tmp_path):
    source = build()
    file = tmp_path / "weights.safetensors"
    save_file({f"detector.{name}": weight for name, weight in source.networks["detector"].state_dict().items()}, file)
    torch.manual_seed(5)
    system = build_system(configured(pretrained=str(file)))
    for name, weight in source.networks["detector"].state_dict().items():
        assert torch.equal(system.networks["detector"].state_dict()[name], weight)
    with pytest.raises(ConfigError, match=r"^system\.pretrained: nowhere"):
        build(pretrained="nowhere")


# Synthesis


@pytest.mark.parametrize("kind", KINDS)
def test_gan_detector_generate_is_determined_by_z(kind):
    system = build(generator=kind)
    one, again, other = (images(system, seed=seed) for seed in (0, 0, 1))
    first, same, different = (system.generate(batch.samples["z"], batch.label) for batch in (one, again, other))
    assert torch.equal(first, same)
    assert first.shape == one.image.shape
    assert (first - different).abs().mean() > 0.05


def test_conditional_gan_depends_on_class():
    system = build(TUMOURS, generator="conditional")
    batch = images(system, (0, 1, 2, 2))
    z = batch.samples["z"][:1].expand(4, -1)
    none, glioma, meningioma, same = system.generate(z, batch.label)
    assert torch.equal(meningioma, same)
    assert (none - glioma).abs().mean() > 0.01
    assert (glioma - meningioma).abs().mean() > 0.01
    logits = system._discriminate(none.expand(4, -1, -1, -1), batch.label)
    assert logits[2] == logits[3]
    assert len(set(logits.tolist())) == 3


@pytest.mark.parametrize("kind", ["dcgan", "wgan_gp"])
@pytest.mark.parametrize("phase", ["discriminator", "generator"])
def test_unconditional_gan_learns_from_lesions_only(kind, phase):
    system = build(generator=kind)
    batch = images(system)
    other = replace(batch, image=torch.where((batch.label < 1)[:, None, None, None], -batch.image, batch.image))
    assert torch.equal(gradients(system, phase, batch), gradients(system, phase, other))
    healthy = rows_of(batch, batch.label < 1)
    assert (gradients(system, phase, healthy) == 0).all()
    assert (gradients(system, phase, batch) != 0).any()


@pytest.mark.parametrize("phase", ["discriminator", "generator"])
def test_conditional_gan_learns_from_known_classes(phase):
    system = build(generator="conditional")
    batch = images(system)
    assert (gradients(system, phase, rows_of(batch, batch.label == 0)) != 0).any()
    assert (gradients(system, phase, rows_of(batch, batch.label < 0)) == 0).all()


class Constant(nn.Module):
    """The same output for each image."""

    def __init__(self, answer):
        super().__init__()
        self.answer = nn.Parameter(torch.tensor(answer))

    def forward(self, image):
        return self.answer.expand(len(image), *self.answer.shape) + 0 * image.sum()


def test_gan_detector_adversarial_losses_match_hand_computation():
    """D(x) = 3/4 everywhere; four of eight examples are lesions."""
    system = build(generator="dcgan")
    system.networks["discriminator"] = Constant([math.log(3)])
    batch = images(system)
    loss = system.losses("discriminator", batch)["discriminator"].item()
    assert loss == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) * 4 / 8, rel=1e-4)
    assert system.losses("generator", batch)["adversarial"].item() == pytest.approx(-math.log(3 / 4) * 4 / 8, rel=1e-4)
    critic = build(generator="wgan_gp")
    critic.networks["discriminator"] = Constant([math.log(3)])
    terms = critic.losses("discriminator", batch)
    assert terms["critic"].item() == 0
    assert terms["gradient_penalty"].item() == pytest.approx(4 / 8)
    assert critic.losses("generator", batch)["adversarial"].item() == pytest.approx(-math.log(3) * 4 / 8)


# Losses


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kind", KINDS)
def test_gan_detector_step_changes_trained_network_only(kind, phase):
    config = configured(generator=kind)
    system = build(generator=kind)
    state = prepare_state(system, config, World())
    before = {name: [p.detach().clone() for p in net.parameters()] for name, net in system.networks.items()}
    train_step(system, phase_of(system, phase), images(system), config, state, World())
    for name, network in system.networks.items():
        changed = [not torch.equal(p, old) for p, old in zip(network.parameters(), before[name], strict=True)]
        assert all(changed) if name in phase_of(system, phase).trains else not any(changed), name


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kind", KINDS)
def test_gan_detector_losses_of_half_batches_average_to_whole(kind, phase):
    """Three of the first half's four examples have no lesion, and one of the second half's is unknown."""
    system = build(generator=kind)
    whole = images(system)
    halves = [rows_of(whole, slice(4)), rows_of(whole, slice(4, 8))]
    assert total(system, phase, whole).item() == pytest.approx(
        sum(total(system, phase, half).item() for half in halves) / 2, rel=1e-5
    )
    together = gradients(system, phase, whole)
    averaged = sum(gradients(system, phase, half) for half in halves) / 2
    assert (together - averaged).abs().max() <= 1e-4 * together.abs().max()


def test_gan_detector_detector_loss_matches_hand_computation():
    """Probabilities of 1/4 and 3/4. Real: three without, four with a lesion, one unknown. Generated: lesions."""
    system = build(generator="dcgan")
    system.networks["detector"] = Constant([0.0, math.log(3)])
    batch = images(system, stage="detect")
    no, yes = -math.log(1 / 4), -math.log(3 / 4)
    assert system.losses("detector", batch)["real"].item() == pytest.approx((3 * no + 4 * yes) / 8)
    assert system.losses("detector", batch)["synthetic"].item() == pytest.approx(yes)
    conditional = build(generator="conditional")
    conditional.networks["detector"] = system.networks["detector"]
    terms = conditional.losses("detector", batch)
    assert terms["synthetic"].item() == pytest.approx(terms["real"].item()), "each with its own class"


def test_synthetic_weight_sets_weight_of_synthetic_term():
    assert build(synthetic_weight=0.25).stages[1].phases[0].weights == {"real": 1.0, "synthetic": 0.25}


def test_cross_entropies_are_zero_for_unknown_class():
    found = cross_entropies(torch.tensor([[0.0, math.log(3)], [5.0, 7.0]]), torch.tensor([0, -1]))
    assert found.tolist() == pytest.approx([math.log(4), 0])


def test_gan_detector_losses_reject_unknown_phase():
    system = build()
    with pytest.raises(ValueError, match="no phase 'warm-up'"):
        system.losses("warm-up", images(system))


# Scores and alarms


def test_gan_detector_scores_count_known_examples():
    system = build()
    system.networks["detector"] = Constant([0.0, math.log(3)])
    scores = mean_over_cases(
        [images(system)], lambda batch: system.validate("detect", batch), system.stages[1].scores, list("abcd"), World()
    )
    # Four cases of two examples: 0 0, 0 1, 1 1 and an unknown one beside 1.
    assert scores["accuracy"] == pytest.approx((0 + 1 / 2 + 1 + 1) / 4)
    no, yes = -math.log(1 / 4), -math.log(3 / 4)
    assert scores["cross_entropy"] == pytest.approx((no + (no + yes) / 2 + yes + yes) / 4)


def test_gan_detector_predict_returns_classes_and_synthetic_image():
    system = build(TUMOURS)
    batch = images(system, (0, 1, 2, -1))
    prediction = system.predict(batch)
    assert prediction.classes.shape == (4, 3)
    assert prediction.classes.sum(1).tolist() == pytest.approx([1] * 4)
    assert prediction.synthetic.shape == batch.image.shape
    assert {name for name, picture in prediction.pictures().items() if picture is not None} == {"synthetic"}
    assert system.predict(replace(batch, samples={})).synthetic is None


def synthesis_scores(system, *batches):
    stage = system.stages[0]
    return mean_over_cases(
        batches, lambda batch: system.validate("synthesis", batch), stage.scores, list("abcd"), World()
    )


def test_gan_detector_diversity_matches_hand_computation():
    """G(z) is z's first number everywhere."""
    system = build(generator="dcgan")
    system.networks["generator"] = LevelGenerator()
    batch = images(system, (1, 0))
    batch = replace(
        batch,
        image=torch.full_like(batch.image, -1.0),
        samples={"z": torch.tensor([[0.2], [0.9]]), "other_z": torch.tensor([[0.5], [-0.9]])},
    )
    assert synthesis_scores(system, batch) == pytest.approx({"diversity": 0.3, "relative_diversity": 0.3 / 1.2})


class LevelGenerator(nn.Module):
    def forward(self, z):
        return z[:, :1, None, None].expand(-1, 2, SIDE, SIDE)


@pytest.mark.parametrize("kind", KINDS)
def test_gan_detector_collapse_raises_diversity_alarm_once(kind):
    system = build(generator=kind)
    stage = system.stages[0]

    def epoch():
        scores = synthesis_scores(system, images(system))
        return Epoch("synthesis", 0, step=0, workers=1, losses={}, scores=scores)

    with torch.no_grad():
        system.networks["generator"].head.weight *= 20  # as training does: a fresh one generates all grey
    alive = epoch()
    assert alive.scores["relative_diversity"] > 2 * stage.alarms[0].below
    varied = [alive] * BEGINNERS_EPOCHS
    assert new_alarms(stage, varied) == []
    with torch.no_grad():
        system.networks["generator"].project.weight[:, : system.config.latent_size] = 0  # z has no effect
    collapsed = epoch()
    assert collapsed.scores == pytest.approx({"diversity": 0, "relative_diversity": 0}, abs=1e-6)
    (alarm,) = new_alarms(stage, [*varied, collapsed])
    assert alarm.score == "relative_diversity"
    assert "collapsed" in alarm.message
    assert new_alarms(stage, [*varied, collapsed, collapsed]) == [], "warned once"
    assert new_alarms(stage, [collapsed] * BEGINNERS_EPOCHS) == [], "no alarm in the first epochs"
    assert new_alarms(stage, [collapsed] * (BEGINNERS_EPOCHS + 1)) == [alarm]


# From a cohort


@pytest.mark.parametrize("kind", KINDS)
def test_gan_detector_trains_each_stage_on_phantom(kind, cohort, store):
    config = resolved(
        recipe("gan_detector_debug"),
        cohort,
        {"system.generator": kind, "system.synthesis_epochs": 2, "train.epochs": 2, "train.batch_size": 16},
    )
    assert config.data.classes == ("no lesion", "lesion")
    tracker = WarningTracker()
    state = train_member(config, prepare(cohort, config, store).open(config), World(), tracker, Checkpoints())
    history = state.position.history
    assert [record.stage for record in history] == ["synthesis"] * 2 + ["detect"] * 2
    assert tracker.warnings == []
    for record in history:
        assert all(math.isfinite(value) for value in [*record.losses.values(), *record.scores.values()])
    assert history[0].scores.keys() == {"diversity", "relative_diversity"}
    assert history[-1].scores.keys() == {"accuracy", "cross_entropy"}
    assert history[-1].losses["detector/real"] < history[-2].losses["detector/real"]
