import numpy as np
import torch

from ganseg_dist.data.batch import BACKGROUND
from ganseg_dist.systems.ganet_seg.lesions import add_lesion, sample_lesion

SIDE = 48


def healthy(batch=4):
    foreground = torch.zeros(batch, 1, SIDE, SIDE, dtype=torch.bool)
    foreground[:, :, 8:40, 8:40] = True
    return torch.where(foreground, 0.1, BACKGROUND).expand(batch, 2, SIDE, SIDE).clone(), foreground


def drawn(batch=4):
    each = [sample_lesion(2, np.random.default_rng(key)) for key in range(batch)]
    return {name: torch.from_numpy(np.stack([one[name] for one in each])) for name in each[0]}


def added(image, foreground, draws):
    return add_lesion(image, foreground, draws["lesion_outline"], draws["lesion_tone"], draws["lesion_opacity"])


def test_a_lesion_changes_tissue_in_and_just_around_its_outline_only():
    image, foreground = healthy()
    ill, inside = added(image, foreground, drawn())
    assert (inside.flatten(1).sum(1) > 0).all()
    assert (inside[~foreground] == 0).all()
    near = torch.nn.functional.max_pool2d(inside, 5, stride=1, padding=2) > 0
    assert torch.equal(ill[(~near).expand_as(ill)], image[(~near).expand_as(ill)])
    assert (ill != image).any(1).flatten(1).any(1).all()


def test_the_background_stays_and_tissue_stays_tissue():
    image, foreground = healthy()
    ill, _ = added(image, foreground, drawn())
    outside = ~foreground.expand_as(ill)
    assert (ill[outside] == BACKGROUND).all()
    assert (ill[~outside] > BACKGROUND).all()
    assert ill.max() <= 1


def test_deep_inside_the_blend_is_tone_by_opacity_channel_by_channel():
    image, foreground = healthy(1)
    draws = {
        "lesion_outline": torch.tensor([[[0.5, 0.25, 0.25, 0.0, *[0.0] * 6]]]),
        "lesion_tone": torch.tensor([[0.9, -0.7]]),
        "lesion_opacity": torch.tensor([[0.5]]),
    }
    ill, inside = added(image, foreground, draws)
    rows, columns = inside[0, 0].nonzero().float().mean(0).round().long().tolist()
    assert torch.allclose(ill[0, :, rows, columns], torch.tensor([0.5, -0.3]))


def test_draws_follow_from_the_generator():
    one, again, other = (sample_lesion(2, np.random.default_rng(key)) for key in (1, 1, 2))
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not np.array_equal(one["lesion_tone"], other["lesion_tone"])
    tones = np.concatenate([sample_lesion(2, np.random.default_rng(key))["lesion_tone"] for key in range(200)])
    assert -0.8 <= tones.min() < -0.7
    assert 0.9 < tones.max() <= 1
