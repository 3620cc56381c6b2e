"""Noise, bias fields and gamma on a ball of tissue in an empty scan."""

import numpy as np
import pytest

from ganseg_dist.data.grid import Grid
from ganseg_dist.data.perturb import KINDS, kinds_for, perturb, without
from ganseg_dist.data.scan import Scan

SHAPE = (24, 24, 24)
BALL = sum((axis - 12) ** 2 for axis in np.mgrid[:24, :24, :24]) < 81


def ball(*levels, modalities=("t1", "flair")):
    """Tissue that rises along x from 100 to 200, times a level a modality."""
    ramp = np.linspace(100, 200, 24)[:, None, None] * np.ones(SHAPE)
    image = np.stack([np.where(BALL, level * ramp, 0) for level in levels]).astype(np.float32)
    return Scan(modalities, image, BALL.astype(np.uint8), Grid(SHAPE, np.eye(4)))


def perturb_seeded(scan, kind, strength, seed=0):
    return perturb(scan, kind, strength, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_perturb_changes_foreground_only_and_is_reproducible(kind):
    scan = ball(1, 3)
    before = scan.image.copy()
    changed = perturb_seeded(scan, kind, 0.2)
    assert changed.image.dtype == np.float32
    assert (scan.image == before).all()
    assert (changed.image[:, ~BALL] == 0).all()
    assert (changed.image[:, BALL] != before[:, BALL]).mean() > 0.9
    assert changed.labels is scan.labels
    assert changed.grid is scan.grid
    assert (perturb_seeded(scan, kind, 0.2).image == changed.image).all()
    assert any((perturb_seeded(scan, kind, 0.2, seed).image != changed.image).any() for seed in range(1, 6))


@pytest.mark.parametrize("kind", KINDS)
def test_perturb_with_strength_zero_is_identity(kind):
    np.testing.assert_allclose(perturb_seeded(ball(1, 3), kind, 0).image, ball(1, 3).image, rtol=1e-6)


def test_gaussian_noise_scales_with_each_modality():
    scan = ball(1, 30)
    noise = (perturb_seeded(scan, "Gaussian noise", 0.1).image - scan.image)[:, BALL]
    low, high = np.percentile(scan.image[0][BALL], (1, 99))
    assert noise[0].std() == pytest.approx(0.1 * (high - low), rel=0.05)
    assert noise[1].std() == pytest.approx(30 * 0.1 * (high - low), rel=0.05)
    assert abs(noise[0].mean()) < 0.1 * noise[0].std()
    assert abs(np.corrcoef(noise)[0, 1]) < 0.1


def test_gaussian_noise_scales_linearly_with_strength():
    scan = ball(1, 1)
    weak, strong = (perturb_seeded(scan, "Gaussian noise", strength).image - scan.image for strength in (0.1, 0.2))
    np.testing.assert_allclose(strong, 2 * weak, atol=1e-4)


def test_rician_noise_is_rayleigh_without_signal():
    scan = ball(1, 1)
    rim = BALL & (sum((axis - 12) ** 2 for axis in np.mgrid[:24, :24, :24]) > 49)
    cavity = BALL & ~rim & (abs(np.mgrid[:24, :24, :24][2] - 12) < 4)  # what is closed in its slice is foreground
    scan.image[:] = np.where(BALL & ~cavity, 1000, 0)
    changed, sigma = perturb_seeded(scan, "Rician noise", 0.05).image[0], 0.05 * 1000
    assert changed[cavity].mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.05)
    assert changed[rim].mean() == pytest.approx(1000 + sigma**2 / 2000, rel=0.01)
    assert changed.min() >= 0


def test_bias_field_is_smooth_and_reaches_strength():
    scan = ball(1, 1)
    gain = np.log(perturb_seeded(scan, "bias field", 0.4).image[:, BALL] / scan.image[:, BALL])
    assert np.abs(gain).max(axis=1) == pytest.approx([0.4, 0.4], abs=1e-5)
    field = np.full(SHAPE, np.nan)
    field[BALL] = gain[0]
    assert np.nanmax(np.abs(np.diff(field, axis=0))) < 0.15 * 0.8, "neighbours are alike"
    assert np.abs(gain[0] - gain[1]).max() > 0.05, "each sequence has its own"


def test_gamma_keeps_extremes_and_order():
    scan = ball(1, 1)
    before, after = scan.image[0][BALL], perturb_seeded(scan, "gamma", np.log(2)).image[0][BALL]
    brightest = before.max()
    assert after.max() == pytest.approx(brightest)
    assert (np.diff(after[np.argsort(before)]) >= 0).all()
    by_hand = [brightest * (before / brightest) ** exponent for exponent in (2, 0.5)]
    assert any(np.allclose(after, expected, rtol=1e-5) for expected in by_hand)


@pytest.mark.parametrize("kind", KINDS)
def test_perturb_changes_nonzero_background(kind):
    scan = ball(1, 3)
    air = np.abs(np.random.default_rng(0).normal(0, 4, scan.image.shape)).astype(np.float32)
    scan.image[:, ~BALL] = air[:, ~BALL]
    changed = perturb_seeded(scan, kind, 0.1)
    assert (changed.image[:, ~BALL] != scan.image[:, ~BALL]).mean() > 0.9


def test_without_zeroes_named_modality_only():
    scan = without(ball(1, 2), "flair")
    assert (scan.image[1] == 0).all()
    assert (scan.image[0] == ball(1, 2).image[0]).all()


def test_perturb_clips_colours_and_omits_rician_noise():
    scan = ball(1, 1, 1, modalities=("red", "green", "blue"))
    changed = perturb_seeded(scan, "Gaussian noise", 2).image
    assert (changed.min(), changed.max()) == (0, 255)
    assert "Rician noise" not in kinds_for(scan.modalities)
    assert kinds_for(("t1", "flair")) == tuple(KINDS)


def test_perturb_returns_empty_scan_unchanged():
    scan = ball(0, 0)
    assert perturb_seeded(scan, "gamma", 1) is scan
