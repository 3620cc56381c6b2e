from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from ganseg_dist.config import DataConfig, RunConfig
from ganseg_dist.data.cohort import Case, Cohort
from ganseg_dist.data.store import PreparedCase, content_hash, prepare_case
from ganseg_dist.federation.fingerprint.differences import Difference, differences
from ganseg_dist.federation.fingerprint.histograms import Axis, Fingerprint, axes, sum_fingerprints
from ganseg_dist.federation.fingerprint.measure import fingerprint

AXES = axes(DataConfig(modalities=("t1",), regions=("wt",), classes=("healthy", "glioma")))
USUAL = {"seen/t1": 0.0, "raw/t1": 300.0, "in_plane": 1.0, "thickness": 1.0, "side": 256, "lesion/wt": 20.0}


def points(axis: Axis, bins: dict, patients: int) -> np.ndarray:
    """Patients in the bins of values, or in bins apart by name; the remaining patients are withheld."""
    counts = np.zeros(len(axis) + 1, np.int64)
    for value, number in bins.items():
        place = axis.apart.index(value) if isinstance(value, str) else len(axis.apart) + int(axis.scale.bins(value))
        counts[place] += 100 * number
    counts[-1] = 100 * patients - counts.sum()
    return counts


def site_fingerprint(patients: int = 10, **changed) -> Fingerprint:
    """All patients have the usual values except `changed`: values by first part of a histogram's name."""
    counts = {}
    for name, axis in AXES.items():
        usual = {USUAL[name]: patients} if name in USUAL else {"healthy": patients // 2, "glioma": patients // 2}
        counts[name] = points(axis, changed.get(name.partition("/")[0], usual), patients)
    return Fingerprint(AXES, counts)


def of(found: list[Difference], site: str, histogram: str) -> Difference:
    (one,) = [difference for difference in found if (difference.site, difference.histogram) == (site, histogram)]
    return one


def deviating(found: list[Difference]) -> set[tuple[str, str]]:
    return {(difference.site, difference.histogram) for difference in found if difference.stands_out}


def test_differences_of_equal_sites_are_zero():
    found = differences({"a": site_fingerprint(), "b": site_fingerprint(40), "c": site_fingerprint()})
    assert {difference.amount for difference in found} == {0.0}
    assert {difference.histogram for difference in found} == set(USUAL)
    assert not deviating(found)


@pytest.mark.parametrize(
    ("changed", "histogram", "amount", "description"),
    [
        ({"raw": {3000.0: 10}}, "raw/t1", 1.0, None),
        ({"raw": {9e4: 10}}, "raw/t1", 2.5, "b: channel t1 as exported lies 2.5 factors of ten above most other"),
        ({"raw": {0.3: 10}}, "raw/t1", 3.0, "b: channel t1 as exported lies 3.0 factors of ten below most other"),
        ({"seen": {-0.1: 5, 0.1: 5}}, "seen/t1", 0.125, None),
        ({"seen": {-2.1: 5, 2.1: 5}}, "seen/t1", 2.125, "b: channel t1 after normalisation lies 2.12 deviations from"),
        ({"in_plane": {2.0: 10}}, "in_plane", 1.0, None),
        ({"in_plane": {3.0: 10}}, "in_plane", 1.5, "b: in-plane spacing lies 1.5 factors of two above most"),
        ({"thickness": {6.0: 10}}, "thickness", 2.5, "b: slice thickness lies 2.5 factors of two above most"),
        ({"side": {1024: 10}}, "side", 2.0, None),
        ({"lesion": {2e-2: 10}}, "lesion/wt", 3.0, "b: region wt lies 3.0 factors of ten below most other sites'"),
        ({"lesion": {"no lesion": 3, 20.0: 7}}, "lesion/wt", 0.3, None),
        (
            {"lesion": {"no mask": 8, 20.0: 2}}, "lesion/wt", 0.8,
            "b: region wt: no mask for 80% of its patients, 0% at most other sites; look at how its masks",
        ),
        ({"classes": {"glioma": 8, "healthy": 2}}, "classes", 0.3, None),
        ({"classes": {"not known": 9, "glioma": 1}}, "classes", 0.9, "b: classes: not known for 90% of its patients"),
    ],
)  # fmt: skip
def test_differences_mark_deviating_site_only(changed, histogram, amount, description):
    found = differences({"a": site_fingerprint(), "b": site_fingerprint(**changed), "c": site_fingerprint(30)})
    assert max(d.amount for d in found if (d.site, d.histogram) == ("b", histogram)) == pytest.approx(amount)
    assert {d.amount for d in found if d.site != "b"} == {0.0}
    assert deviating(found) == (set() if description is None else {("b", histogram)})
    if description is not None:
        lines = [difference.line() for difference in found if difference.stands_out]
        assert lines[0].startswith(description)
        assert "\n" not in lines[0]


def test_differences_do_not_weight_sites_by_size():
    off = {"raw": {9e4: 1000}}
    assert deviating(
        differences({"a": site_fingerprint(), "b": site_fingerprint(1000, **off), "c": site_fingerprint()})
    ) == {("b", "raw/t1")}


def test_differences_mark_both_of_two_sites():
    found = differences({"a": site_fingerprint(), "b": site_fingerprint(raw={9e4: 10})})
    assert deviating(found) == {("a", "raw/t1"), ("b", "raw/t1")}


def test_differences_skip_site_that_withholds_too_much():
    found = differences(
        {"a": site_fingerprint(), "b": site_fingerprint(raw={9e4: 4}), "c": site_fingerprint(raw={9e4: 6})}
    )
    assert {difference.site for difference in found if difference.histogram == "raw/t1"} == {"a", "c"}
    assert differences({"a": site_fingerprint()}) == differences({}) == []


def test_difference_holds_amount_and_description():
    assert asdict(of(differences({"a": site_fingerprint(), "b": site_fingerprint()}), "a", "side")) == {
        "site": "a", "histogram": "side", "amount": 0.0, "unit": "factors of two", "stands_out": False,
        "description": "matrix size lies 0.0 factors of two above most other sites'; look at its export",
    }  # fmt: skip


@pytest.fixture(scope="module")
def phantoms(cohort: Cohort, debug_config: RunConfig, store: Path) -> list[tuple[Case, PreparedCase]]:
    cases = [case for case in cohort.cases if case.mask is not None]
    folders = [prepare_case(store, case, debug_config.data, content_hash(case)) for case in cases]
    return [(case, PreparedCase.open(folder)) for case, folder in zip(cases, folders, strict=True)]


def test_differences_mark_exchanged_channels(phantoms, debug_config):
    usual = fingerprint(phantoms, debug_config.data, 1)
    points = {**usual.points, "seen/t1": usual.points["seen/t2"], "seen/t2": usual.points["seen/t1"]}
    sites = {"a": usual, "b": sum_fingerprints([usual, usual]), "exchanged": Fingerprint(usual.axes, points)}
    assert deviating(differences(sites)) == {("exchanged", "seen/t1"), ("exchanged", "seen/t2")}


def test_differences_mark_other_units_in_raw_histograms_only(phantoms, debug_config):
    usual = fingerprint(phantoms, debug_config.data, 1)
    shifted = {
        name: np.concatenate([points[:1], np.roll(points[1:-1], -6), points[-1:]]) if name.startswith("raw") else points
        for name, points in usual.points.items()
    }
    sites = {"a": usual, "b": usual, "thousandths": Fingerprint(usual.axes, shifted)}
    assert deviating(differences(sites)) == {("thousandths", f"raw/{m}") for m in debug_config.data.modalities}
