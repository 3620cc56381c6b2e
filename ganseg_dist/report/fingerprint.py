"""Charts of the fingerprints that sites send of their data before the first round, one for each histogram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ganseg_dist.federation.fingerprint.differences import Difference, subject
from ganseg_dist.federation.fingerprint.disclosure import Points
from ganseg_dist.federation.fingerprint.histograms import Axis, Fingerprint, Scale
from ganseg_dist.plots import Figure
from ganseg_dist.plots.lines import MOST_NAMED, Histogram, histogram_chart
from ganseg_dist.plots.save import svg
from ganseg_dist.report.labels import capitalised, joined
from ganseg_dist.report.section import Chart

MOST_TICKS = 7

TOGETHER = "all sites"


def fingerprint_charts(
    total: Fingerprint, sites: Mapping[str, Fingerprint], site_differences: Sequence[Difference] = ()
) -> list[Chart]:
    """One chart for each histogram: a thin line a site and a bold one for all together, in percent of each line's sum.

    Every patient counts alike. Of many sites only those that stand out are named. A histogram without a patient on its
    scale, such as millimetres of pictures, is left out. Sites that may not be shown count in `total` alone.
    """
    charts = []
    for name, axis in total.axes.items():
        if axis.scale is not None and not total.disclosed(name)[len(axis.apart) :].any():
            continue
        off = [difference for difference in site_differences if difference.histogram == name and difference.stands_out]
        points = [(site, fingerprint.disclosed(name)) for site, fingerprint in sites.items()]
        points.append((TOGETHER, total.disclosed(name)))
        if not any(of_site.any() for _, of_site in points):
            continue
        title = capitalised(subject(name))
        per_patient = not name.startswith(("seen/", "raw/"))
        figure = _chart(axis, points, {difference.site for difference in off}, per_patient=per_patient)
        charts.append(Chart(title, svg(figure, title), _caption(name, sites, off)))
    return charts


def _caption(name: str, sites: Mapping[str, Fingerprint], off: Sequence[Difference]) -> str:
    silent = [site for site, fingerprint in sites.items() if not fingerprint.disclosed(name).any()]
    notes = [f"{joined(silent)} {'discloses' if len(silent) == 1 else 'disclose'} nothing here."] if silent else []
    notes += [f"Stands out: {difference.line()}." for difference in off]
    return " ".join(notes)


def _chart(axis: Axis, points: Sequence[tuple[str, Points]], off: set[str], *, per_patient: bool) -> Figure:
    """The filled bins of each site and, last and so on top, of their sum; the sites in `off` stand out."""
    filled = np.any([of_site > 0 for _, of_site in points], axis=0)
    apart = [bin_ for bin_ in range(len(axis.apart)) if filled[bin_] or axis.scale is None]
    first, last = _filled_range(filled[len(axis.apart) :])
    together = len(points) - 1
    few = together <= MOST_NAMED
    histograms = []
    for index, (site, of_site) in enumerate(points):
        if of_site.any():
            shares = 100 * of_site / of_site.sum()
            number, named = (None, True) if index == together else (index, few or site in off)
            histograms.append(Histogram(site, shares[apart], shares[len(axis.apart) :][first:last], number, named))
    return histogram_chart(
        histograms,
        apart=[axis.apart[bin_] for bin_ in apart],
        ticks=_scale_ticks(axis.scale, first, last) if axis.scale is not None else (),
        x_label=(axis.scale.unit or "exported value") if axis.scale is not None else "",
        y_label="share of the patients (%)" if per_patient else "share of the foreground (%)",
    )


def _filled_range(filled: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """The range of the scale's non-empty bins, widened by one bin at either end; (0, 0) where there are none."""
    bins = np.flatnonzero(filled)
    return (max(int(bins[0]) - 1, 0), min(int(bins[-1]) + 2, len(filled))) if bins.size else (0, 0)


def _scale_ticks(scale: Scale, first: int, last: int) -> list[tuple[float, str]]:
    """Labels at whole steps of the scale, with their distance in bins from the first shown bin's edge."""
    low, high = (scale.first + scale.width * (bin_ - 1) for bin_ in (first, last))
    whole = np.arange(np.ceil(low), np.floor(high) + 1) + 0.0  # a negative zero would read -0
    step = -(-len(whole) // MOST_TICKS)
    places: npt.NDArray[np.float64] = whole[whole % step == 0]
    return [(float((place - low) / scale.width), f"{scale.value(float(place)):g}") for place in places]
