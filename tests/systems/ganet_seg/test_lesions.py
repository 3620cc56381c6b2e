import numpy as np
import torch

from ganseg_dist.data.batch import BACKGROUND
from ganseg_dist.systems.ganet_seg.lesions import add_lesion, sample_lesion

SIDE = 48


def healthy_head(batch=4):
    foreground = torch.zeros(batch, 1, SIDE, SIDE, dtype=torch.bool)
    foreground[:, :, 8:40, 8:40] = True
    return torch.where(foreground, 0.1, BACKGROUND).expand(batch, 2, SIDE, SIDE).clone(), foreground


def lesion_samples(batch=4):
    each = [sample_lesion(2, np.random.default_rng(key)) for key in range(batch)]
    return {name: torch.from_numpy(np.stack([one[name] for one in each])) for name in each[0]}


def with_lesion(image, foreground, samples):
    return add_lesion(image, foreground, samples["lesion_outline"], samples["lesion_tone"], samples["lesion_opacity"])


def test_add_lesion_changes_tissue_near_outline_only():
    image, foreground = healthy_head()
    image_with_lesion, inside = with_lesion(image, foreground, lesion_samples())
    assert (inside.flatten(1).sum(1) > 0).all()
    assert (inside[~foreground] == 0).all()
    near = torch.nn.functional.max_pool2d(inside, 5, stride=1, padding=2) > 0
    assert torch.equal(
        image_with_lesion[(~near).expand_as(image_with_lesion)], image[(~near).expand_as(image_with_lesion)]
    )
    assert (image_with_lesion != image).any(1).flatten(1).any(1).all()


def test_add_lesion_keeps_background_and_tissue_apart():
    image, foreground = healthy_head()
    image_with_lesion, _ = with_lesion(image, foreground, lesion_samples())
    outside = ~foreground.expand_as(image_with_lesion)
    assert (image_with_lesion[outside] == BACKGROUND).all()
    assert (image_with_lesion[~outside] > BACKGROUND).all()
    assert image_with_lesion.max() <= 1


def test_add_lesion_blends_tone_by_opacity_per_channel():
    image, foreground = healthy_head(1)
    samples = {
        "lesion_outline": torch.tensor([[[0.5, 0.25, 0.25, 0.0, *[0.0] * 6]]]),
        "lesion_tone": torch.tensor([[0.9, -0.7]]),
        "lesion_opacity": torch.tensor([[0.5]]),
    }
    image_with_lesion, inside = with_lesion(image, foreground, samples)
    rows, columns = inside[0, 0].nonzero().float().mean(0).round().long().tolist()
    assert torch.allclose(image_with_lesion[0, :, rows, columns], torch.tensor([0.5, -0.3]))


def test_sample_lesion_is_seeded_and_fills_tone_range():
    one, again, other = (sample_lesion(2, np.random.default_rng(key)) for key in (1, 1, 2))
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not np.array_equal(one["lesion_tone"], other["lesion_tone"])
    tones = np.concatenate([sample_lesion(2, np.random.default_rng(key))["lesion_tone"] for key in range(200)])
    assert -0.8 <= tones.min() < -0.7
    assert 0.9 < tones.max() <= 1
