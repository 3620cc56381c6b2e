import numpy as np
import pytest
from scipy.special import erf

from ganseg_dist.data.contrast import enhance

LEVELS = np.linspace(-0.7, 0.9, 41, dtype=np.float32).reshape(1, 1, 41)
FOREGROUND = np.ones(LEVELS.shape, bool)


def test_enhance_corrected_reading_is_increasing():
    enhanced = enhance(LEVELS, FOREGROUND).ravel()
    assert (np.diff(enhanced) > 0).all()
    assert (enhanced[0], enhanced[-1]) == (0, 1)


def test_enhance_paper_reading_is_decreasing():
    enhanced = enhance(LEVELS, FOREGROUND, reading="paper").ravel()
    assert (np.diff(enhanced) < 0).all()
    assert (enhanced[0], enhanced[-1]) == (1, 0)


@pytest.mark.parametrize("reading", ["corrected", "paper"])
def test_enhance_matches_equations_13_to_17(reading):
    x = np.array([0.0, 0.3, 1.0])
    image1 = np.log(x + 1) / np.log(2)
    image2 = 1 - np.exp(-x)
    image3 = (image1 + image2) / (2 + image1 * image2)
    inner = 2 * np.arctan(np.exp(image3))
    image4 = erf(inner - 0.5 * image3) if reading == "corrected" else erf(inner) - 0.5 * image3
    expected = (image4 - image4.min()) / np.ptp(image4)
    volume = (10 + 5 * x).astype(np.float32).reshape(1, 1, 3)
    assert enhance(volume, np.ones(volume.shape, bool), reading=reading).ravel() == pytest.approx(expected, abs=1e-4)


def test_enhance_zeroes_and_ignores_background():
    volume = np.concatenate([LEVELS, np.full((1, 1, 3), 50.0, np.float32)], axis=2)
    foreground = np.concatenate([FOREGROUND, np.zeros((1, 1, 3), bool)], axis=2)
    enhanced = enhance(volume, foreground)
    assert (enhanced[~foreground] == 0).all()
    assert np.array_equal(enhanced[..., :41], enhance(LEVELS, FOREGROUND))


def test_enhance_is_zero_for_flat_or_empty_foreground():
    assert (enhance(np.ones((2, 2, 2), np.float32), np.ones((2, 2, 2), bool)) == 0).all()
    assert (enhance(LEVELS, ~FOREGROUND) == 0).all()
