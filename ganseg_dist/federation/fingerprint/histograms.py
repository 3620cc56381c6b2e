"""The histograms that a site discloses of its data before the first round, over bins fixed in advance.

In every histogram each patient has 100 points, whatever their number of scans, slices and voxels. So all patients weigh
the same, histograms of sites add up to that of the federation, and a patient can change any histogram by at most 100
points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from ganseg_dist.config import DataConfig
from ganseg_dist.errors import FederationError
from ganseg_dist.federation.fingerprint.disclosure import Points
from ganseg_dist.federation.message_layout import MessageLayout
from ganseg_dist.federation.protocol import LARGEST_COUNT, Layout, check_arrays

POINTS = 100
"""Points of a patient: shares are disclosed to the percent."""

MOST_PATIENTS = LARGEST_COUNT
"""At one site; with more, sums over sites could overflow int64."""

AGREED = "version and config"
"""Must be equal at both ends."""

SMALLEST = 2.0
"""Decades below 1 at which the signed logarithm begins: magnitudes below 0.01 count as 0."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Bins of equal width on a linear or logarithmic scale, with an open bin at each end."""

    measure: Literal["deviations", "octaves", "decades", "signed decades"]
    """Unit of a place on the scale: one deviation, a factor of two or a factor of ten."""
    first: float
    """Place of the lower edge of the first inner bin."""
    width: float
    inner: int
    """Number of bins between the open ones."""
    unit: str = ""
    """Unit of the values."""

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """(inner + 2,) places of the bins' centres; an open bin counts as one of the same width."""
        return np.asarray(self.first + self.width * (np.arange(self.inner + 2) - 0.5), np.float64)

    def bins(self, values: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Each value's bin, 0 to inner + 1."""
        inner = np.floor((self._places(np.asarray(values, np.float64)) - self.first) / self.width)
        return np.asarray(np.clip(inner + 1, 0, self.inner + 1), np.int64)

    def value(self, place: float) -> float:
        """The value at a place: the inverse of `_places`."""
        match self.measure:
            case "deviations":
                return place
            case "octaves":
                return float(2.0**place)
            case "decades":
                return float(10.0**place)
            case "signed decades":
                return float(np.sign(place) * 10.0 ** (abs(place) - SMALLEST)) if place else 0.0

    def _places(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        with np.errstate(divide="ignore"):  # the logarithm of 0, which falls into the lower open bin
            match self.measure:
                case "deviations":
                    return values
                case "octaves":
                    return np.log2(values)
                case "decades":
                    return np.log10(values)
                case "signed decades":
                    return np.sign(values) * np.maximum(np.log10(np.abs(values)) + SMALLEST, 0)


@dataclass(frozen=True, slots=True)
class Axis:
    """A histogram's bins: those apart (on no scale), then those of the scale if it has one."""

    apart: tuple[str, ...] = ()
    """Names of the bins on no scale, such as `no mask`."""
    scale: Scale | None = None

    def __len__(self) -> int:
        return len(self.apart) + (self.scale.inner + 2 if self.scale else 0)

    @property
    def names(self) -> tuple[str, ...]:
        """Text of each bin."""
        if self.scale is None:
            return self.apart
        edges = [self.scale.first + self.scale.width * index for index in range(self.scale.inner + 1)]
        ends = [f"{self.scale.value(edge):.3g}" for edge in edges]
        inner = [f"{low} to {high}" for low, high in pairwise(ends)]
        unit = f" {self.scale.unit}" if self.scale.unit else ""
        return (*self.apart, *(f"{bounds}{unit}" for bounds in (f"below {ends[0]}", *inner, f"from {ends[-1]}")))


SEEN = Axis(("nothing",), Scale("deviations", -4.0, 0.25, 32, "robust deviations"))
"""A channel as the networks see it; its range from -1 to 1 counts as -4 to 4 deviations, which is exact where tissue is
normalised (`data.preprocess`). Clipped values fall into the upper open bin and the lowest inner one."""
RAW = Axis(("nothing",), Scale("signed decades", -7.0, 0.5, 28))
"""A channel's exported values inside the foreground; from -100000 to 100000, half a decade a bin."""
SPACING = Axis(("not known",), Scale("octaves", -1.75, 0.5, 10, "mm"))
"""Edges lie between the usual 0.5, 0.7, 1, 1.4, 2, ... mm."""
SIDE = Axis((), Scale("octaves", 5.75, 0.5, 9, "pixels"))
VOLUME = Axis(("no mask", "no lesion", "size not known"), Scale("decades", -2.0, 0.5, 9, "ml"))

UNNAMED = "not known"
"""The bin of images without a class."""


def axes(data: DataConfig) -> dict[str, Axis]:
    """Axes of the histograms of a resolved config's data, by name: `seen/flair`, `raw/flair`, `lesion/wt`, `classes`.

    A fingerprint's message may hold only arrays of these names and shapes.
    """
    modalities = data.modalities or ()
    return {
        **{f"seen/{name}": SEEN for name in data.channels},
        **{f"raw/{name}": RAW for name in modalities},
        "in_plane": SPACING,
        "thickness": SPACING,
        "side": SIDE,
        **{f"lesion/{name}": VOLUME for name in data.regions or ()},
        **({"classes": Axis((UNNAMED, *data.classes))} if data.classes else {}),
    }


@dataclass(frozen=True, eq=False, slots=True)
class Fingerprint:
    """Points in every bin, of one site or summed over several."""

    axes: Mapping[str, Axis]
    points: Mapping[str, Points]
    """int64, (bins + 1,) each, in the order of the axes; the last number is the withheld points. Sent as they are."""

    @property
    def patients(self) -> int:
        """Number of patients that it covers."""
        return int(next(iter(self.points.values())).sum()) // POINTS

    def disclosed(self, name: str) -> Points:
        """(bins,) disclosed points of a histogram."""
        return self.points[name][:-1]

    def withheld(self, name: str) -> float:
        """The share of a histogram that is withheld, 0 to 1."""
        points = self.points[name]
        return float(points[-1] / points.sum())

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], axes: Mapping[str, Axis]) -> Self:
        """From a message, of which everything is checked but the site's counting.

        Raises FederationError for an array that is missing, not expected, or of another type or shape; for a number
        below 0 or above the points of `MOST_PATIENTS`; and unless all histograms have the same number of patients.
        """
        check_arrays(arrays, _layout(axes), AGREED)
        for name in axes:
            if (arrays[name] < 0).any() or (arrays[name] > POINTS * MOST_PATIENTS).any():
                raise FederationError(f"{name}: holds a number that counts no patients")
        totals = {int(arrays[name].sum()) for name in axes}
        if len(totals) != 1 or not 0 < (total := totals.pop()) <= POINTS * MOST_PATIENTS or total % POINTS:
            raise FederationError("fingerprint: its histograms are not of the same patients")
        return cls(axes, {name: arrays[name] for name in axes})

    def to_dict(self) -> dict[str, Any]:
        """For JSON, with the bins' names."""
        histograms = {
            name: {"bins": self.axes[name].names, "points": points[:-1].tolist(), "withheld": int(points[-1])}
            for name, points in self.points.items()
        }
        return {"patients": self.patients, "points_of_a_patient": POINTS, "histograms": histograms}

    @classmethod
    def from_dict(cls, record: Any, axes: Mapping[str, Axis]) -> Self:
        """The inverse of `to_dict`. Raises FederationError for a record that is no fingerprint with these axes."""
        try:
            arrays = {
                name: np.array([*histogram["points"], histogram["withheld"]], np.int64)
                for name, histogram in record["histograms"].items()
            }
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            raise FederationError("fingerprint: cannot be read; delete it and rerun the same command") from None
        return cls.from_arrays(arrays, axes)


def fingerprint_layout(axes: Mapping[str, Axis]) -> MessageLayout:
    """What a site replies with its fingerprint."""
    return MessageLayout(AGREED, _layout(axes))


def _layout(axes: Mapping[str, Axis]) -> Layout:
    return {name: (np.int64, (len(axis) + 1,)) for name, axis in axes.items()}


def sum_fingerprints(fingerprints: Iterable[Fingerprint]) -> Fingerprint:
    """The sum over one or more sites, all of the same axes."""
    several = list(fingerprints)
    axes = several[0].axes
    sums = {name: np.sum([of_site.points[name] for of_site in several], axis=0) for name in axes}
    return Fingerprint(axes, sums)
