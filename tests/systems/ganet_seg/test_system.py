import numpy as np
import pytest
import torch
from torch import nn

from ganseg_dist.config import override
from ganseg_dist.data.batch import Batch
from ganseg_dist.errors import ConfigError
from ganseg_dist.losses.adversarial import edge_map, generator_loss
from ganseg_dist.systems import build_system, recipe
from ganseg_dist.systems.ganet_seg.system import GANetSeg

SIDE = 32
SETTLED = {"data.modalities": ["t1", "flair"], "data.regions": ["wt", "tc"]}


def system(**changes) -> GANetSeg:
    torch.manual_seed(0)
    return build_system(override(recipe("ganet_seg_debug"), {**SETTLED, **changes}))


def disc(radius: float) -> torch.Tensor:
    axis = torch.arange(SIDE) - SIDE / 2 + 0.5
    return ((axis[:, None] ** 2 + axis[None] ** 2).sqrt() < radius).float()[None, None]


def head(examples: int = 3) -> Batch:
    """Round heads with a central tumour; the last has none."""
    torch.manual_seed(1)
    foreground = disc(14)
    image = torch.where(foreground > 0, torch.rand(examples, 2, SIDE, SIDE) - 0.5, -1.0)
    regions = torch.stack([disc(6)[0, 0], disc(3)[0, 0]]).expand(examples, 2, SIDE, SIDE).clone()
    regions[-1] = 0
    return Batch(image, regions, torch.arange(examples), torch.zeros(examples))


def with_samples(model: GANetSeg, batch: Batch) -> Batch:
    each = [model.sample("healthy", np.random.default_rng(example)) for example in range(len(batch.image))]
    samples = {name: torch.from_numpy(np.stack([one[name] for one in each])) for name in each[0]}
    return Batch(batch.image, batch.regions, batch.case, batch.label, samples)


def test_ganet_seg_rejects_unresolved_config():
    with pytest.raises(ConfigError, match="resolved from a cohort"):
        build_system(recipe("ganet_seg_debug"))


def test_ganet_seg_rejects_healthy_modality_not_in_run():
    with pytest.raises(ConfigError, match=r"system.healthy_modalities: t2 is not among t1, flair"):
        system(**{"system.healthy_modalities": ["t2"]})


def test_ganet_seg_stages_and_phases_of_corrected_reading():
    healthy, segment = system(**{"train.epochs": 5, "system.supervised_epochs": 2}).stages
    assert [(p.name, p.trains) for p in healthy.phases] == [
        ("generator", ("generator",)),
        ("discriminator", ("discriminator",)),
    ]
    assert healthy.phases[1].every == recipe("ganet_seg_debug").system.discriminator_every
    assert healthy.examples == "tumour_free"
    assert healthy.monitor.mode == "min"
    assert [(p.name, p.trains, p.epochs) for p in segment.phases] == [
        ("supervised", ("segmenter",), range(2)),
        ("adversarial", ("segmenter",), range(2, 5)),
    ]
    assert segment.phases[1].balance.rule == "ratio"
    assert segment.scores == ("dice_wt", "dice_tc")


def test_ganet_seg_without_gan_has_segmenter_only():
    model = system(**{"system.gan": False})
    assert model.networks.keys() == {"segmenter"}
    (segment,) = model.stages
    assert [(p.name, p.epochs) for p in segment.phases] == [("supervised", None)]
    prediction = model.predict(head())
    assert prediction.probability.shape == (3, 2, SIDE, SIDE)
    assert prediction.anomaly is prediction.reconstruction is prediction.score is None


def test_ganet_seg_arms_share_initial_segmenter():
    plain, gan = system(**{"system.gan": False}), system()
    for name, weight in plain.networks["segmenter"].state_dict().items():
        assert torch.equal(weight, gan.networks["segmenter"].state_dict()[name])


