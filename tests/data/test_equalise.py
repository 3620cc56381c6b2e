import numpy as np
import pytest

from ganseg_dist.data.contrast import equalise


def test_equalise_matches_equations_1_to_3():
    # h = 1, 2, 1 of n = 4; CDF = 1/4, 3/4, 1; round(CDF * 255) = 64, 191, 255.
    plane = np.array([[0.0, 10.0, 10.0, 30.0]], np.float32)
    equalised = equalise(plane, np.ones(plane.shape, bool))
    assert equalised * 255 == pytest.approx(np.array([[64, 191, 191, 255]]))


def test_equalise_keeps_a_ramp():
    ramp = np.arange(256, dtype=np.float32).reshape(16, 16)
    equalised = equalise(ramp, np.ones(ramp.shape, bool))
    shares = np.arange(1, 257) / 256
    assert equalised.ravel() * 255 == pytest.approx(np.round(shares * 255))


def test_equalise_spreads_crowded_intensities():
    crowded = np.concatenate([np.linspace(0, 1, 900), np.linspace(1, 10, 100)]).astype(np.float32).reshape(20, 50)
    equalised = equalise(crowded, np.ones(crowded.shape, bool))
    assert (np.diff(equalised.ravel()) >= 0).all()  # the order stays
    assert np.median(crowded) / crowded.max() < 0.06
    assert np.median(equalised) == pytest.approx(0.5, abs=0.03)


def test_equalise_zeroes_and_ignores_background():
    plane = np.array([[0.0, 10.0, 10.0, 30.0, -1.0, 99.0]], np.float32)
    foreground = np.array([[True, True, True, True, False, False]])
    equalised = equalise(plane, foreground)
    assert (equalised[~foreground] == 0).all()
    assert np.array_equal(equalised[:, :4], equalise(plane[:, :4], foreground[:, :4]))


def test_equalise_uses_one_histogram_per_stack():
    stack = np.stack([np.full((4, 4), 1.0), np.full((4, 4), 2.0)]).astype(np.float32)
    equalised = equalise(stack, np.ones(stack.shape, bool))
    assert equalised[0] * 255 == pytest.approx(128)  # half of all pixels are no brighter
    assert equalised[1] == pytest.approx(1)


@pytest.mark.parametrize("method", ["global", "clahe"])
@pytest.mark.parametrize("shape", [(16, 16), (3, 16, 16)])
def test_equalise_keeps_shape_and_range_and_is_deterministic(method, shape):
    volume = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    foreground = volume > -1
    equalised = equalise(volume, foreground, method=method)
    assert (equalised.shape, equalised.dtype) == (shape, np.float32)
    assert equalised.min() >= 0
    assert equalised.max() <= 1
    assert (equalised[~foreground] == 0).all()
    assert np.array_equal(equalised, equalise(volume, foreground, method=method))


def test_equalise_clahe_depends_on_neighbourhood():
    # A grey patch among dark tissue and the same patch among bright tissue.
    plane = np.random.default_rng(0).uniform(0, 0.4, (64, 128)).astype(np.float32)
    plane[:, 64:] += 0.6
    among_dark, among_bright = np.s_[28:36, 28:36], np.s_[28:36, 92:100]
    plane[among_dark] = plane[among_bright] = 0.5
    foreground = np.ones(plane.shape, bool)
    everywhere, local = equalise(plane, foreground), equalise(plane, foreground, method="clahe")
    assert everywhere[among_dark].mean() == everywhere[among_bright].mean()
    assert local[among_dark].mean() > local[among_bright].mean() + 0.1


@pytest.mark.parametrize("method", ["global", "clahe"])
def test_equalise_of_flat_or_empty_foreground_is_constant(method):
    flat = np.full((2, 8, 8), 3.0, np.float32)
    foreground = np.ones(flat.shape, bool)
    assert (equalise(flat, foreground, method=method) == 0.5).all()
    assert (equalise(flat, ~foreground, method=method) == 0).all()
