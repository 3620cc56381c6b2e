"""What the GAN detector generates and learns, on images of a foreground with and without a bright disc."""

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
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.engine.trainer import prepare_state, train_member
from ganseg_dist.engine.validate import mean_over_cases
from ganseg_dist.engine.world import World
from ganseg_dist.errors import ConfigError
from ganseg_dist.systems import build_system, recipe
from ganseg_dist.systems.base import BEGINNERS_EPOCHS
from ganseg_dist.systems.gan_detector.system import cross_entropies
from tests.tiny import prepare, resolved

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


def made(augment=LESIONS, **changes):
    torch.manual_seed(0)
    return build_system(configured(augment, **changes))


def images(system, labels=UNEVEN, *, stage="synthesis", seed=0):
    """Bodies with a disc where the label is not 0, each a little different, and noise drawn for each."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    foreground, disc = (np.hypot(rows, columns) < radius for radius in (13, 6))
    rng = np.random.default_rng(seed)
    levels = rng.uniform(-0.6, 0.2, (len(labels), 2, 1, 1)) + 0.6 * disc * (np.array(labels) != 0)[:, None, None, None]
    drawn = [system.sample(stage, np.random.default_rng([seed, example])) for example in range(len(labels))]
    return Batch(
        torch.from_numpy(np.where(foreground, levels, BACKGROUND).astype(np.float32)),
        torch.zeros(len(labels), 0, SIDE, SIDE),
        torch.arange(len(labels)) // 2,
        torch.tensor(labels),
        {name: torch.from_numpy(np.stack([one[name] for one in drawn])) for name in drawn[0]},
    )


def part(batch, chosen):
    draws = {name: value[chosen] for name, value in batch.samples.items()}
    return Batch(batch.image[chosen], batch.regions[chosen], batch.case[chosen], batch.label[chosen], draws)


def phase_of(system, name):
    return next(phase for stage in system.stages for phase in stage.phases if phase.name == name)


def total(system, phase, batch):
    weights = phase_of(system, phase).weights
    return sum(weights[name] * term for name, term in system.losses(phase, batch).items())


def gradients(system, phase, batch):
    (network,) = (system.networks[name] for name in phase_of(system, phase).trains)
    return torch.cat([g.flatten() for g in torch.autograd.grad(total(system, phase, batch), [*network.parameters()])])


# What is built


def test_an_unresolved_config_is_refused():
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
def test_each_arm_has_its_halves_of_the_augmentation(changes, synthesises, transforms):
    system = made(**changes)
    *synthesis, detect = system.stages
    assert [stage.name for stage in synthesis] == ["synthesis"] * synthesises
    assert ("generator" in system.networks) == ("discriminator" in system.networks) == synthesises
    assert detect.augmented == transforms
    assert detect.phases[0].weights.keys() == ({"real", "synthetic"} if synthesises else {"real"})
    assert system.sample("detect", np.random.default_rng(0)).keys() == ({"z"} if synthesises else set())


def test_the_control_keeps_the_classical_half():
    config = configured(augmentation="gan", widths=[4, 4], generator="wgan_gp").system
    control = config.control()
    assert (control.augmentation, control.widths, control.transforms) == ("gan", (4, 4), False)
    assert not control.synthesises
    assert configured(augmentation="both").system.control().transforms


def test_every_arm_starts_from_the_same_detector_and_the_two_with_a_gan_share_its_stage():
    detectors = [made(augmentation=name).networks["detector"].state_dict() for name in ("none", "gan", "both")]
    for name, weight in detectors[0].items():
        assert all(torch.equal(weight, other[name]) for other in detectors)
    one, other = (made(augmentation=name) for name in ("gan", "both"))
    assert one.stages[0] == other.stages[0]
    assert not one.stages[0].augmented


def test_the_critic_steps_five_times_to_one_of_the_generator():
    assert [phase.every for phase in made(generator="wgan_gp").stages[0].phases] == [1, 5]
    assert [phase.every for phase in made(generator="dcgan").stages[0].phases] == [1, 1]


def test_networks_that_are_not_built_need_not_fit_the_slices():
    deep = [4, 4, 4, 4, 4]
    with pytest.raises(ConfigError, match=r"system\.discriminator_widths"):
        configured(discriminator_widths=deep)
    assert configured(discriminator_widths=deep, gan=False).system.patch_widths == {}


def test_one_unconditional_generator_is_refused_for_several_kinds_of_lesion():
    with pytest.raises(ConfigError, match=r"cannot tell glioma, meningioma apart; take conditional$"):
        made(TUMOURS, generator="dcgan")
    assert made(TUMOURS, generator="dcgan", augmentation="none").networks.keys() == {"detector"}


def test_a_pretrained_detector_is_started_from(tmp_path):
    source = made()
    file = tmp_path / "weights.safetensors"
    save_file({f"detector.{name}": weight for name, weight in source.networks["detector"].state_dict().items()}, file)
    torch.manual_seed(5)
    system = build_system(configured(pretrained=str(file)))
    for name, weight in source.networks["detector"].state_dict().items():
        assert torch.equal(system.networks["detector"].state_dict()[name], weight)
    with pytest.raises(ConfigError, match=r"^system\.pretrained: nowhere"):
        made(pretrained="nowhere")


# What is generated


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_draws_give_the_same_images(kind):
    system = made(generator=kind)
    one, again, other = (images(system, seed=seed) for seed in (0, 0, 1))
    first, same, different = (system.generate(batch.samples["z"], batch.label) for batch in (one, again, other))
    assert torch.equal(first, same)
    assert first.shape == one.image.shape
    assert (first - different).abs().mean() > 0.05


def test_the_conditional_generator_and_its_discriminator_heed_the_class():
    system = made(TUMOURS, generator="conditional")
    batch = images(system, (0, 1, 2, 2))
    z = batch.samples["z"][:1].expand(4, -1)
    none, glioma, meningioma, same = system.generate(z, batch.label)
    assert torch.equal(meningioma, same)
    assert (none - glioma).abs().mean() > 0.01
    assert (glioma - meningioma).abs().mean() > 0.01
    judged = system._judged(none.expand(4, -1, -1, -1), batch.label)
    assert judged[2] == judged[3]
    assert len(set(judged.tolist())) == 3


@pytest.mark.parametrize("kind", ["dcgan", "wgan_gp"])
@pytest.mark.parametrize("phase", ["discriminator", "generator"])
def test_an_unconditional_gan_learns_from_lesions_alone(kind, phase):
    system = made(generator=kind)
    batch = images(system)
    other = replace(batch, image=torch.where((batch.label < 1)[:, None, None, None], -batch.image, batch.image))
    assert torch.equal(gradients(system, phase, batch), gradients(system, phase, other))
    healthy = part(batch, batch.label < 1)
    assert (gradients(system, phase, healthy) == 0).all()
    assert (gradients(system, phase, batch) != 0).any()


@pytest.mark.parametrize("phase", ["discriminator", "generator"])
def test_a_conditional_gan_learns_from_every_known_class(phase):
    system = made(generator="conditional")
    batch = images(system)
    assert (gradients(system, phase, part(batch, batch.label == 0)) != 0).any()
    assert (gradients(system, phase, part(batch, batch.label < 0)) == 0).all()


class Constant(nn.Module):
    """Says the same of every image."""

    def __init__(self, answer):
        super().__init__()
        self.answer = nn.Parameter(torch.tensor(answer))

    def forward(self, image):
        return self.answer.expand(len(image), *self.answer.shape) + 0 * image.sum()


def test_the_gans_losses_by_hand():
    """D says 3/4 of everything; four of eight examples are lesions."""
    system = made(generator="dcgan")
    system.networks["discriminator"] = Constant([math.log(3)])
    batch = images(system)
    judged = system.losses("discriminator", batch)["discriminator"].item()
    assert judged == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) * 4 / 8, rel=1e-4)
    assert system.losses("generator", batch)["adversarial"].item() == pytest.approx(-math.log(3 / 4) * 4 / 8, rel=1e-4)
    critic = made(generator="wgan_gp")
    critic.networks["discriminator"] = Constant([math.log(3)])
    terms = critic.losses("discriminator", batch)
    assert terms["critic"].item() == 0
    assert terms["gradient_penalty"].item() == pytest.approx(4 / 8)
    assert critic.losses("generator", batch)["adversarial"].item() == pytest.approx(-math.log(3) * 4 / 8)


# What is learnt


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_changes_exactly_the_network_it_trains(kind, phase):
    config = configured(generator=kind)
    system = made(generator=kind)
    state = prepare_state(system, config, World())
    before = {name: [p.detach().clone() for p in net.parameters()] for name, net in system.networks.items()}
    train_step(system, phase_of(system, phase), images(system), config, state, World())
    for name, network in system.networks.items():
        changed = [not torch.equal(p, old) for p, old in zip(network.parameters(), before[name], strict=True)]
        assert all(changed) if name in phase_of(system, phase).trains else not any(changed), name


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_halves_of_a_batch_average_to_the_whole(kind, phase):
    """Three of the first half's four examples have no lesion, and one of the second half's is unknown."""
    system = made(generator=kind)
    whole = images(system)
    halves = [part(whole, slice(4)), part(whole, slice(4, 8))]
    assert total(system, phase, whole).item() == pytest.approx(
        sum(total(system, phase, half).item() for half in halves) / 2, rel=1e-5
    )
    together = gradients(system, phase, whole)
    averaged = sum(gradients(system, phase, half) for half in halves) / 2
    assert (together - averaged).abs().max() <= 1e-4 * together.abs().max()


def test_the_detectors_loss_by_hand():
    """It says 1/4 and 3/4 of everything. Real: three without, four with a lesion, one unknown. Generated: lesions."""
    system = made(generator="dcgan")
    system.networks["detector"] = Constant([0.0, math.log(3)])
    batch = images(system, stage="detect")
    no, yes = -math.log(1 / 4), -math.log(3 / 4)
    assert system.losses("detector", batch)["real"].item() == pytest.approx((3 * no + 4 * yes) / 8)
    assert system.losses("detector", batch)["synthetic"].item() == pytest.approx(yes)
    conditional = made(generator="conditional")
    conditional.networks["detector"] = system.networks["detector"]
    terms = conditional.losses("detector", batch)
    assert terms["synthetic"].item() == pytest.approx(terms["real"].item()), "each with the class it was made for"


def test_generated_images_count_as_much_as_is_set():
    assert made(synthetic_weight=0.25).stages[1].phases[0].weights == {"real": 1.0, "synthetic": 0.25}


def test_cross_entropy_is_nothing_where_the_class_is_unknown():
    found = cross_entropies(torch.tensor([[0.0, math.log(3)], [5.0, 7.0]]), torch.tensor([0, -1]))
    assert found.tolist() == pytest.approx([math.log(4), 0])


def test_an_unknown_phase_is_refused():
    system = made()
    with pytest.raises(ValueError, match="no phase 'warm-up'"):
        system.losses("warm-up", images(system))


# What is said of it


def test_detection_scores_count_known_examples():
    system = made()
    system.networks["detector"] = Constant([0.0, math.log(3)])
    scores = mean_over_cases(
        [images(system)], lambda batch: system.validate("detect", batch), system.stages[1].scores, 4, World()
    )
    # Four cases of two examples: 0 0, 0 1, 1 1 and an unknown one beside 1.
    assert scores["accuracy"] == pytest.approx((0 + 1 / 2 + 1 + 1) / 4)
    no, yes = -math.log(1 / 4), -math.log(3 / 4)
    assert scores["cross_entropy"] == pytest.approx((no + (no + yes) / 2 + yes + yes) / 4)


def test_a_prediction_holds_probabilities_and_a_picture_where_there_is_noise():
    system = made(TUMOURS)
    batch = images(system, (0, 1, 2, -1))
    said = system.predict(batch)
    assert said.classes.shape == (4, 3)
    assert said.classes.sum(1).tolist() == pytest.approx([1] * 4)
    assert said.synthetic.shape == batch.image.shape
    assert {name for name, picture in said.pictures().items() if picture is not None} == {"synthetic"}
    assert system.predict(replace(batch, samples={})).synthetic is None


def synthesis_scores(system, *batches):
    stage = system.stages[0]
    return mean_over_cases(batches, lambda batch: system.validate("synthesis", batch), stage.scores, 4, World())


def test_diversity_by_hand():
    """G(z) is z's first number everywhere."""
    system = made(generator="dcgan")
    system.networks["generator"] = Levels()
    batch = images(system, (1, 0))
    batch = replace(
        batch,
        image=torch.full_like(batch.image, -1.0),
        samples={"z": torch.tensor([[0.2], [0.9]]), "other_z": torch.tensor([[0.5], [-0.9]])},
    )
    assert synthesis_scores(system, batch) == pytest.approx({"diversity": 0.3, "relative_diversity": 0.3 / 1.2})