def test_ganet_seg_paper_reading_differs_in_documented_points():
    corrected, paper = system(), system(**{"system.reading": "paper"})
    assert paper.networks["segmenter"].head.out_channels == 3  # softmax over background and two classes
    assert corrected.networks["segmenter"].head.out_channels == 2
    assert paper.stages[1].phases[1].balance.rule == "inverse"
    assert paper.stages[0].phases[0].weights == {"adversarial": 1.0, "hole_l1": 0.0}
    assert corrected.stages[0].phases[0].weights == {"adversarial": 1.0, "hole_l1": 100.0}
    assert paper.stages[0].phases[1].weights["lesion"] == 0.0
    assert corrected.stages[0].phases[1].weights["lesion"] == 1.0
    batch = head()
    one, other = (model.losses("adversarial", batch) for model in (corrected, paper))
    # The paper's sparsity is a sum over the pixels of a slice.
    mask = torch.softmax(paper.networks["segmenter"](batch.image), 1)[:, 1:].sum(1)
    assert other["sparsity"].item() == pytest.approx(mask.flatten(1).sum(1).mean().item(), rel=1e-4)
    assert one["sparsity"] <= 1


@pytest.mark.parametrize("reading", ["corrected", "paper"])
@pytest.mark.parametrize("phase", ["generator", "discriminator", "supervised", "adversarial"])
def test_ganet_seg_losses_are_finite_weighted_and_reach_trained_networks(reading, phase):
    model = system(**{"system.reading": reading})
    definition = next(p for stage in model.stages for p in stage.phases if p.name == phase)
    terms = model.losses(phase, with_samples(model, head()))
    on = {name for name, weight in definition.weights.items() if weight}
    assert on <= terms.keys() <= definition.weights.keys()
    for term in terms.values():
        assert torch.isfinite(term)
        for name in definition.trains:
            gradients = torch.autograd.grad(
                term, list(model.networks[name].parameters()), retain_graph=True, allow_unused=True
            )
            assert any(g is not None and g.abs().max() > 0 for g in gradients)


@pytest.mark.parametrize(
    ("phase", "field", "term"),
    [("discriminator", "synthetic_lesion_weight", "lesion"), ("adversarial", "adversarial_weight", "adversarial")],
)
def test_ganet_seg_does_not_compute_zero_weight_terms(phase, field, term):
    on, off = (system(**{f"system.{field}": weight}) for weight in (1.0, 0.0))
    assert on.losses(phase, with_samples(on, head())).keys() - off.losses(phase, with_samples(off, head())) == {term}


def test_ganet_seg_losses_reject_unknown_phase():
    with pytest.raises(ValueError, match="no phase 'warm-up'"):
        system().losses("warm-up", head())


def test_fill_replaces_only_masked_pixels():
    model = system()
    image, mask = head().image, disc(6).expand(3, 1, SIDE, SIDE)
    filled, reconstruction = model.fill(image, mask)
    outside = (mask == 0).expand_as(image)
    assert torch.equal(filled[outside], image[outside])
    assert torch.equal(filled[~outside], reconstruction[~outside])


def test_fill_does_not_depend_on_masked_pixels():
    model = system()
    image, mask = head().image, disc(6).expand(3, 1, SIDE, SIDE)
    other = torch.where(mask > 0, torch.rand_like(image), image)
    assert torch.equal(model.fill(image, mask)[0], model.fill(other, mask)[0])


class DarkIsReal(nn.Module):
    """A discriminator whose logits rise with darkness, in patches of 4 x 4 pixels."""

    def forward(self, image):
        return -nn.functional.avg_pool2d(image.mean(1, keepdim=True), 4)


class ConstantGenerator(nn.Module):
    """A generator whose healthy tissue has a single grey level."""

    def forward(self, kept, mask):
        return torch.full_like(kept, -0.5)


def test_feedback_is_loss_of_filled_image_along_mask_edge():
    model = system()
    model.networks = {**model.networks, "discriminator": DarkIsReal(), "generator": ConstantGenerator()}
    image, mask = torch.zeros(1, 2, SIDE, SIDE), disc(6)
    filled = image * (1 - mask) - 0.5 * mask
    wanted = generator_loss(DarkIsReal()(filled), edge_map(mask, (8, 8)))
    assert model.feedback(image, mask).item() == pytest.approx(wanted.item())


def test_feedback_is_lower_for_mask_that_covers_tumour():
    """This discriminator takes bright tissue for a lesion, so a mask that omits some of it has a higher loss."""
    model = system()
    model.networks = {**model.networks, "discriminator": DarkIsReal(), "generator": ConstantGenerator()}
    image = torch.where(disc(8) > 0, 4.0, -0.5).expand(1, 2, SIDE, SIDE)
    covers, leaves = disc(9), disc(5)
    assert model.feedback(image, covers) < model.feedback(image, leaves)


