"""GAN-OSMOSIS on slices of two discs."""

import numpy as np
import pytest
import torch

from ganseg_dist.config import override
from ganseg_dist.data.batch import BACKGROUND, Batch
from ganseg_dist.engine.epochs import new_alarms
from ganseg_dist.engine.state import Epoch
from ganseg_dist.engine.step import train_only
from ganseg_dist.errors import ConfigError
from ganseg_dist.systems import build_system, recipe
from ganseg_dist.systems.base import BEGINNERS_EPOCHS
from ganseg_dist.systems.gan_osmosis.networks import MaskConditionedGenerator, noise_size

SIDE, EXAMPLES = 32, 4
SEEN = {"data.modalities": ["t1", "flair"], "data.regions": ["wt", "tc"]}


def build(**changes):
    torch.manual_seed(0)
    return build_system(override(recipe("gan_osmosis_debug"), SEEN | {f"system.{k}": v for k, v in changes.items()}))


def head(system, *, stage="joint", examples=EXAMPLES, seed=0):
    """Heads with a disc of tumour, each with its own noise."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    foreground, tumour, core = (np.hypot(rows, columns) < radius for radius in (13, 6, 3))
    image = np.where(foreground, -0.4 + 0.8 * tumour, BACKGROUND).astype(np.float32)
    each = [system.sample(stage, np.random.default_rng([seed, example])) for example in range(examples)]
    samples = {name: torch.from_numpy(np.stack([one[name] for one in each])) for name in each[0]}
    return Batch(
        torch.from_numpy(np.broadcast_to(image, (examples, 2, SIDE, SIDE)).copy()),
        torch.from_numpy(np.broadcast_to(np.stack([tumour, core]), (examples, 2, SIDE, SIDE)).astype(np.float32)),
        torch.arange(examples),
        torch.full((examples,), -1),
        samples,
    )


def test_joint_learning_rate_applies_to_joint_stage_only():
    slower = build(joint_learning_rate=3e-5)
    assert [stage.learning_rate for stage in slower.stages] == [3e-5, recipe("gan_osmosis_debug").train.learning_rate]


@torch.no_grad()
def scale_generator(system):
    """Scale the generator's layers as training does: with its initial weights all images are grey."""
    generator = system.networks["generator"]
    for stem in (generator.condition_stem, generator.trunk.head, generator.image_head):
        stem.weight *= 20


@pytest.mark.parametrize("noise", ["dropout", "vector"])
def test_gan_osmosis_generate_is_determined_by_z(noise):
    system = build(noise=noise)
    batch = head(system)
    scale_generator(system)
    first, again = (system.generate(batch, batch.samples["z"]) for _ in range(2))
    other = system.generate(batch, batch.samples["other_z"])
    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 1e-4
    assert first.shape == batch.image.shape
    assert first.abs().max() <= 1


@torch.no_grad()
def test_gan_osmosis_predict_uses_generator_in_joint_stage_then_segmenter():
    system = build()
    shown = head(system)
    segmented = torch.sigmoid(system.networks["generator"].segment(shown.image))
    torch.testing.assert_close(system.predict(shown).probability, segmented)
    segmented = torch.sigmoid(system.networks["segmenter"](shown.image))
    torch.testing.assert_close(system.predict(head(system, stage="segment")).probability, segmented)


def test_gan_osmosis_generate_leaves_known_background():
    system = build()
    batch = head(system)
    generated = system.generate(batch, batch.samples["z"])
    assert (generated[~batch.foreground.expand_as(generated)] == BACKGROUND).all()
    blind = build(foreground_condition=False)
    generated = blind.generate(batch, batch.samples["z"])
    assert (generated[~batch.foreground.expand_as(generated)] != BACKGROUND).any()


def test_generator_noise_drops_coarsest_features():
    """Factors of 1 are no dropout; with factors of 0 the coarsest level has no effect."""
    torch.manual_seed(0)
    generator = MaskConditionedGenerator(1, 1, 1, (4, 8, 8))
    condition = torch.rand(2, 1, 16, 16).round()
    size = noise_size((4, 8, 8))
    assert size == 16
    kept = generator.generate(condition, torch.ones(2, size))
    plain = torch.tanh(generator.image_head(torch.relu(generator.trunk(generator.condition_stem(condition)))))
    assert torch.equal(kept, plain)
    dropped = generator.generate(condition, torch.zeros(2, size))
    for weight in generator.trunk.encoder[-1].parameters():
        torch.nn.init.constant_(weight, 0.3)
    assert torch.equal(generator.generate(condition, torch.zeros(2, size)), dropped)
    assert not torch.equal(generator.generate(condition, torch.ones(2, size)), kept)