class Levels(nn.Module):
    def forward(self, z):
        return z[:, :1, None, None].expand(-1, 2, SIDE, SIDE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_collapse_raises_the_alarm_and_a_live_generator_none(kind):
    system = made(generator=kind)
    stage = system.stages[0]

    def epoch():
        scores = synthesis_scores(system, images(system))
        return Epoch("synthesis", 0, step=0, workers=1, losses={}, scores=scores)

    with torch.no_grad():
        system.networks["generator"].head.weight *= 20  # as training does: a fresh one generates all grey
    alive = epoch()
    assert alive.scores["relative_diversity"] > 2 * stage.alarms[0].below
    lively = [alive] * BEGINNERS_EPOCHS
    assert new_alarms(stage, lively) == []
    with torch.no_grad():
        system.networks["generator"].project.weight[:, : system.config.latent_size] = 0  # deaf to z
    collapsed = epoch()
    assert collapsed.scores == pytest.approx({"diversity": 0, "relative_diversity": 0}, abs=1e-6)
    (alarm,) = new_alarms(stage, [*lively, collapsed])
    assert alarm.score == "relative_diversity"
    assert "collapsed" in alarm.message
    assert new_alarms(stage, [*lively, collapsed, collapsed]) == [], "said once"
    assert new_alarms(stage, [collapsed] * BEGINNERS_EPOCHS) == [], "a beginner may"
    assert new_alarms(stage, [collapsed] * (BEGINNERS_EPOCHS + 1)) == [alarm]


# From a cohort


class Warnings(Tracker):
    def __init__(self):
        self.said = []

    def warn(self, step, warning):
        self.said.append(warning)


@pytest.mark.parametrize("kind", KINDS)
def test_every_stage_trains_on_the_phantom(kind, cohort, store):
    config = resolved(
        recipe("gan_detector_debug"),
        cohort,
        {"system.generator": kind, "system.synthesis_epochs": 2, "train.epochs": 2, "train.batch_size": 16},
    )
    assert config.data.classes == ("no lesion", "lesion")
    heard = Warnings()
    state = train_member(config, prepare(cohort, config, store).open(config), World(), heard, Checkpoints())
    history = state.position.history
    assert [record.stage for record in history] == ["synthesis"] * 2 + ["detect"] * 2
    assert heard.said == []
    for record in history:
        assert all(math.isfinite(value) for value in [*record.losses.values(), *record.scores.values()])
    assert history[0].scores.keys() == {"diversity", "relative_diversity"}
    assert history[-1].scores.keys() == {"accuracy", "cross_entropy"}
    assert history[-1].losses["detector/real"] < history[-2].losses["detector/real"]