def test_feedback_has_no_gradient_through_edges():
    """The gradient passes through the filled image only, so it vanishes where the filling equals the image."""
    model = system()
    model.networks = {**model.networks, "discriminator": DarkIsReal(), "generator": ConstantGenerator()}
    image = torch.full((1, 2, SIDE, SIDE), -0.5)
    mask = (disc(6) * 0.7 + 0.1).requires_grad_()
    model.feedback(image, mask).backward()
    assert mask.grad.abs().max() < 1e-7
    other = (disc(6) * 0.7 + 0.1).requires_grad_()
    model.feedback(image + 1, other).backward()
    assert other.grad.abs().max() > 1e-4


def test_ganet_seg_hole_l1_matches_hand_computation():
    model = system()
    model.networks = {**model.networks, "generator": ConstantGenerator()}
    flat = torch.where(disc(14) > 0, 0.25, -1.0).expand(2, 2, SIDE, SIDE)
    batch = with_samples(model, Batch(flat, head(2).regions, head(2).case, head(2).label))
    numerator, denominator, relevant = model.validate("healthy", batch)["hole_l1"]
    assert (denominator > 0).all()
    assert (relevant > 0).all()
    assert (numerator / denominator).tolist() == pytest.approx([0.75, 0.75])


def test_ganet_seg_dice_sums_match_hand_computation():
    model = system()
    batch = head()

    class WholeTumourOnly(nn.Module):
        def forward(self, image):
            logits = torch.full((len(image), 2, SIDE, SIDE), -1.0)
            logits[:, 0][batch.regions[:, 0] > 0] = 1.0  # the whole tumour exactly, nothing of the core
            return logits

    model.networks = {**model.networks, "segmenter": WholeTumourOnly()}
    scores = model.validate("segment", batch)
    tumour, core = batch.regions[0].flatten(1).sum(1).tolist()
    assert scores["dice_wt"].numerator.tolist() == [2 * tumour, 2 * tumour, 0]
    assert scores["dice_wt"].denominator.tolist() == [2 * tumour, 2 * tumour, 0]
    assert scores["dice_wt"].relevant.tolist() == [tumour, tumour, 0]
    assert scores["dice_tc"].numerator.tolist() == [0, 0, 0]
    assert scores["dice_tc"].denominator.tolist() == [core, core, 0]


def test_slice_score_counts_patches_with_foreground():
    realism = torch.tensor([[0.9, 0.2], [0.6, 0.0]]).view(1, 1, 2, 2)
    foreground = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    foreground[..., 2:, 2:] = False  # the patch that scored 0
    for score, value in (("mean", 1.7 / 3), ("min", 0.2), ("quantile", 0.4)):
        model = system(**{"system.score": score, "system.score_quantile": 0.25})
        assert model._slice_score(realism, foreground).item() == pytest.approx(value)
        assert model._slice_score(realism, torch.zeros_like(foreground)).item() == 1


def test_ganet_seg_prediction_has_shapes_and_ranges():
    model = system(**{"system.healthy_modalities": ["flair"]})
    prediction = model.predict(head())
    assert prediction.probability.shape == (3, 2, SIDE, SIDE)
    assert prediction.anomaly.shape == prediction.reconstruction.shape == (3, 1, SIDE, SIDE)
    assert prediction.score.shape == (3,)
    for part in (prediction.probability, prediction.anomaly, prediction.score):
        assert part.min() >= 0
        assert part.max() <= 1
    assert prediction.reconstruction.abs().max() <= 1


def test_ganet_seg_samples_are_seeded_and_for_healthy_stage_only():
    model = system()
    one, again, other = (model.sample("healthy", np.random.default_rng(key)) for key in (1, 1, 2))
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not np.array_equal(one["holes"], other["holes"])
    assert model.sample("segment", np.random.default_rng(1)) == {}


def test_supervised_epochs_default_to_a_third():
    segment = system(**{"train.epochs": 30, "system.supervised_epochs": None}).stages[1]
    assert [(phase.name, phase.epochs) for phase in segment.phases] == [
        ("supervised", range(10)),
        ("adversarial", range(10, 30)),
    ]
    assert segment.monitor.since == 10


def test_ganet_seg_rejects_gan_without_adversarial_epoch():
    with pytest.raises(ConfigError, match=r"system\.supervised_epochs: 5 of train\.epochs=5"):
        system(**{"train.epochs": 5, "system.supervised_epochs": 5})
    assert len(system(**{"train.epochs": 5, "system.supervised_epochs": 5, "system.gan": False}).stages) == 1
