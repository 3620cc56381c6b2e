import math

import numpy as np
import pytest
import torch

from ganseg_dist.systems.ganet_seg.config import HoleConfig
from ganseg_dist.systems.ganet_seg.holes import WOBBLES, cut_holes, sample_holes

SIDE = 64


def everywhere(batch=1):
    return torch.ones(batch, 1, SIDE, SIDE, dtype=torch.bool)


def drawn(config, keys):
    return torch.from_numpy(np.stack([sample_holes(config, np.random.default_rng(key)) for key in keys]))


def test_holes_follow_from_the_key_alone():
    config = HoleConfig()
    assert torch.equal(drawn(config, [1, 2])[1], drawn(config, [2])[0])
    assert not torch.equal(drawn(config, [1]), drawn(config, [2]))
    both = cut_holes(drawn(config, [1, 2]), everywhere(2))
    assert torch.equal(both[1:], cut_holes(drawn(config, [2]), everywhere()))


def test_parameters_have_their_shape():
    assert drawn(HoleConfig(count=3), [0]).shape == (1, 3, 4 + 2 * WOBBLES)


def test_holes_are_inside_the_body():
    foreground = torch.zeros(20, 1, SIDE, SIDE, dtype=torch.bool)
    foreground[:, :, 20:40, 10:30] = True
    holes = cut_holes(drawn(HoleConfig(largest_radius=0.4), range(20)), foreground)
    assert (holes[~foreground] == 0).all()
    assert (holes.flatten(1).sum(1) > 0).all()
    assert set(holes.unique().tolist()) == {0.0, 1.0}


def test_an_empty_body_gets_no_hole():
    assert cut_holes(drawn(HoleConfig(), [0]), ~everywhere()).sum() == 0


def by_hand(place=0.5, along=0.1, across=0.1, tilt=0.0):
    return torch.tensor([[[place, along, across, tilt, *[0.0] * (2 * WOBBLES)]]])


def test_a_smooth_hole_is_the_ellipse_of_its_radii():
    hole = cut_holes(by_hand(place=0.5 + 0.5 / SIDE, along=0.25, across=0.125), everywhere())[0, 0] > 0
    rows, columns = hole.any(1).nonzero().flatten(), hole.any(0).nonzero().flatten()
    assert len(columns) == 2 * 16 + 1
    assert len(rows) == 2 * 8 + 1
    assert columns.float().mean().item() == SIDE / 2
    assert rows.float().mean().item() == SIDE / 2
    assert hole.sum().item() == pytest.approx(math.pi * 16 * 8, rel=0.03)
    turned = cut_holes(by_hand(0.5 + 0.5 / SIDE, 0.25, 0.125, math.pi / 2), everywhere())[0, 0] > 0
    assert turned.any(1).sum() == 2 * 16 + 1


@pytest.mark.parametrize(("place", "pixel"), [(0.0, (20, 10)), (0.999999, (39, 29)), (1.0, (39, 29))])
def test_a_hole_is_centred_on_the_drawn_pixel_of_the_body_in_reading_order(place, pixel):
    foreground = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.bool)
    foreground[:, :, 20:40, 10:30] = True
    hole = cut_holes(by_hand(place, 0.01, 0.01), foreground)[0, 0]
    assert hole.nonzero().tolist() == [list(pixel)]


@pytest.mark.parametrize(("smallest", "largest"), [(0.05, 0.05), (0.2, 0.2)])
def test_holes_have_roughly_the_configured_radius(smallest, largest):
    config = HoleConfig(count=1, smallest_radius=smallest, largest_radius=largest, roughness=0.3)
    parameters = drawn(config, range(40))
    parameters[:, :, 0] = 0.5 + 0.5 / SIDE  # all whole, none cut by the frame
    areas = cut_holes(parameters, everywhere(40)).flatten(1).sum(1)
    radii = (areas / math.pi).sqrt() / SIDE
    assert radii.median().item() == pytest.approx(largest, rel=0.15)
    assert radii.min() > 0.75 * smallest
    assert radii.max() < 1.35 * largest


def test_radii_are_drawn_between_the_two():
    config = HoleConfig(count=4, smallest_radius=0.05, largest_radius=0.3)
    radii = drawn(config, range(50))[:, :, 1:3]
    assert 0.05 <= radii.min() < 0.06
    assert 0.27 < radii.max() <= 0.3 + 1e-6


def test_roughness_makes_outlines_differ_from_ellipses():
    smooth, rough = (
        cut_holes(drawn(HoleConfig(count=1, smallest_radius=0.15, roughness=roughness), [3]), everywhere())
        for roughness in (0.0, 0.8)
    )
    assert smooth.sum() > 0
    assert not torch.equal(smooth, rough)
