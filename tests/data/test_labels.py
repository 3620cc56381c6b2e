from dataclasses import replace

import numpy as np
import pytest

from ganseg_dist.data.labels import BINARY, BRATS, BRATS_2023, BRATS_2024_GLI, UNSTATED, LabelScheme, most_common_scheme
from ganseg_dist.errors import DataError

VESSELS = LabelScheme(
    {"background": 0, "artery": 7, "vein": 300},
    {"vessel": ("artery", "vein"), "artery": ("artery",), "vein": ("vein",)},
    nested=False,
    ignore=255,
)
"""A scheme without tumours: overlapping regions and an ignored value."""


@pytest.mark.parametrize("scheme", [BINARY, BRATS, BRATS_2023, VESSELS])
def test_label_scheme_round_trips_through_json(scheme):
    assert LabelScheme.from_json(scheme.to_json(), "model.json") == scheme


def test_to_our_labels_maps_brats_values():
    assert BRATS.to_our_labels == {0: 0, 1: 1, 2: 2, 4: 3}
    assert BRATS_2023.to_our_labels == {0: 0, 1: 1, 2: 2, 3: 3}
    assert BINARY.to_our_labels == {0: 0, 1: 1}


def test_to_our_labels_maps_label_without_region_to_background():
    resected = replace(BRATS_2023, labels=BRATS_2023.labels | {"resection cavity": 4})
    assert resected.to_our_labels == {0: 0, 1: 1, 2: 2, 3: 3, 4: 0}


def test_written_is_label_outside_inner_regions():
    assert [BRATS.written(region) for region in ("wt", "tc", "et")] == [2, 1, 4]
    assert VESSELS.written("artery") == 7


def test_label_map_writes_inner_regions_over_outer():
    wt, tc, et = np.array([[1, 1, 1, 0]]), np.array([[0, 1, 1, 0]]), np.array([[0, 0, 1, 0]])
    masks = np.stack([et, wt, tc]).astype(bool)
    assert BRATS.label_map(masks, ("et", "wt", "tc")).tolist() == [[2, 1, 4, 0]]
    wide = VESSELS.label_map(np.array([[True, False], [False, True]]), ("artery", "vein"))
    assert (wide.tolist(), wide.dtype) == ([7, 300], np.uint16)


def test_of_regions_merges_indistinguishable_labels():
    whole = BRATS.of_regions(("wt",))
    assert (whole.labels, whole.regions) == ({"background": 0, "whole tumour": 1}, {"wt": ("whole tumour",)})
    two = BRATS.of_regions(("wt", "tc"))
    assert two.labels == {"background": 0, "tumour core": 1, "oedema": 2}
    assert two.regions == {"wt": ("tumour core", "oedema"), "tc": ("tumour core",)}
    assert BRATS.of_regions(("wt", "tc", "et")) == BRATS


def test_of_regions_drops_labels_without_region():
    assert "resection cavity" not in BRATS_2024_GLI.of_regions(("wt", "tc", "et")).labels
    assert BRATS_2024_GLI.of_regions(("wt", "tc", "et")) == BRATS_2023


def test_of_lesion_writes_lowest_of_several_values():
    stroke = LabelScheme.of_lesion("stroke", (3, 2))
    assert stroke.labels == {"background": 0, "stroke 2": 2, "stroke 3": 3}
    assert (stroke.to_our_labels, stroke.written("wt")) == ({0: 0, 2: 1, 3: 1}, 2)


def test_most_common_scheme_breaks_ties_independently_of_order():
    assert most_common_scheme([BRATS, BRATS_2023, BRATS_2023]) == BRATS_2023
    assert most_common_scheme([BRATS, BRATS_2023]) == most_common_scheme([BRATS_2023, BRATS])
    assert most_common_scheme([]) == UNSTATED


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "a value has two names"),
        ({"labels": {"a": 1}}, "background is not 0"),
        ({"labels": {"background": 0, "two\nlines": 1}}, "labels"),
        ({"labels": {"background": 0, "a": -1}}, "labels.a"),
        ({"labels": {"background": 0, "a": 1}, "regions": {"wt": ["b"]}}, "wt has b, which is none of the labels"),
        ({"labels": {"background": 0, "a": 1}, "regions": {"wt": ["background"]}}, "wt has background"),
        ({"labels": {"background": 0, "a": 1, "b": 2}, "regions": {"wt": ["a"], "tc": ["b"]}}, "tc has b, which wt"),
        ({"labels": {"background": 0, "a": 1, "b": 2}, "regions": {"wt": ["a"], "et": ["b"]}}, "et has b, which wt"),
        ({"ignore": 1}, "a value has two names"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_label_scheme_from_json_rejects_inconsistent_scheme(change, problem):
    stored = LabelScheme.of_lesion("lesion").to_json() | change
    with pytest.raises(DataError, match=f"^labels.json: is no label scheme .*{problem}") as error:
        LabelScheme.from_json(stored, "labels.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("stored", [None, [], 3, {"labels": {}}])
def test_label_scheme_from_json_rejects_malformed_value(stored):
    with pytest.raises(DataError, match=r"^data.json: is no label scheme \("):
        LabelScheme.from_json(stored, "data.json")
