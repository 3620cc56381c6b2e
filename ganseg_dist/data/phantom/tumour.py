"""A phantom's tumours: noisy ellipsoids with a necrotic core, an enhancing rim and oedema in white matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation
from scipy.special import expit

from ganseg_dist.data.grid import Grid, Volume
from ganseg_dist.data.labels import Labels
from ganseg_dist.data.phantom.anatomy import Brain, Points, grid_points, origin_and_spacing, smooth_noise

NECROTIC, OEDEMA, ENHANCING = 1, 2, 4
"""Label values of BraTS 2018-2021; the necrotic label also holds a core that does not enhance."""

CORE_RADIUS_MM = (9.0, 20.0)
OEDEMA_WIDTH_MM = (8.0, 20.0)
RIM_MM = (3.0, 7.0)
SECOND_LESION_CHANCE = 0.3
LOW_GRADE_PATCHY_CHANCE = 0.5
MASS_EFFECT = 0.25
"""Share by which tissue at the tumour's centre is pushed outward."""
GREY_OEDEMA = 0.3
"""How far oedema reaches in grey matter, as a share of its reach in white."""
EDGE_MM = 0.6
"""Width of the soft border between a tumour's tissue and its neighbour's."""


@dataclass(frozen=True, slots=True)
class Lesion:
    """One lesion's shape, independent of the brain around it."""

    centre_mm: npt.NDArray[np.float64]
    """(3,) world coordinates."""
    to_ball: npt.NDArray[np.float64]
    """(3, 3): maps offsets from the centre, in mm, to a frame where the core is a ball of `radius_mm`."""
    radius_mm: float
    oedema_mm: float
    rim_mm: float


@dataclass(frozen=True, slots=True)
class Tumour:
    """All lesions of one phantom."""

    labels: Labels
    """(X, Y, Z): 0, 1 necrotic core, 2 oedema, 4 enhancing tumour."""
    shares: Mapping[str, Volume]
    """Necrosis, solid, enhancing and oedema: each (X, Y, Z), its share in [0, 1] of a voxel's signal, softer
    than the labels. The rest of the signal is the brain's; a healthy phantom has no entries."""


def sample_lesions(rng: np.random.Generator, brain: Brain) -> tuple[Lesion, ...]:
    """Sample one lesion, sometimes a smaller second, with centres in grey or white matter below the surface."""
    count = 1 + int(rng.random() < SECOND_LESION_CHANCE)
    lesions = []
    for index in range(count):
        shrink = 1.0 if index == 0 else 0.6
        radius = shrink * rng.uniform(*CORE_RADIUS_MM)
        axes = np.exp(rng.normal(0, 0.15, 3))
        turn = Rotation.from_rotvec(rng.normal(0, 1, 3)).as_matrix()
        lesions.append(
            Lesion(
                centre_mm=_sample_centre(rng, brain, radius),
                to_ball=np.diag(axes) @ turn,
                radius_mm=radius,
                oedema_mm=shrink * rng.uniform(*OEDEMA_WIDTH_MM),
                rim_mm=rng.uniform(*RIM_MM),
            )
        )
    return tuple(lesions)


def push_aside(points: Points, lesions: tuple[Lesion, ...], brain: Brain) -> Points:
    """Mass effect: atlas points move towards each centre, so that tissue bulges; those at the skull stay."""
    mobility = np.clip(brain.depth_mm / 20, 0, 1)
    world = grid_points(brain.grid)
    pushed = points
    for lesion in lesions:
        offset = world - lesion.centre_mm.astype(np.float32)[:, None, None, None]
        reach = lesion.radius_mm + 0.5 * lesion.oedema_mm
        share = MASS_EFFECT * mobility * np.exp(-0.5 * (offset**2).sum(axis=0) / reach**2)
        pushed = pushed - share * offset
    return pushed


def no_tumour(grid: Grid) -> Tumour:
    """The tumour of a healthy phantom: no labels and no shares."""
    return Tumour(np.zeros(grid.shape, np.uint8), {})


def grow_tumour(rng: np.random.Generator, lesions: tuple[Lesion, ...], brain: Brain, *, enhances: bool) -> Tumour:
    """Grow the lesions in the brain.

    A tumour that enhances has an unbroken rim around a necrotic core. One that does not is a solid core,
    labelled 1 as BraTS labels it, in half the patients with specks of enhancement.
    """
    fronts = [_fronts(rng, lesion, brain) for lesion in lesions]
    core_mm, necrosis_mm, oedema_mm = (np.minimum.reduce(front) for front in zip(*fronts, strict=True))
    core = (core_mm < 0) & brain.inside
    in_core = expit(-core_mm / EDGE_MM)
    if enhances:
        # Only a core voxel whose six neighbours are all core can be necrotic: the rim has no holes.
        inner = (necrosis_mm < 0) & ndimage.binary_erosion(core)
        in_enhancing = in_core * expit(necrosis_mm / EDGE_MM)
        inside = {"necrosis": in_core - in_enhancing, "enhancing": in_enhancing}
    else:
        patchy = rng.random() < LOW_GRADE_PATCHY_CHANCE
        specks = (smooth_noise(rng, brain.grid, 5) > 1.4) & patchy
        inner = core & ~specks
        inside = {"solid": in_core * ~specks, "enhancing": in_core * specks}
    swollen = (oedema_mm < 0) & (brain.fluid < 0.5) & brain.inside
    labels = np.select([inner, core, swollen], [NECROTIC, ENHANCING, OEDEMA], 0).astype(np.uint8)
    around = (1 - in_core) * expit(-oedema_mm / (2 * EDGE_MM)) * (1 - brain.fluid)
    return Tumour(labels, {name: share.astype(np.float32) for name, share in (inside | {"oedema": around}).items()})


def _fronts(rng: np.random.Generator, lesion: Lesion, brain: Brain) -> tuple[Volume, Volume, Volume]:
    """About how far, in mm, each voxel lies outside the core, the necrosis and the oedema; negative inside."""
    grid = brain.grid
    offset = grid_points(grid) - lesion.centre_mm.astype(np.float32)[:, None, None, None]
    from_centre = np.linalg.norm(np.tensordot(lesion.to_ball.astype(np.float32), offset, axes=1), axis=0)
    outline = 1 + 0.22 * smooth_noise(rng, grid, 14) + 0.10 * smooth_noise(rng, grid, 6)
    core_mm = from_centre - lesion.radius_mm * outline
    rim_mm = lesion.rim_mm * np.clip(1 + 0.4 * smooth_noise(rng, grid, 9), 0.4, 2)
    # Oedema spreads along white matter, little in grey and not through fluid.
    reach = brain.white + GREY_OEDEMA * brain.grey
    width_mm = lesion.oedema_mm * reach * (1 + 0.35 * smooth_noise(rng, grid, 18))
    return core_mm, core_mm + rim_mm, core_mm - width_mm


def _sample_centre(rng: np.random.Generator, brain: Brain, radius_mm: float) -> npt.NDArray[np.float64]:
    """A point in tissue, deep enough that most of the core fits below the surface."""
    extent = np.array(brain.grid.shape)
    origin, spacing = origin_and_spacing(brain.grid)
    while True:
        voxel = rng.random(3) * extent
        index = tuple(voxel.astype(int))
        if brain.depth_mm[index] > 0.7 * radius_mm and brain.fluid[index] < 0.3:
            return np.asarray(origin + spacing * (voxel - 0.5))
