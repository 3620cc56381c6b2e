import numpy as np
import pytest
import torch
from torch import nn

from ganseg_dist.config import override
from ganseg_dist.data.batch import Batch
from ganseg_dist.errors import ConfigError
from ganseg_dist.losses.adversarial import adversarial_feedback_loss, edge_map
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
    """Round heads with a tumour in their middle, but for the last, which has none."""
    torch.manual_seed(1)
    foreground = disc(14)
    image = torch.where(foreground > 0, torch.rand(examples, 2, SIDE, SIDE) - 0.5, -1.0)
    regions = torch.stack([disc(6)[0, 0], disc(3)[0, 0]]).expand(examples, 2, SIDE, SIDE).clone()
    regions[-1] = 0
    return Batch(image, regions, torch.arange(examples), torch.zeros(examples))


def with_draws(made: GANetSeg, batch: Batch) -> Batch:
    drawn = [made.sample("healthy", np.random.default_rng(example)) for example in range(len(batch.image))]
    draws = {name: torch.from_numpy(np.stack([one[name] for one in drawn])) for name in drawn[0]}
    return Batch(batch.image, batch.regions, batch.case, batch.label, draws)


def test_an_unresolved_config_is_refused():
    with pytest.raises(ConfigError, match="resolved from a cohort"):
        build_system(recipe("ganet_seg_debug"))


def test_a_healthy_modality_that_the_run_does_not_have_is_refused():
    with pytest.raises(ConfigError, match=r"system.healthy_modalities: t2 is not among t1, flair"):
        system(**{"system.healthy_modalities": ["t2"]})


def test_stages_and_phases_of_the_sound_reading():
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


def test_the_plain_arm_has_the_segmenter_and_nothing_of_the_gan():
    made = system(**{"system.gan": False})
    assert made.networks.keys() == {"segmenter"}
    (segment,) = made.stages
    assert [(p.name, p.epochs) for p in segment.phases] == [("supervised", None)]
    said = made.predict(head())
    assert said.probability.shape == (3, 2, SIDE, SIDE)
    assert said.anomaly is said.reconstruction is said.score is None


def test_both_arms_start_from_the_same_segmenter():
    plain, gan = system(**{"system.gan": False}), system()
    for name, weight in plain.networks["segmenter"].state_dict().items():
        assert torch.equal(weight, gan.networks["segmenter"].state_dict()[name])


def test_the_paper_reading_differs_where_it_is_said_to():
    corrected, paper = system(), system(**{"system.reading": "paper"})
    assert paper.networks["segmenter"].head.out_channels == 3  # softmax over background and two classes
    assert corrected.networks["segmenter"].head.out_channels == 2
    assert paper.stages[1].phases[1].balance.rule == "inverse"
    assert paper.stages[0].phases[0].weights == {"adversarial": 1.0, "hole_l1": 0.0}
    assert corrected.stages[0].phases[0].weights == {"adversarial": 1.0, "hole_l1": 100.0}
    assert paper.stages[0].phases[1].weights["lesion"] == 0.0
    assert corrected.stages[0].phases[1].weights["lesion"] == 1.0
    batch = head()
    one, other = (made.losses("adversarial", batch) for made in (corrected, paper))
    # The paper's sparsity is a sum over the pixels of a slice.
    mask = torch.softmax(paper.networks["segmenter"](batch.image), 1)[:, 1:].sum(1)
    assert other["sparsity"].item() == pytest.approx(mask.flatten(1).sum(1).mean().item(), rel=1e-4)
    assert one["sparsity"] <= 1


@pytest.mark.parametrize("reading", ["corrected", "paper"])
@pytest.mark.parametrize("phase", ["generator", "discriminator", "supervised", "adversarial"])
def test_every_term_is_finite_reaches_what_the_phase_trains_and_has_a_weight(reading, phase):
    made = system(**{"system.reading": reading})
    definition = next(p for stage in made.stages for p in stage.phases if p.name == phase)
    terms = made.losses(phase, with_draws(made, head()))
    on = {name for name, weight in definition.weights.items() if weight}
    assert on <= terms.keys() <= definition.weights.keys()
    for term in terms.values():
        assert torch.isfinite(term)
        for name in definition.trains:
            gradients = torch.autograd.grad(
                term, list(made.networks[name].parameters()), retain_graph=True, allow_unused=True
            )
            assert any(g is not None and g.abs().max() > 0 for g in gradients)


@pytest.mark.parametrize(
    ("phase", "field", "term"),
    [("discriminator", "synthetic_lesion_weight", "lesion"), ("adversarial", "adversarial_weight", "adversarial")],
)
def test_a_costly_term_that_is_off_is_not_computed(phase, field, term):
    on, off = (system(**{f"system.{field}": weight}) for weight in (1.0, 0.0))
    assert on.losses(phase, with_draws(on, head())).keys() - off.losses(phase, with_draws(off, head())) == {term}


def test_an_unknown_phase_is_refused():
    with pytest.raises(ValueError, match="no phase 'warm-up'"):
        system().losses("warm-up", head())


def test_filling_leaves_what_is_outside_the_mask():
    made = system()
    image, mask = head().image, disc(6).expand(3, 1, SIDE, SIDE)
    filled, reconstruction = made.fill(image, mask)
    outside = (mask == 0).expand_as(image)
    assert torch.equal(filled[outside], image[outside])
    assert torch.equal(filled[~outside], reconstruction[~outside])


def test_the_generator_does_not_see_what_the_mask_hides():
    made = system()
    image, mask = head().image, disc(6).expand(3, 1, SIDE, SIDE)
    other = torch.where(mask > 0, torch.rand_like(image), image)
    assert torch.equal(made.fill(image, mask)[0], made.fill(other, mask)[0])


