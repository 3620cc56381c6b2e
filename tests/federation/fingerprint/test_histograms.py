import json

import numpy as np
import pytest

from ganseg_dist.config import DataConfig
from ganseg_dist.errors import FederationError
from ganseg_dist.federation.fingerprint.histograms import (
    MOST_PATIENTS,
    RAW,
    SEEN,
    SIDE,
    SPACING,
    VOLUME,
    Axis,
    Fingerprint,
    axes,
    sum_fingerprints,
)

AXES = {"side": Axis((), SIDE.scale), "classes": Axis(("not known", "glioma", "healthy"))}


def of_classes(*points: int, side: int = 4) -> Fingerprint:
    """Points in the bins of `classes`, and all patients in one bin of `side`."""
    sides = np.zeros(len(SIDE) + 1, np.int64)
    sides[side] = sum(points)
    return Fingerprint(AXES, {"side": sides, "classes": np.array(points, np.int64)})


def test_axes_follow_channels_regions_and_classes():
    data = DataConfig(modalities=("t1", "flair"), regions=("wt",), classes=("a", "b"), clusters=3)
    names = ["seen/t1", "seen/flair", "seen/kmeans", "raw/t1", "raw/flair", "in_plane", "thickness", "side"]
    assert list(axes(data)) == [*names, "lesion/wt", "classes"]
    assert axes(data)["classes"].names == ("not known", "a", "b")
    assert list(axes(DataConfig(modalities=("t1",)))) == ["seen/t1", "raw/t1", "in_plane", "thickness", "side"]


@pytest.mark.parametrize(
    ("axis", "values", "bins"),
    [
        (SEEN, [-5, -4, -3.76, 0, 3.99, 4], [0, 1, 1, 17, 32, 33]),
        (RAW, [-1e9, -5e4, -0.5, -0.001, 0, 0.005, 0.02, 2, 200, 1e9], [0, 1, 11, 15, 15, 15, 15, 19, 23, 29]),
        (SPACING, [0.1, 0.5, 1, 1.5, 6, 20], [0, 2, 4, 5, 9, 11]),
        (SIDE, [32, 64, 256, 4096], [0, 1, 5, 10]),
        (VOLUME, [0, 0.02, 5, 20, 1000], [0, 1, 6, 7, 10]),
    ],
)
def test_scale_bins_are_fixed(axis: Axis, values, bins):
    assert axis.scale.bins(values).tolist() == bins
    places = axis.scale.centres[axis.scale.bins(values)]
    again = [axis.scale.value(place) for place in places]
    assert axis.scale.bins(again).tolist() == bins


def test_axis_names_bins_in_units():
    assert len(VOLUME.names) == len(VOLUME) == 14
    assert VOLUME.names[:5] == ("no mask", "no lesion", "size not known", "below 0.01 ml", "0.01 to 0.0316 ml")
    assert VOLUME.names[-1] == "from 316 ml"
    assert RAW.names[1] == "below -1e+05"
    assert RAW.names[15:17] == ("-0.0316 to 0", "0 to 0.0316")


def test_sum_fingerprints_adds_points():
    total = sum_fingerprints([of_classes(0, 300, 200, 0), of_classes(100, 0, 600, 300, side=2)])
    assert total.points["classes"].tolist() == [100, 300, 800, 300]
    assert total.points["side"][[2, 4]].tolist() == [1000, 500]
    assert total.patients == 15
    assert total.disclosed("classes").tolist() == [100, 300, 800]
    assert total.withheld("classes") == 0.2


def test_fingerprint_round_trips_through_arrays_and_json():
    sent = of_classes(0, 300, 200, 100)
    received = Fingerprint.from_arrays(sent.points, AXES)
    read = Fingerprint.from_dict(json.loads(json.dumps(sent.to_dict())), AXES)
    for name, points in sent.points.items():
        assert points.dtype == np.int64
        assert received.points[name].tolist() == read.points[name].tolist() == points.tolist()
    content = json.loads(json.dumps(sent.to_dict()))
    assert content["patients"] == 6
    assert content["histograms"]["classes"] == {
        "bins": ["not known", "glioma", "healthy"],
        "points": [0, 300, 200],
        "withheld": 100,
    }


def _changed(name: str, array) -> dict[str, np.ndarray]:
    return {**of_classes(0, 300, 200, 0).points, name: array}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"side": of_classes(100, 0, 0, 0).points["side"]}, "lacks classes"),
        (_changed("patients/names", np.zeros(3, np.int64)), "arrays that are not expected \\(1\\)"),
        (_changed("classes", np.zeros(5, np.int64)), r"classes: is int64 \(5,\) where int64 \(4,\)"),
        (_changed("classes", np.array([0.0, 300, 200, 0])), "classes: is float64"),
        (_changed("classes", np.array([0, 300, 200, 0], np.uint64)), "classes: is uint64"),
        (_changed("classes", np.array([[0, 300, 200, 0]])), "classes: is int64"),
        (_changed("classes", np.array([-100, 400, 200, 0])), "classes: holds a number that counts no patients"),
        (_changed("classes", np.array([2**62, 2**62, 2**62, 2**62 + 500])), "classes: holds a number"),
        (_changed("classes", np.array([0, 300, 200, 100])), "not of the same patients"),
        (of_classes(0, 0, 0, 0).points, "not of the same patients"),
        (of_classes(0, 30, 20, 0).points, "not of the same patients"),
        (of_classes(100 * MOST_PATIENTS, 100, 0, 0).points, "side: holds a number"),
    ],
)
def test_fingerprint_from_arrays_rejects_malformed_arrays(arrays, message):
    with pytest.raises(FederationError, match=message):
        Fingerprint.from_arrays(arrays, AXES)


@pytest.mark.parametrize(
    "text", ["0", "[]", "{}", '{"histograms": []}', '{"histograms": {"side": 1}}', '{"histograms": {"side": {}}}',
             '{"histograms": {"side": {"points": [1e99], "withheld": 0}}}',
             '{"histograms": {"side": {"points": ["a"], "withheld": 0}}}'],
)  # fmt: skip
def test_fingerprint_from_dict_rejects_malformed_content(text: str):
    with pytest.raises(FederationError):
        Fingerprint.from_dict(json.loads(text), AXES)
