"""Whether the sites' data fit together: how far each site's histograms lie from the other sites'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median_low
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import wasserstein_distance

from ganseg_dist.federation.disclosure import Points
from ganseg_dist.federation.fingerprint import Axis, Fingerprint

LARGEST_EXCHANGE = 0.5
"""Share of the patients that would have to stand in another group, such as `no mask` or a class."""

LEAST_TOLD = 0.5
"""Share of a histogram; where a site tells less of it, it is not compared."""

UNITS = {
    "deviations": "deviations",
    "octaves": "factors of two",
    "decades": "factors of ten",
    "signed decades": "factors of ten",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """What is said of a kind of histogram."""

    subject: str
    """What it is of; {} is the channel or region."""
    remedy: str
    allowed: float | None = None
    """The largest distance on its scale that is not worth a look; none: every one is allowed."""


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
hospital, and so do some inversions of contrast: as medians and quartiles are made equal, only the shape is left to see.
raw: scanners scale as they like, and networks never see it; tenfold is another unit, or 8 bits of 12.
in_plane: slices are resampled, so that finer ones lose little; but twice as coarse ones never had the detail.
thickness: nothing resamples it. Volumetric and clinical scans differ more than in-plane.
side: it only matters where nothing is known of millimetres, and pictures of many sizes are usual.
lesion: patients of hospitals do not differ tenfold in volume; a wrong unit of length is a thousandfold.
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one site's histogram lies from most other sites'."""

    site: str
    histogram: str
    amount: float
    """Earth mover's distance along the scale, or total variation distance of the groups, from 0 to 1."""
    unit: str
    """Of the amount: `share` for groups."""
    stands_out: bool
    """Whether it is worth a look."""
    told: str
    """In words, with what to look at."""

    def line(self) -> str:
        """For a terminal or a log."""
        return f"{self.site}: {self.told}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def differences(sites: Mapping[str, Fingerprint]) -> list[Difference]:
    """Every site against the other sites, histogram by histogram; nothing of fewer than two sites.

    A site is held against each of the others, and the median of the distances counts, the lower one of two. So a site
    that lies off makes no other stand out, however large it is, as long as most agree. Of two sites, or of halves, all
    stand out: nobody can say which lies off.
    """
    axes = next(iter(sites.values())).axes if sites else {}
    found = []
    for name, axis in axes.items():
        told = {site: of.told(name) for site, of in sites.items() if of.withheld(name) <= 1 - LEAST_TOLD}
        for site, points in told.items():
            others = [of_other for other, of_other in told.items() if other != site]
            if others:
                found += _along_scale(site, name, axis, points, others) + _between_groups(
                    site, name, axis, points, others
                )
    return found


def _along_scale(site: str, name: str, axis: Axis, mine: Points, others: Sequence[Points]) -> list[Difference]:
    """Where both have something on the scale."""
    if axis.scale is None:
        return []
    first, places = len(axis.apart), axis.scale.centres
    theirs = [points[first:] for points in others if points[first:].any()]
    if not theirs or not mine[first:].any():
        return []
    distances = [float(wasserstein_distance(places, places, mine[first:], points)) for points in theirs]
    amount, unit = median_low(distances), UNITS[axis.scale.measure]
    middle = median_low([float(np.average(places, weights=points)) for points in theirs])
    side = "above" if np.average(places, weights=mine[first:]) >= middle else "below"
    kind = _kind(name)
    told = f"{subject(name)} lies {amount:.1f} {unit} {side} most other sites'; {kind.remedy}"
    if axis.scale.measure == "deviations":  # medians are at 0 everywhere, so it is not the level that differs
        told = f"{subject(name)} lies {amount:.2f} {unit} from most other sites'; {kind.remedy}"
    return [Difference(site, name, amount, unit, kind.allowed is not None and amount > kind.allowed, told)]


def _between_groups(site: str, name: str, axis: Axis, mine: Points, others: Sequence[Points]) -> list[Difference]:
    """Of the bins apart, and the scale as one; where there is any."""
    own, theirs = _groups(axis, mine), np.stack([_groups(axis, points) for points in others])
    amount = median_low([float(np.abs(own - shares).sum() / 2) for shares in theirs])
    if amount == 0:
        return []
    usual = np.median(theirs, axis=0)
    group = int(np.abs(own - usual).argmax())
    named = (*axis.apart, "measured")[group]
    kind = _kind(name)
    told = f"{subject(name)}: {named} for {own[group]:.0%} of its patients, {usual[group]:.0%} at most other sites"
    return [Difference(site, name, amount, "share", amount > LARGEST_EXCHANGE, f"{told}; {kind.remedy}")]


def _groups(axis: Axis, points: Points) -> npt.NDArray[np.float64]:
    first = len(axis.apart)
    groups = np.append(points[:first], points[first:].sum())
    return np.asarray(groups / groups.sum(), np.float64)


def subject(name: str) -> str:
    """What a histogram is of, in words."""
    first, _, what = name.partition("/")
    return KINDS[first].subject.format(what)


def _kind(name: str) -> Kind:
    return KINDS[name.partition("/")[0]]
