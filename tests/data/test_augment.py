import numpy as np
import pytest
import torch

from ganseg_dist.config import AugmentConfig
from ganseg_dist.data.augment import augment, sample_augmentation
from ganseg_dist.data.batch import BACKGROUND, Batch

OFF = AugmentConfig(flip=0, rotation_degrees=0, scale=0, gain=0, shift=0)
SIDE = 32


def head(examples=1, channels=2):
    """A round head with a tumour left of its middle, whose image is brightest where the tumour is."""
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    foreground = ((rows - 15.5) ** 2 + (columns - 15.5) ** 2).sqrt() < 11
    tumour = ((rows - 14) ** 2 + (columns - 9) ** 2).sqrt() < 3.5
    image = torch.where(foreground, -0.2, BACKGROUND) + tumour * 0.9
    return Batch(
        image.expand(examples, channels, SIDE, SIDE).clone(),
        tumour.float().expand(examples, 1, SIDE, SIDE).clone(),
        *torch.zeros(2, examples, dtype=torch.int64),
    )


def augmented(batch, config, key=0):
    drawn = [
        sample_augmentation(config, batch.image.shape[1], np.random.default_rng([key, row]))
        for row in range(len(batch.image))
    ]
    draws = {name: torch.from_numpy(np.stack([one[name] for one in drawn])) for name in drawn[0]}
    return augment(Batch(batch.image, batch.regions, batch.case, batch.label, draws))


def test_no_draws_no_change():
    batch = head()
    assert augment(batch) is batch


def test_switched_off_it_is_the_identity():
    batch = head()
    same = augmented(batch, OFF)
    assert torch.allclose(same.image, batch.image, atol=1e-5)
    assert torch.equal(same.regions, batch.regions)


def test_a_flip_mirrors_image_and_mask_alike_from_left_to_right():
    batch = head()
    flipped = augmented(batch, OFF.model_copy(update={"flip": 1.0}))
    assert torch.allclose(flipped.image, batch.image.flip(-1), atol=1e-5)
    assert torch.equal(flipped.regions, batch.regions.flip(-1))
    assert not torch.equal(flipped.regions, batch.regions)


def test_the_mask_stays_on_the_tumour_through_every_transform():
    """The tumour is brighter than all else, so the moved mask can be read off the moved image."""
    config = AugmentConfig(flip=0.5, rotation_degrees=90, scale=0.3, gain=0, shift=0)
    moved = augmented(head(examples=24), config)
    bright = moved.image[:, 0] > 0.25
    mask = moved.regions[:, 0] > 0.5
    dice = 2 * (bright & mask).sum((1, 2)) / (bright.sum((1, 2)) + mask.sum((1, 2)))
    assert dice.min() > 0.85
    areas = mask.sum((1, 2))
    assert areas.min() < areas.max() * 0.7, "the zoom was drawn anew for each example"
    assert set(moved.regions.unique().tolist()) == {0.0, 1.0}


def test_background_stays_exactly_minus_one_and_tissue_never_is():
    config = AugmentConfig(flip=0.5, rotation_degrees=180, scale=0.2, gain=0.9, shift=0.9)
    batch = head(examples=16)
    moved = augmented(batch, config)
    assert (moved.image[..., 0, :] == BACKGROUND).all()
    assert moved.image.min() == BACKGROUND
    assert moved.image.max() <= 1
    only_brighter = augmented(batch, OFF.model_copy(update={"gain": 0.9, "shift": 0.9}))
    assert torch.equal(only_brighter.foreground, batch.foreground)
    assert (only_brighter.image[~batch.foreground.expand_as(batch.image)] == BACKGROUND).all()


def test_gain_and_shift_change_each_channel_by_what_was_drawn():
    batch = head()
    draws = {
        "affine": torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]]),
        "gain": torch.tensor([[1.5, 1.0]]),
        "shift": torch.tensor([[0.1, -0.2]]),
    }
    changed = augment(Batch(batch.image, batch.regions, batch.case, batch.label, draws))
    foreground = batch.foreground[0, 0]
    assert torch.allclose(
        changed.image[0, 0][foreground], (batch.image[0, 0][foreground] * 1.5 + 0.1).clamp(max=1), atol=1e-5
    )
    assert torch.allclose(changed.image[0, 1][foreground], batch.image[0, 1][foreground] - 0.2, atol=1e-5)


def test_draws_stay_in_their_ranges_and_fill_them():
    config = AugmentConfig(flip=0.5, rotation_degrees=30, scale=0.2, gain=0.1, shift=0.3)
    drawn = [sample_augmentation(config, 3, np.random.default_rng(key)) for key in range(300)]
    gains, shifts = (np.stack([one[name] for one in drawn]) for name in ("gain", "shift"))
    for values, low, high in ((gains, 0.9, 1.1), (shifts, -0.3, 0.3)):
        assert values.shape == (300, 3)
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < values.max() <= high
    affines = np.stack([one["affine"] for one in drawn])
    determinants = np.linalg.det(affines[:, :, :2])
    zooms = np.abs(determinants) ** -0.5
    assert 0.8 <= zooms.min() < 0.83
    assert 1.17 < zooms.max() <= 1.2
    assert 100 < (determinants < 0).sum() < 200
    turns = np.degrees(np.arcsin(-affines[:, 0, 1] * zooms))
    assert -30.001 <= turns.min() < -27
    assert 27 < turns.max() <= 30.001


def test_a_batch_without_regions():
    batch = head()
    moved = augmented(Batch(batch.image, torch.zeros(1, 0, SIDE, SIDE), batch.case, batch.label), AugmentConfig())
    assert moved.regions.shape == (1, 0, SIDE, SIDE)


@pytest.mark.parametrize("config", [AugmentConfig(), OFF])
def test_the_same_draws_give_the_same_picture(config):
    assert torch.equal(augmented(head(), config, key=5).image, augmented(head(), config, key=5).image)
    if config is not OFF:
        assert not torch.equal(augmented(head(), config, key=5).image, augmented(head(), config, key=6).image)
