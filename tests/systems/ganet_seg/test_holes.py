import math

import numpy as np
import pytest
import torch

from ganseg_dist.systems.ganet_seg.config import HoleConfig
from ganseg_dist.systems.ganet_seg.holes import WOBBLES, cut_holes, sample_holes

SIDE = 64


def full_foreground(batch=1):
    return torch.ones(batch, 1, SIDE, SIDE, dtype=torch.bool)


def sampled_holes(config, keys):
    return torch.from_numpy(np.stack([sample_holes(config, np.random.default_rng(key)) for key in keys]))


def test_sample_holes_depend_on_key_only():
    config = HoleConfig()
    assert torch.equal(sampled_holes(config, [1, 2])[1], sampled_holes(config, [2])[0])
    assert not torch.equal(sampled_holes(config, [1]), sampled_holes(config, [2]))
    both = cut_holes(sampled_holes(config, [1, 2]), full_foreground(2))
    assert torch.equal(both[1:], cut_holes(sampled_holes(config, [2]), full_foreground()))


def test_sample_holes_have_count_by_parameter_shape():
    assert sampled_holes(HoleConfig(count=3), [0]).shape == (1, 3, 4 + 2 * WOBBLES)


def test_cut_holes_lie_inside_foreground():
    foreground = torch.zeros(20, 1, SIDE, SIDE, dtype=torch.bool)
    foreground[:, :, 20:40, 10:30] = True
    holes = cut_holes(sampled_holes(HoleConfig(largest_radius=0.4), range(20)), foreground)
    assert (holes[~foreground] == 0).all()
    assert (holes.flatten(1).sum(1) > 0).all()
    assert set(holes.unique().tolist()) == {0.0, 1.0}


def test_cut_holes_is_empty_for_empty_foreground():
    assert cut_holes(sampled_holes(HoleConfig(), [0]), ~full_foreground()).sum() == 0


def ellipse_parameters(place=0.5, along=0.1, across=0.1, tilt=0.0):
    return torch.tensor([[[place, along, across, tilt, *[0.0] * (2 * WOBBLES)]]])


def test_cut_holes_without_roughness_is_ellipse_of_its_radii():
    hole = cut_holes(ellipse_parameters(place=0.5 + 0.5 / SIDE, along=0.25, across=0.125), full_foreground())[0, 0] > 0
    rows, columns = hole.any(1).nonzero().flatten(), hole.any(0).nonzero().flatten()
    assert len(columns) == 2 * 16 + 1
    assert len(rows) == 2 * 8 + 1
    assert columns.float().mean().item() == SIDE / 2
    assert rows.float().mean().item() == SIDE / 2
    assert hole.sum().item() == pytest.approx(math.pi * 16 * 8, rel=0.03)
    turned = cut_holes(ellipse_parameters(0.5 + 0.5 / SIDE, 0.25, 0.125, math.pi / 2), full_foreground())[0, 0] > 0
    assert turned.any(1).sum() == 2 * 16 + 1


@pytest.mark.parametrize(("place", "pixel"), [(0.0, (20, 10)), (0.999999, (39, 29)), (1.0, (39, 29))])
def test_cut_holes_centres_hole_on_sampled_foreground_pixel(place, pixel):
    foreground = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.bool)
    foreground[:, :, 20:40, 10:30] = True
    hole = cut_holes(ellipse_parameters(place, 0.01, 0.01), foreground)[0, 0]
    assert hole.nonzero().tolist() == [list(pixel)]


@pytest.mark.parametrize(("smallest", "largest"), [(0.05, 0.05), (0.2, 0.2)])
def test_cut_holes_have_configured_mean_radius(smallest, largest):
    config = HoleConfig(count=1, smallest_radius=smallest, largest_radius=largest, roughness=0.3)
    parameters = sampled_holes(config, range(40))
    parameters[:, :, 0] = 0.5 + 0.5 / SIDE  # all whole, none cut by the frame
    areas = cut_holes(parameters, full_foreground(40)).flatten(1).sum(1)
    radii = (areas / math.pi).sqrt() / SIDE
    assert radii.median().item() == pytest.approx(largest, rel=0.15)
    assert radii.min() > 0.75 * smallest
    assert radii.max() < 1.35 * largest


def test_sample_holes_radii_fill_configured_range():
    config = HoleConfig(count=4, smallest_radius=0.05, largest_radius=0.3)
    radii = sampled_holes(config, range(50))[:, :, 1:3]
    assert 0.05 <= radii.min() < 0.06
    assert 0.27 < radii.max() <= 0.3 + 1e-6


def test_cut_holes_outline_follows_its_harmonics():
    """A circle of radius 16 with 0.5 sin(2 bearing): 24 pixels along one diagonal, 8 along the other."""
    parameters = ellipse_parameters(place=0.5 + 0.5 / SIDE, along=0.25, across=0.25)
    parameters[..., 4] = 0.5
    hole = cut_holes(parameters, full_foreground())[0, 0]
    middle = SIDE // 2
    steps = torch.arange(middle)
    assert hole[middle + steps, middle + steps].sum() == 1 + 16  # 16 * sqrt(2) < 24 < 17 * sqrt(2)
    assert hole[middle + steps, middle - steps].sum() == 1 + 5


@pytest.mark.parametrize("roughness", [0.0, 0.6])
def test_sample_holes_amplitudes_are_limited_by_roughness(roughness):
    amplitudes = sampled_holes(HoleConfig(roughness=roughness), range(50))[:, :, 4 : 4 + WOBBLES]
    assert amplitudes.min() >= 0
    assert 0.9 * roughness / WOBBLES <= amplitudes.max() <= roughness / WOBBLES + 1e-6
