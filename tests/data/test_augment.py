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


def augment_batch(batch, config, key=0):
    parameters = [
        sample_augmentation(config, batch.image.shape[1], np.random.default_rng([key, row]))
        for row in range(len(batch.image))
    ]
    stacked = {name: torch.from_numpy(np.stack([one[name] for one in parameters])) for name in parameters[0]}
    return augment(Batch(batch.image, batch.regions, batch.case, batch.label, stacked))


def test_augment_without_parameters_returns_batch():
    batch = head()
    assert augment(batch) is batch


def test_augment_with_zero_strengths_is_identity():
    batch = head()
    same = augment_batch(batch, OFF)
    assert torch.allclose(same.image, batch.image, atol=1e-5)
    assert torch.equal(same.regions, batch.regions)


def test_augment_flip_mirrors_image_and_mask_horizontally():
    batch = head()
    flipped = augment_batch(batch, OFF.model_copy(update={"flip": 1.0}))
    assert torch.allclose(flipped.image, batch.image.flip(-1), atol=1e-5)
    assert torch.equal(flipped.regions, batch.regions.flip(-1))
    assert not torch.equal(flipped.regions, batch.regions)


def test_augment_keeps_mask_on_tumour_under_affine():
    """The tumour is brighter than all else, so the moved mask can be read off the moved image."""
    config = AugmentConfig(flip=0.5, rotation_degrees=90, scale=0.3, gain=0, shift=0)
    moved = augment_batch(head(examples=24), config)
    bright = moved.image[:, 0] > 0.25
    mask = moved.regions[:, 0] > 0.5
    dice = 2 * (bright & mask).sum((1, 2)) / (bright.sum((1, 2)) + mask.sum((1, 2)))
    assert dice.min() > 0.85
    areas = mask.sum((1, 2))
    assert areas.min() < areas.max() * 0.7, "each example has its own zoom"
    assert set(moved.regions.unique().tolist()) == {0.0, 1.0}


def test_augment_keeps_background_at_minus_one_and_tissue_above():
    config = AugmentConfig(flip=0.5, rotation_degrees=180, scale=0.2, gain=0.9, shift=0.9)
    batch = head(examples=16)
    moved = augment_batch(batch, config)
    assert (moved.image[..., 0, :] == BACKGROUND).all()
    assert moved.image.min() == BACKGROUND
    assert moved.image.max() <= 1
    only_brighter = augment_batch(batch, OFF.model_copy(update={"gain": 0.9, "shift": 0.9}))
    assert torch.equal(only_brighter.foreground, batch.foreground)
    assert (only_brighter.image[~batch.foreground.expand_as(batch.image)] == BACKGROUND).all()


def test_augment_applies_gain_and_shift_per_channel():
    batch = head()
    stacked = {
        "affine": torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]]),
        "gain": torch.tensor([[1.5, 1.0]]),
        "shift": torch.tensor([[0.1, -0.2]]),
    }
    changed = augment(Batch(batch.image, batch.regions, batch.case, batch.label, stacked))
    foreground = batch.foreground[0, 0]
    assert torch.allclose(
        changed.image[0, 0][foreground], (batch.image[0, 0][foreground] * 1.5 + 0.1).clamp(max=1), atol=1e-5
    )
    assert torch.allclose(changed.image[0, 1][foreground], batch.image[0, 1][foreground] - 0.2, atol=1e-5)


def test_sample_augmentation_fills_configured_ranges():
    config = AugmentConfig(flip=0.5, rotation_degrees=30, scale=0.2, gain=0.1, shift=0.3)
    parameters = [sample_augmentation(config, 3, np.random.default_rng(key)) for key in range(300)]
    gains, shifts = (np.stack([one[name] for one in parameters]) for name in ("gain", "shift"))
    for values, low, high in ((gains, 0.9, 1.1), (shifts, -0.3, 0.3)):
        assert values.shape == (300, 3)
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < values.max() <= high
    affines = np.stack([one["affine"] for one in parameters])
    determinants = np.linalg.det(affines[:, :, :2])
    zooms = np.abs(determinants) ** -0.5
    assert 0.8 <= zooms.min() < 0.83
    assert 1.17 < zooms.max() <= 1.2
    assert 100 < (determinants < 0).sum() < 200
    turns = np.degrees(np.arcsin(-affines[:, 0, 1] * zooms))
    assert -30.001 <= turns.min() < -27
    assert 27 < turns.max() <= 30.001


def test_augment_accepts_batch_without_regions():
    batch = head()
    moved = augment_batch(Batch(batch.image, torch.zeros(1, 0, SIDE, SIDE), batch.case, batch.label), AugmentConfig())
    assert moved.regions.shape == (1, 0, SIDE, SIDE)


@pytest.mark.parametrize("config", [AugmentConfig(), OFF])
def test_augment_is_reproducible_by_seed(config):
    assert torch.equal(augment_batch(head(), config, key=5).image, augment_batch(head(), config, key=5).image)
    if config is not OFF:
        assert not torch.equal(augment_batch(head(), config, key=5).image, augment_batch(head(), config, key=6).image)
