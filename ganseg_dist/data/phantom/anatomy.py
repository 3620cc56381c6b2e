"""A phantom's brain: the MNI152 average anatomy, randomly deformed.

Random fields lie on lattices fixed in the world, so that a phantom keeps its anatomy when its voxel size changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

from ganseg_dist.data.grid import Grid, Volume
from ganseg_dist.errors import MissingDependency

CENTRE_MM = (0.0, -17.0, 5.0)
"""The middle of the MNI152 brain, and of every phantom's grid, in MNI coordinates."""
FIELD_OF_VIEW_MM = (176.0, 208.0, 176.0)
"""Holds the template (145 x 180 x 154 mm) after any deformation sampled here."""

ATLAS_SPACING_MM = 1
SCALE_SPREAD = 0.02
ROTATION_SPREAD_DEGREES = 2.5
BEND_MM = 2.0
BEND_SCALE_MM = 32.0
TISSUE_CONTRAST = 2.0
"""Exponent that reverses part of the blur that averaging 152 brains leaves in the tissue maps."""

Points = npt.NDArray[np.float32]
"""(3, X, Y, Z) world coordinates in mm."""


@dataclass(frozen=True, slots=True)
class Atlas:
    """MNI152 maps, each (X, Y, Z) in [0, 1] at 1 mm."""

    t1: Volume
    grey: Volume
    white: Volume
    inside: Volume
    world_to_voxel: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Brain:
    """One phantom's anatomy on its grid; every map is (X, Y, Z)."""

    grid: Grid
    inside: npt.NDArray[np.bool_]
    grey: Volume
    white: Volume
    fluid: Volume
    """Tissue fractions in [0, 1] that sum to 1; outside the brain all is fluid."""
    texture: Volume
    """T1 of the template minus what its tissue fractions explain; 0 outside."""
    depth_mm: Volume
    """Distance to the surface of the brain; 0 outside."""


def phantom_grid(spacing_mm: float) -> Grid:
    """The isotropic RAS grid that every phantom of this voxel size shares, centred on the brain."""
    shape = tuple(round(extent / spacing_mm) for extent in FIELD_OF_VIEW_MM)
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = np.array(CENTRE_MM) - spacing_mm * (np.array(shape) - 1) / 2
    return Grid((shape[0], shape[1], shape[2]), affine)


def grid_points(grid: Grid) -> Points:
    """World coordinates of every voxel centre."""
    origin, spacing = origin_and_spacing(grid)
    axes = [origin[axis] + spacing * np.arange(grid.shape[axis]) for axis in range(3)]
    return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def smooth_noise(rng: np.random.Generator, grid: Grid, scale_mm: float) -> Volume:
    """A Gaussian field of mean 0, deviation 1 and features of about `scale_mm`: a cubic B-spline of noise."""
    origin, spacing = origin_and_spacing(grid)
    counts = [int(np.ceil(extent / scale_mm)) + 3 for extent in FIELD_OF_VIEW_MM]
    field = rng.standard_normal(counts)
    for axis in range(3):
        first_mm = CENTRE_MM[axis] - FIELD_OF_VIEW_MM[axis] / 2 - 3 * scale_mm
        knots_mm = first_mm + scale_mm * np.arange(counts[axis] + 4)
        along = BSpline(knots_mm, field, 3)(origin[axis] + spacing * np.arange(grid.shape[axis]))
        field = np.moveaxis(along, 0, -1)  # after three rotations the axes are in order again
    # The squares of the cubic B-spline's weights sum to 0.48 along an axis, averaged over positions.
    return np.ascontiguousarray(field / 0.48**1.5, dtype=np.float32)


def load_atlas(spacing_mm: float) -> Atlas:
    """The template that nilearn ships, smoothed for sampling at `spacing_mm`. Raises MissingDependency without it."""
    try:
        from nilearn import datasets
    except ImportError:
        raise MissingDependency("ganseg phantom needs nilearn: pip install 'ganseg-dist[phantom]'") from None
    template = datasets.load_mni152_template(resolution=ATLAS_SPACING_MM)
    t1 = np.asarray(template.dataobj, dtype=np.float32)
    grey = np.asarray(datasets.load_mni152_gm_template(resolution=ATLAS_SPACING_MM).dataobj, dtype=np.float32)
    white = np.asarray(datasets.load_mni152_wm_template(resolution=ATLAS_SPACING_MM).dataobj, dtype=np.float32)
    # Against aliasing: a Gaussian about as wide as the voxels of the phantom.
    sigma = 0.4 * max(0.0, spacing_mm - ATLAS_SPACING_MM) / ATLAS_SPACING_MM
    inside = (t1 > 0).astype(np.float32)
    t1, grey, white, inside = (ndimage.gaussian_filter(m, sigma) for m in (t1, grey, white, inside))
    return Atlas(t1, grey, white, inside, np.linalg.inv(template.affine))


def sample_deformation(rng: np.random.Generator, grid: Grid) -> Points:
    """Sample the atlas point of every voxel of `grid`: a small affine map and a smooth deformation."""
    angles = rng.normal(0, ROTATION_SPREAD_DEGREES, 3)
    scale = 1 + rng.normal(0, SCALE_SPREAD, 3).clip(-2 * SCALE_SPREAD, 2 * SCALE_SPREAD)
    linear = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * scale
    centre = np.array(CENTRE_MM, np.float32)[:, None, None, None]
    turned = np.tensordot(linear.astype(np.float32), grid_points(grid) - centre, axes=1) + centre
    bend = np.stack([smooth_noise(rng, grid, BEND_SCALE_MM) for _ in range(3)])
    return np.asarray(turned + BEND_MM * bend, dtype=np.float32)


def sample_brain(atlas: Atlas, points: Points, grid: Grid) -> Brain:
    """The anatomy at `points` of the atlas, one for each voxel of the grid."""
    inside = _sample(atlas.inside, atlas, points) > 0.75
    t1, grey, white = (_sample(m, atlas, points) * inside for m in (atlas.t1, atlas.grey, atlas.white))
    fluid = np.clip(1 - grey - white, 0, 1)
    texture = (t1 - _explained_t1(t1, (grey, white, fluid), inside)) * inside
    grey, white, fluid = (np.clip(fraction, 0, 1) ** TISSUE_CONTRAST for fraction in (grey, white, fluid))
    total = grey + white + fluid
    depth_mm = np.asarray(ndimage.distance_transform_edt(inside) * origin_and_spacing(grid)[1], dtype=np.float32)
    return Brain(grid, inside, grey / total, white / total, fluid / total, texture, depth_mm)


def _explained_t1(t1: Volume, fractions: tuple[Volume, ...], inside: npt.NDArray[np.bool_]) -> Volume:
    design = np.stack([fraction[inside] for fraction in fractions], axis=1)
    levels = np.linalg.lstsq(design, t1[inside], rcond=None)[0]
    return sum((level * f for level, f in zip(levels, fractions, strict=True)), np.zeros_like(t1))


def _sample(volume: Volume, atlas: Atlas, points: Points) -> Volume:
    matrix = atlas.world_to_voxel.astype(np.float32)
    voxels = np.tensordot(matrix[:3, :3], points, axes=1) + matrix[:3, 3, None, None, None]
    return np.asarray(ndimage.map_coordinates(volume, voxels, order=1), dtype=np.float32)


def origin_and_spacing(grid: Grid) -> tuple[npt.NDArray[np.float64], float]:
    """World coordinates of a phantom's first voxel, and the voxel size, in mm."""
    assert grid.affine is not None
    return grid.affine[:3, 3], float(grid.affine[0, 0])
