"""Compares the sites' data: how far each site's histograms lie from the other sites'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low

import numpy as np
import numpy.typing as npt
from scipy.stats import wasserstein_distance

from ganseg_dist.federation.fingerprint.disclosure import Points
from ganseg_dist.federation.fingerprint.histograms import Axis, Fingerprint

LARGEST_EXCHANGE = 0.5
"""Largest unremarkable share of patients that would have to change group, such as `no mask` or a class."""

LEAST_DISCLOSED = 0.5
"""Least disclosed share of a histogram for a site to be compared."""

UNITS = {
    "deviations": "deviations",
    "octaves": "factors of two",
    "decades": "factors of ten",
    "signed decades": "factors of ten",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """How differences of one kind of histogram are described and judged."""

    subject: str
    """Noun phrase; {} is the channel or region."""
    remedy: str
    allowed: float | None = None
    """The largest unremarkable distance on its scale; None: every distance is."""


KINDS: Mapping[str, Kind] = {
    "seen": Kind("channel {} after normalisation", "look at its images and at their export", 0.35),
    "raw": Kind("channel {} as exported", "look at its units and at the bits a value has", 1.0),
    "in_plane": Kind("in-plane spacing", "look at its export, or choose a data.spacing_mm that suits all", 1.0),
    "thickness": Kind("slice thickness", "look at its export", 1.5),
    "side": Kind("matrix size", "look at its export"),
    "lesion": Kind("region {}", "look at how its masks are drawn", 1.0),
    "classes": Kind("classes", "look at its classes"),
}
"""By the first part of a histogram's name.

seen: four hospitals of TCGA-LGG with 4 or 5 patients each and phantoms of four unlike scanners with 7 lie up to 0.17
from most others, and T2 in the place of T1 0.4 to 0.7. T1 in the place of contrast-enhanced T1 lies as near as another
hospital, and so do some inversions of contrast: normalisation equalises medians and quartiles, so only shapes differ.
raw: scanners scale freely, and networks never see raw values; a factor of ten is another unit, or 8 bits of 12.
in_plane: slices are resampled, so that finer ones lose little; but slices of twice the spacing lack the detail.
thickness: it is not resampled. Volumetric and clinical scans differ more than in-plane.
side: it only matters where millimetres are unknown, and pictures of many sizes are usual.
lesion: lesion volumes of hospitals do not differ tenfold; a wrong unit of length is a thousandfold.
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one site's histogram lies from most other sites'."""

    site: str
    histogram: str
    amount: float
    """Earth mover's distance along the scale, or total variation distance of the groups, from 0 to 1."""
    unit: str
    """Unit of the amount: `share` for groups."""
    stands_out: bool
    """Whether the amount is above the allowed one."""
    description: str
    """The difference and the remedy, as text."""

    def line(self) -> str:
        """The site and the description, for a terminal or a log."""
        return f"{self.site}: {self.description}"


def differences(sites: Mapping[str, Fingerprint]) -> list[Difference]:
    """Differences of every site from the other sites, by histogram; empty for fewer than two sites.

    A site's amount is the lower median of its distances to the others. So a deviating site of any size makes no other
    stand out, as long as most agree. Of two sites, or two halves, all stand out: the data do not show which
    deviates.
    """
    axes = next(iter(sites.values())).axes if sites else {}
    result = []
    for name, axis in axes.items():
        disclosed = {
            site: own.disclosed(name) for site, own in sites.items() if own.withheld(name) <= 1 - LEAST_DISCLOSED
        }
        for site, points in disclosed.items():
            others = [other_points for other, other_points in disclosed.items() if other != site]
            if others:
                result += _along_scale(site, name, axis, points, others) + _between_groups(
                    site, name, axis, points, others
                )
    return result


def _along_scale(site: str, name: str, axis: Axis, points: Points, others: Sequence[Points]) -> list[Difference]:
    """The distance on the scale, for sites with points on it; at most one difference."""
    if axis.scale is None:
        return []
    first, places = len(axis.apart), axis.scale.centres
    other_scales = [other[first:] for other in others if other[first:].any()]
    if not other_scales or not points[first:].any():
        return []
    distances = [float(wasserstein_distance(places, places, points[first:], other)) for other in other_scales]
    amount, unit = median_low(distances), UNITS[axis.scale.measure]
    middle = median_low([float(np.average(places, weights=other)) for other in other_scales])
    side = "above" if np.average(places, weights=points[first:]) >= middle else "below"
    kind = _kind(name)
    description = f"{subject(name)} lies {amount:.1f} {unit} {side} most other sites'; {kind.remedy}"
    if axis.scale.measure == "deviations":  # all medians are 0, so the level does not differ
        description = f"{subject(name)} lies {amount:.2f} {unit} from most other sites'; {kind.remedy}"
    return [Difference(site, name, amount, unit, kind.allowed is not None and amount > kind.allowed, description)]


def _between_groups(site: str, name: str, axis: Axis, points: Points, others: Sequence[Points]) -> list[Difference]:
    """The distance between groups (the bins apart, and the scale as one group); at most one difference."""
    shares, other_shares = _groups(axis, points), np.stack([_groups(axis, other) for other in others])
    amount = median_low([float(np.abs(shares - row).sum() / 2) for row in other_shares])
    if amount == 0:
        return []
    usual = np.median(other_shares, axis=0)
    group = int(np.abs(shares - usual).argmax())
    label = (*axis.apart, "measured")[group]
    kind = _kind(name)
    text = f"{subject(name)}: {label} for {shares[group]:.0%} of its patients, {usual[group]:.0%} at most other sites"
    return [Difference(site, name, amount, "share", amount > LARGEST_EXCHANGE, f"{text}; {kind.remedy}")]


def _groups(axis: Axis, points: Points) -> npt.NDArray[np.float64]:
    first = len(axis.apart)
    groups = np.append(points[:first], points[first:].sum())
    return np.asarray(groups / groups.sum(), np.float64)


def subject(name: str) -> str:
    """A histogram's subject as text, such as `channel flair as exported`."""
    first, _, item = name.partition("/")
    return KINDS[first].subject.format(item)


def _kind(name: str) -> Kind:
    return KINDS[name.partition("/")[0]]
