import xml.etree.ElementTree as ET

import numpy as np
import pytest

from ganseg_dist.config import DataConfig
from ganseg_dist.federation.fingerprint.differences import differences
from ganseg_dist.federation.fingerprint.histograms import Axis, Fingerprint, axes, sum_fingerprints
from ganseg_dist.plots.lines import WIDTH
from ganseg_dist.plots.style import LETTER
from ganseg_dist.report.federated import ALL_SITES, fingerprint_charts

AXES = axes(DataConfig(modalities=("flair",), regions=("wt",), classes=("healthy", "glioma")))
USUAL = {"seen/flair": 0.0, "raw/flair": 300.0, "thickness": 1.0, "side": 256, "lesion/wt": 20.0, "classes": "glioma"}


def site_fingerprint(patients: int = 10, *, silent: bool = False, **changed) -> Fingerprint:
    """Ten patients who are alike, of pictures unless a spacing is given."""
    points = {}
    for name, axis in AXES.items():
        value = changed.get(name.partition("/")[0], USUAL.get(name, "not known"))
        points[name] = np.zeros(len(axis) + 1, np.int64)
        points[name][-1 if silent else _bin(axis, value)] = 100 * patients
    return Fingerprint(AXES, points)


def _bin(axis: Axis, value) -> int:
    if isinstance(value, str):
        return axis.apart.index(value)
    return len(axis.apart) + int(axis.scale.bins(value))


def charts_by_title(sites: dict[str, Fingerprint]):
    charts = fingerprint_charts(sum_fingerprints(sites.values()), sites, differences(sites))
    return {chart.title: chart for chart in charts}


def texts(svg: str) -> set[str]:
    return {element.text for element in ET.fromstring(svg).iter() if element.tag.endswith("text")}


def test_fingerprint_charts_label_sites_bins_and_units():
    charts = charts_by_title(
        {"north": site_fingerprint(), "south": site_fingerprint(lesion="no mask", classes="healthy")}
    )
    assert list(charts) == [
        "Channel flair after normalisation", "Channel flair as exported", "Slice thickness", "Matrix size",
        "Region wt", "Classes",
    ]  # fmt: skip
    assert {"● north", "● south", f"● {ALL_SITES}", "ml", "10", "share of the patients (%)", "no", "mask"} <= texts(
        charts["Region wt"].figure
    )
    assert {"healthy", "glioma", "not", "known"} <= texts(charts["Classes"].figure)
    assert {"exported value", "share of the foreground (%)", "100", "1000"} <= texts(
        charts["Channel flair as exported"].figure
    )
    assert 'aria-label="Slice thickness"' in charts["Slice thickness"].figure


def test_fingerprint_chart_has_no_negative_zero():
    labels = texts(
        charts_by_title({"north": site_fingerprint(), "south": site_fingerprint()})[
            "Channel flair after normalisation"
        ].figure
    )
    assert "0" in labels
    assert "-0" not in labels


def test_fingerprint_charts_omit_unknown_spacing():
    assert "In-plane spacing" not in charts_by_title({"north": site_fingerprint(), "south": site_fingerprint()})
    assert "In-plane spacing" in charts_by_title({"north": site_fingerprint(in_plane=1.0), "south": site_fingerprint()})


def test_fingerprint_caption_names_deviating_and_withholding_sites():
    sites = {
        "a": site_fingerprint(),
        "b": site_fingerprint(raw=0.3),
        "c": site_fingerprint(),
        "d": site_fingerprint(4, silent=True),
    }
    charts = charts_by_title(sites)
    assert "Stands out: b: channel flair as exported lies 3.0 factors" in charts["Channel flair as exported"].caption
    assert charts["Matrix size"].caption == "d discloses nothing here."
    disclosing = charts_by_title({name: site for name, site in sites.items() if name != "d"})
    assert disclosing["Matrix size"].caption == ""
    assert "● d" not in texts(charts["Matrix size"].figure)


def test_fingerprint_chart_of_many_sites_labels_deviating_site_only():
    sites = {f"site{index}": site_fingerprint(raw=0.3 if index == 7 else 300.0) for index in range(23)}
    charts = charts_by_title(sites)
    named = {text for text in texts(charts["Channel flair as exported"].figure) if text and text.startswith("●")}
    assert named == {"● site7", f"● {ALL_SITES}"}
    assert charts["Channel flair as exported"].figure.count("var(--figure-muted)") > 20


def test_fingerprint_chart_is_taller_with_two_line_bin_names():
    heights = {}
    for lesion in (20.0, "no mask"):
        chart = charts_by_title({"north": site_fingerprint(), "south": site_fingerprint(lesion=lesion)})["Region wt"]
        heights[lesion] = float(ET.fromstring(chart.figure).attrib["viewBox"].split()[3])
    assert heights["no mask"] > heights[20.0]


def test_fingerprint_charts_show_sum_without_sites():
    total = sum_fingerprints([site_fingerprint(), site_fingerprint()])
    charts = fingerprint_charts(total, {})
    assert {f"● {ALL_SITES}"} == {text for text in texts(charts[0].figure) if text and text.startswith("●")}
    silent = site_fingerprint(4, silent=True)
    assert fingerprint_charts(silent, {"a": silent}) == []


@pytest.mark.parametrize(("number", "rows"), [(1, 1), (8, 4)])
def test_fingerprint_chart_wraps_long_site_names(number: int, rows: int):
    figure = charts_by_title({f"a-hospital-of-a-long-name-{index}": site_fingerprint() for index in range(number)})[
        "Matrix size"
    ].figure
    names = [element for element in ET.fromstring(figure).iter() if (element.text or "").startswith("●")]
    places = [(float(name.attrib["x"]), float(name.attrib["y"])) for name in names]
    assert len(names) == number + 1
    assert len({y for _, y in places}) == rows
    assert all(0 < x + LETTER * len(name.text) < WIDTH for (x, _), name in zip(places, names, strict=True))
    assert min(y for _, y in places) > 0
