"""Whether two modalities of a case lie on top of each other, measured by mutual information."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.special import entr

from ganseg_dist.data.grid import Volume

COARSE_SIDE = 64
"""Volumes are averaged down to at most this many blocks an axis: enough to see a few millimetres."""

BINS = 32
SHIFTS = (1, 2, 4, 8)
TURN_DEGREES = 12.0

CLEARLY_BETTER = 1.1
"""How much more information a moved modality must share. On registered scans no move shares more than the
unmoved scan does; shifts and turns of a few blocks, and flips, share 1.15 times as much and more."""

Coarse = npt.NDArray[np.float32]
Levels = npt.NDArray[np.int64]


def better_moves(volumes: Mapping[str, Volume]) -> dict[str, str]:
    """The modalities that do not lie on the others, and the move that would bring each clearly closer.

    volumes: modality to (X, Y, Z), all on one grid, none constant. The modality that shares most information
    with the others is the fixed one. The moves tried are shifts along an axis, flips, and turns about an axis.
    They are coarse, but each compares a scan with itself, so that contrast, noise and lesions, which decide
    any absolute measure, do not raise an alarm.
    """
    levels = {name: _levels(_coarse(volume)) for name, volume in volumes.items()}
    if len(levels) < 2:
        return {}
    fixed = max(levels, key=lambda name: sum(_shared_information(levels[name], other) for other in levels.values()))
    moves = {name: _better_move(levels[fixed], levels[name]) for name in levels if name != fixed}
    return {name: move for name, move in moves.items() if move is not None}


def _better_move(fixed: Levels, moving: Levels) -> str | None:
    unmoved = _shared_information(fixed, moving)
    # A volume that is too small for any move is not compared.
    best, move = max(((_shared_information(*pair), name) for name, *pair in _moves(fixed, moving)), default=(0.0, ""))
    return move if best > CLEARLY_BETTER * unmoved else None


def _moves(fixed: Levels, moving: Levels) -> Iterator[tuple[str, Levels, Levels]]:
    """Each move by name, with the parts of both volumes that overlap after it."""
    for axis, length in enumerate(fixed.shape):
        if length < 2 * max(SHIFTS):
            continue  # a few slices cannot show a move across them
        for shift in SHIFTS:
            front, back = _ends(axis, shift)
            yield f"a shift along axis {axis}", fixed[front], moving[back]
            yield f"a shift along axis {axis}", fixed[back], moving[front]
        yield f"a flip of axis {axis}", fixed, np.flip(moving, axis)
    for plane in ((0, 1), (0, 2), (1, 2)):
        height, width = (fixed.shape[axis] for axis in plane)
        if min(height, width) < 2 * max(SHIFTS):
            continue
        still, turning = (np.moveaxis(volume, plane, (0, 1)).reshape(height * width, -1) for volume in (fixed, moving))
        for degrees in (TURN_DEGREES, -TURN_DEGREES):
            turned = turning[_nearest_after_turn(height, width, degrees)]
            yield f"a turn in the plane of axes {plane[0]} and {plane[1]}", still, turned


def _nearest_after_turn(height: int, width: int, degrees: float) -> Levels:
    """For each pixel of a plane that is turned about its centre, the number of the one nearest to it before."""
    numbers = np.arange(height * width).reshape(height, width)
    return np.asarray(ndimage.rotate(numbers, degrees, reshape=False, order=0, mode="nearest").ravel())


def _ends(axis: int, shift: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """All but the last and all but the first `shift` blocks along the axis."""
    before = (slice(None),) * axis
    return (*before, slice(None, -shift)), (*before, slice(shift, None))


def _coarse(volume: Volume) -> Coarse:
    """Block means, at most COARSE_SIDE blocks an axis; a remainder that fills no block is cut off."""
    blocks = [-(-length // COARSE_SIDE) for length in volume.shape]
    counts = [length // block for length, block in zip(volume.shape, blocks, strict=True)]
    whole = volume[tuple(slice(count * block) for count, block in zip(counts, blocks, strict=True))]
    x, y, z = zip(counts, blocks, strict=True)
    return np.asarray(whole.reshape(*x, *y, *z).mean(axis=(1, 3, 5), dtype=np.float64))


def _levels(volume: Coarse) -> Levels:
    """Intensities as BINS grey levels between robust ends."""
    low, high = (float(end) for end in np.quantile(volume, (0.01, 0.99)))
    if high == low:
        return np.zeros(volume.shape, np.int64)
    return np.asarray(np.clip((volume - low) * (BINS / (high - low)), 0, BINS - 1), dtype=np.int64)


def _shared_information(first: Levels, second: Levels) -> float:
    """(H(A) + H(B)) / H(A, B) - 1, in [0, 1]: normalised mutual information (Studholme et al. 1999), less its floor."""
    joint = np.bincount((first * BINS + second).ravel(), minlength=BINS**2).reshape(BINS, BINS)
    together, first_alone, second_alone = (
        float(entr(counts / joint.sum()).sum()) for counts in (joint, joint.sum(0), joint.sum(1))
    )
    return (first_alone + second_alone) / together - 1 if together > 0 else 1.0