class Seen(nn.Module):
    """A discriminator that finds an image the more real the darker it is, patch by patch of four pixels."""

    def forward(self, image):
        return -nn.functional.avg_pool2d(image.mean(1, keepdim=True), 4)


class Generates(nn.Module):
    """A generator whose healthy tissue is all of one tone."""

    def forward(self, kept, mask):
        return torch.full_like(kept, -0.5)


def test_feedback_looks_along_the_edge_of_the_mask_at_the_filled_image():
    made = system()
    made.networks = {**made.networks, "discriminator": Seen(), "generator": Generates()}
    image, mask = torch.zeros(1, 2, SIDE, SIDE), disc(6)
    filled = image * (1 - mask) - 0.5 * mask
    wanted = adversarial_feedback_loss(Seen()(filled), edge_map(mask, (8, 8)))
    assert made.feedback(image, mask).item() == pytest.approx(wanted.item())


def test_feedback_lowers_for_a_mask_that_covers_the_tumour():
    """Bright tissue is ill to this discriminator: a mask that leaves some of it outside is told so."""
    made = system()
    made.networks = {**made.networks, "discriminator": Seen(), "generator": Generates()}
    image = torch.where(disc(8) > 0, 4.0, -0.5).expand(1, 2, SIDE, SIDE)
    covers, leaves = disc(9), disc(5)
    assert made.feedback(image, covers) < made.feedback(image, leaves)


def test_no_gradient_runs_through_the_edges():
    """Only the filled image carries one: where the filling equals the image there is nothing to gain."""
    made = system()
    made.networks = {**made.networks, "discriminator": Seen(), "generator": Generates()}
    image = torch.full((1, 2, SIDE, SIDE), -0.5)
    mask = (disc(6) * 0.7 + 0.1).requires_grad_()
    made.feedback(image, mask).backward()
    assert mask.grad.abs().max() < 1e-7
    other = (disc(6) * 0.7 + 0.1).requires_grad_()
    made.feedback(image + 1, other).backward()
    assert other.grad.abs().max() > 1e-4


def test_hole_l1_by_hand():
    made = system()
    made.networks = {**made.networks, "generator": Generates()}
    flat = torch.where(disc(14) > 0, 0.25, -1.0).expand(2, 2, SIDE, SIDE)
    batch = with_draws(made, Batch(flat, head(2).regions, head(2).case, head(2).label))
    numerator, denominator, relevant = made.validate("healthy", batch)["hole_l1"]
    assert (denominator > 0).all()
    assert (relevant > 0).all()
    assert (numerator / denominator).tolist() == pytest.approx([0.75, 0.75])


def test_dice_of_each_region_as_sums():
    made = system()
    batch = head()

    class Says(nn.Module):
        def forward(self, image):
            logits = torch.full((len(image), 2, SIDE, SIDE), -1.0)
            logits[:, 0][batch.regions[:, 0] > 0] = 1.0  # the whole tumour exactly, nothing of the core
            return logits

    made.networks = {**made.networks, "segmenter": Says()}
    scores = made.validate("segment", batch)
    tumour, core = batch.regions[0].flatten(1).sum(1).tolist()
    assert scores["dice_wt"].numerator.tolist() == [2 * tumour, 2 * tumour, 0]
    assert scores["dice_wt"].denominator.tolist() == [2 * tumour, 2 * tumour, 0]
    assert scores["dice_wt"].relevant.tolist() == [tumour, tumour, 0]
    assert scores["dice_tc"].numerator.tolist() == [0, 0, 0]
    assert scores["dice_tc"].denominator.tolist() == [core, core, 0]


def test_a_slices_score_counts_the_patches_that_hold_body():
    realism = torch.tensor([[0.9, 0.2], [0.6, 0.0]]).view(1, 1, 2, 2)
    foreground = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    foreground[..., 2:, 2:] = False  # the patch that scored 0
    for score, value in (("mean", 1.7 / 3), ("min", 0.2), ("quantile", 0.4)):
        made = system(**{"system.score": score, "system.score_quantile": 0.25})
        assert made._slice_score(realism, foreground).item() == pytest.approx(value)
        assert made._slice_score(realism, torch.zeros_like(foreground)).item() == 1


def test_predictions_have_their_ranges_and_shapes():
    made = system(**{"system.healthy_modalities": ["flair"]})
    said = made.predict(head())
    assert said.probability.shape == (3, 2, SIDE, SIDE)
    assert said.anomaly.shape == said.reconstruction.shape == (3, 1, SIDE, SIDE)
    assert said.score.shape == (3,)
    for part in (said.probability, said.anomaly, said.score):
        assert part.min() >= 0
        assert part.max() <= 1
    assert said.reconstruction.abs().max() <= 1


def test_draws_follow_from_the_generator_and_belong_to_pretraining_alone():
    made = system()
    one, again, other = (made.sample("healthy", np.random.default_rng(key)) for key in (1, 1, 2))
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not np.array_equal(one["holes"], other["holes"])
    assert made.sample("segment", np.random.default_rng(1)) == {}


def test_a_third_of_the_epochs_is_supervised_unless_said_otherwise():
    segment = system(**{"train.epochs": 30, "system.supervised_epochs": None}).stages[1]
    assert [(phase.name, phase.epochs) for phase in segment.phases] == [
        ("supervised", range(10)),
        ("adversarial", range(10, 30)),
    ]
    assert segment.monitor.since == 10


def test_a_gan_without_an_adversarial_epoch_is_refused():
    with pytest.raises(ConfigError, match=r"system\.supervised_epochs: 5 of train\.epochs=5"):
        system(**{"train.epochs": 5, "system.supervised_epochs": 5})
    assert len(system(**{"train.epochs": 5, "system.supervised_epochs": 5, "system.gan": False}).stages) == 1