def test_gan_osmosis_samples_dropout_at_configured_rate():
    system = build(dropout=0.25)
    z = head(system, examples=400).samples["z"]
    assert z.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (z == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(("phase", "trained"), [("discriminator", "discriminator"), ("generator", "generator")])
def test_gan_osmosis_losses_have_gradients_in_trained_network_only(phase, trained):
    system = build(diversity_weight=1.0)
    batch = head(system)
    train_only(system.networks, (trained,))
    torch.stack(list(system.losses(phase, batch).values())).sum().backward()
    for name, network in system.networks.items():
        moved = [weight.grad is not None and bool(weight.grad.abs().sum() > 0) for weight in network.parameters()]
        assert any(moved) == (name == trained), name


@pytest.mark.parametrize("off", ["segmentation", "adversarial", "reconstruction", None])
def test_gan_osmosis_does_not_compute_zero_weight_terms(off, monkeypatch):
    system = build() if off is None else build(**{f"{off}_weight": 0})
    terms = {"segmentation", "adversarial", "reconstruction"} - {off}
    *discriminator, generator = system.stages[0].phases
    assert generator.weights.keys() == terms
    assert bool(discriminator) == ("adversarial" in terms), "no discriminator without the adversarial term"
    calls = []
    for owner, name in ((system.networks["generator"], "segment"), (system.networks["discriminator"], "forward")):
        computed = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *arguments, name=name, of=computed: calls.append(name) or of(*arguments)
        )
    assert system.losses("generator", head(system)).keys() == terms
    assert calls == ["segment"] * ("segmentation" in terms) + ["forward"] * ("adversarial" in terms)


def test_gan_osmosis_rejects_generator_without_terms():
    off = {f"{name}_weight": 0 for name in ("segmentation", "adversarial", "reconstruction")}
    with pytest.raises(ConfigError, match=r"diversity_weight: are all 0, .*system\.gan=false"):
        build(**off)
    assert build(**off, gan=False)
    assert build(**off, diversity_weight=1.0).stages[0].phases[-1].weights == {"diversity": 1.0}


def test_gan_osmosis_segmentation_trains_trunk_when_shared():
    for shared in (True, False):
        system = build(shared=shared)
        batch = head(system)
        system.losses("generator", batch)["segmentation"].backward()
        generator = system.networks["generator"]
        learns = any(weight.grad is not None for weight in generator.trunk.parameters())
        assert learns == shared


def test_gan_osmosis_segmenter_loss_averages_real_and_generated():
    """With every generated image chosen the loss is the mean of both halves; with none, the images' own."""
    for share, halves in ((1.0, True), (0.0, False)):
        system = build(synthetic_share=share)
        batch = head(system, stage="segment")
        loss = system.losses("segmenter", batch)["segmentation"].item()
        plain = build(gan=False)
        plain.networks["segmenter"].load_state_dict(system.networks["segmenter"].state_dict())
        real = plain.losses("segmenter", batch)["segmentation"].item()
        shown = Batch(system.generate(batch, batch.samples["z"]), batch.regions, batch.case, batch.label)
        generated = plain.losses("segmenter", shown)["segmentation"].item()
        assert loss == pytest.approx((real + generated) / 2 if halves else real, rel=1e-5)
        assert abs(real - generated) > 1e-4


def test_gan_osmosis_samples_configured_share_of_generated_examples():
    system = build(synthetic_share=0.3)
    assert head(system, examples=1000).samples["generated"].mean().item() == pytest.approx(0.3, abs=0.04)


def test_gan_osmosis_paper_reading_uses_random_vector_and_masks():
    system = build(reading="paper")
    batch = head(system)
    assert system.condition(batch).shape[1] == 2
    assert batch.samples["z"].shape == (EXAMPLES, system.config.vector_size)
    assert not set(batch.samples["z"].unique().tolist()) <= {0.0, 2.0}


def test_gan_osmosis_control_is_segmenter_without_samples():
    system = build(gan=False)
    assert list(system.networks) == ["segmenter"]
    assert system.sample("segment", np.random.default_rng(0)) == {}


@torch.no_grad()
def test_gan_osmosis_collapse_raises_diversity_alarm_once():
    system = build()
    batch = head(system)
    stage = system.stages[0]

    def record():
        ratios = system.validate("joint", batch)
        scores = {name: float(ratio.numerator.sum() / ratio.denominator.sum()) for name, ratio in ratios.items()}
        return Epoch("joint", 0, step=0, workers=1, losses={}, scores=scores)

    scale_generator(system)
    varied = [record()] * BEGINNERS_EPOCHS
    assert new_alarms(stage, [*varied, varied[-1]]) == []
    system.networks["generator"].image_head.weight.zero_()  # the same grey whatever z is
    collapsed = record()
    assert collapsed.scores["diversity"] == 0
    assert [alarm.score for alarm in new_alarms(stage, [*varied, collapsed])] == ["diversity"]
    assert new_alarms(stage, [*varied, collapsed, collapsed]) == [], "warned once"
    assert new_alarms(stage, [collapsed] * BEGINNERS_EPOCHS) == [], "no alarm in the first epochs"


@torch.no_grad()
def test_gan_osmosis_diversity_is_mean_difference_of_two_images():
    system = build()
    batch = head(system)
    ratio = system.validate("joint", batch)["diversity"]
    one, other = (system.generate(batch, batch.samples[z]) for z in ("z", "other_z"))
    assert (ratio.numerator / ratio.denominator).numpy() == pytest.approx(
        (one - other).abs().flatten(1).mean(1).numpy(), rel=1e-5
    )


def test_gan_osmosis_predict_returns_synthetic_image_given_samples():
    system = build()
    assert system.predict(head(system)).synthetic is not None
    batch = head(system)
    assert system.predict(Batch(batch.image, batch.regions, batch.case, batch.label)).synthetic is None
