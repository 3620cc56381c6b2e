"""Computes a site's fingerprint from its scans: each case's shares, each patient's points, their disclosed sum."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ganseg_dist.config import DataConfig
from ganseg_dist.data.batch import BACKGROUND
from ganseg_dist.data.cohort import Case
from ganseg_dist.data.foreground import foreground_mask
from ganseg_dist.data.labels import REGION_LABELS
from ganseg_dist.data.preprocess import intensities_of, picture_shape, picture_spacing, to_picture_axes
from ganseg_dist.data.scan import Scan, load_scan
from ganseg_dist.data.slices import slice_classes
from ganseg_dist.data.store import PreparedCase
from ganseg_dist.federation.fingerprint.disclosure import Points, disclose
from ganseg_dist.federation.fingerprint.histograms import (
    POINTS,
    RAW,
    SEEN,
    SIDE,
    SPACING,
    UNNAMED,
    VOLUME,
    Axis,
    Fingerprint,
    axes,
)

Shares = npt.NDArray[np.float64]
"""(bins,) of one case, which sum to 1."""

MM3_PER_ML = 1000.0
FULL_RANGE = 4.0
"""Deviations on the scale of `SEEN` for an intensity of 1 in a prepared slice."""

IN_PLANE = np.ones((1, 3, 3), bool)
RIM_PIXELS = 2
"""Bilinear weights reach one pixel to either side, at whatever scale."""


def fingerprint(cases: Iterable[tuple[Case, PreparedCase]], data: DataConfig, minimum: int) -> Fingerprint:
    """The disclosed fingerprint of one or more cases, each as exported and as prepared under `data`, a resolved config.

    At least `minimum` patients stand behind every number (`disclosure.disclose`).

    Raises DataError when a scan cannot be read.
    """
    by_patient: dict[str, list[Mapping[str, Shares]]] = {}
    for case, prepared in cases:
        by_patient.setdefault(case.patient, []).append(case_shares(case, prepared, data))
    layout = axes(data)
    points = {
        name: np.stack([patient_points([case[name] for case in shares]) for shares in by_patient.values()])
        for name in layout
    }
    return Fingerprint(
        layout, {name: disclose(points[name], len(axis.apart), minimum) for name, axis in layout.items()}
    )


def patient_points(cases: list[Shares]) -> Points:
    """(bins,) whole points of a patient, from the mean of the cases' shares.

    The cumulative share is rounded to the percent: points always sum to `POINTS`, and no quantile moves by more than
    half a percent.
    """
    cumulative = np.rint(POINTS * np.cumsum(np.mean(cases, axis=0)))
    return np.asarray(np.diff(cumulative, prepend=0), np.int64)


def case_shares(case: Case, prepared: PreparedCase, data: DataConfig) -> dict[str, Shares]:
    """One case's share in every bin of `axes`.

    The scan is read again, as prepared cases keep neither its units nor its millimetres.
    """
    scan = load_scan(case, data.modalities)
    inner = _inner_foreground(prepared)
    return {
        **{f"seen/{name}": _shares_after_preparation(prepared, name, inner) for name in data.channels},
        **_raw(scan, data),
        **_grid(scan),
        **{f"lesion/{region}": _single_bin(VOLUME, _volume(scan, region)) for region in data.regions or ()},
        **({"classes": _class(case, scan, data.classes)} if data.classes else {}),
    }


def _inner_foreground(prepared: PreparedCase) -> npt.NDArray[np.bool_]:
    """(S, size, size) mask of the foreground without its rim of two pixels.

    In the rim, resampling mixes tissue with background, the more the finer the scan is; the histogram would show the
    scan's resolution instead of its tissue.
    """
    foreground = (np.asarray(prepared.image) > BACKGROUND).any(axis=1)
    return np.asarray(ndimage.binary_erosion(foreground, IN_PLANE, iterations=RIM_PIXELS, border_value=1))


def _shares_after_preparation(prepared: PreparedCase, channel: str, inner: npt.NDArray[np.bool_]) -> Shares:
    values = np.asarray(prepared.image[:, prepared.modalities.index(channel)])
    return _shares(SEEN, FULL_RANGE * values[inner])


def _raw(scan: Scan, data: DataConfig) -> dict[str, Shares]:
    image = np.stack([to_picture_axes(volume, scan.grid) for volume in scan.image])
    in_colour = intensities_of(scan.modalities, data) == "colour"
    foreground = np.ones(image.shape[1:], bool) if in_colour else foreground_mask(image)
    return {
        f"raw/{name}": _shares(RAW, volume[foreground]) for name, volume in zip(scan.modalities, image, strict=True)
    }


def _grid(scan: Scan) -> dict[str, Shares]:
    rows, columns, _ = picture_shape(scan.grid)
    height, width, thickness = picture_spacing(scan.grid)
    known = scan.grid.spacing_mm is not None
    return {
        "in_plane": _single_bin(SPACING, math.sqrt(height * width) if known else "not known"),
        "thickness": _single_bin(SPACING, thickness if known else "not known"),
        "side": _single_bin(SIDE, max(rows, columns)),
    }


def _volume(scan: Scan, region: str) -> float | str:
    """Volume in ml, or the name of the bin apart if it is unknown or there is no lesion."""
    if scan.labels is None:
        return "no mask"
    voxels = int(np.isin(scan.labels, REGION_LABELS[region]).sum())
    if voxels == 0:
        return "no lesion"
    if scan.grid.spacing_mm is None:
        return "size not known"
    return voxels * math.prod(scan.grid.spacing_mm) / MM3_PER_ML


def _class(case: Case, scan: Scan, classes: tuple[str, ...]) -> Shares:
    lesion = None if scan.labels is None else np.array([np.count_nonzero(scan.labels)])
    (name,) = slice_classes(case.class_name, lesion, 1, classes)
    return _single_bin(Axis((UNNAMED, *classes)), name or UNNAMED)


def _shares(axis: Axis, values: npt.NDArray[np.floating]) -> Shares:
    """Shares of values on an axis with a scale; without values, all in the axis's first bin."""
    assert axis.scale is not None
    if values.size == 0:
        return _single_bin(axis, axis.apart[0])
    counts = np.bincount(axis.scale.bins(values), minlength=axis.scale.inner + 2)
    return np.concatenate([np.zeros(len(axis.apart)), counts / values.size])


def _single_bin(axis: Axis, value: float | str) -> Shares:
    """The share 1 in the bin of this value, or in the bin apart of this name."""
    shares = np.zeros(len(axis))
    if isinstance(value, str):
        shares[axis.apart.index(value)] = 1
    else:
        assert axis.scale is not None
        shares[len(axis.apart) + int(axis.scale.bins(value))] = 1
    return shares
