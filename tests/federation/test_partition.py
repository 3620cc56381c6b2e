from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ganseg_dist.data.cohort import UNKNOWN_SITE, Case, Cohort, Source, Split
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.errors import ConfigError, DataError
from ganseg_dist.federation.partition import FETS_SIZES, participants, partition


def case(patient: str, *, site: str = UNKNOWN_SITE, class_name: str | None = None, visit: int = 1) -> Case:
    return Case(f"{patient}-{visit}", patient, site, {"t1": Source((Path("t1.nii"),))}, class_name=class_name)


def cohort_of(*cases: Case) -> Cohort:
    return Cohort(Path("somewhere"), "manifest", cases)


def patients(number: int, *, visits: int = 1) -> Cohort:
    return cohort_of(*(case(f"p{index:04d}", visit=visit) for index in range(number) for visit in range(1, visits + 1)))


def classes(**sizes: int) -> Cohort:
    """Patients of classes, named for them."""
    return cohort_of(
        *(case(f"{name}{index:03d}", class_name=name) for name, size in sizes.items() for index in range(size))
    )


def sizes_of(sites: dict[str, tuple[str, ...]]) -> list[int]:
    return [len(members) for members in sites.values()]


@pytest.mark.parametrize("site", ["St.\nMary", "x" * 61, "\u202eyraM .tS", " north"])
def test_partition_rejects_unprintable_site_name(site):
    cohort = cohort_of(*(case(f"p{number}", site=("south", site)[number % 2]) for number in range(8)))
    with pytest.raises(DataError, match=r"^somewhere: site .* is no name that can be shown; take 1 to 60 characters"):
        partition(cohort, "by-hospital", skew=None, seed=0)


def test_partition_by_hospital_keeps_site_names():
    sites = ("Spital Ü", "St. Mary/Ward 3", "../../x", "北京医院")
    cohort = cohort_of(*(case(f"p{number}", site=sites[number % 4]) for number in range(8)))
    assert set(partition(cohort, "by-hospital", skew=None, seed=0)) == set(sites)


@pytest.mark.parametrize("skew", [None, "dirichlet:0.1", "dirichlet:1e-6", "dirichlet:1000000", "fets"])
@pytest.mark.parametrize(("number", "sites"), [(2, 1), (5, 2), (23, 7), (46, 23), (90, 40)])
def test_partition_assigns_every_patient_once_and_least_per_site(number, sites, skew):
    cohort = patients(number, visits=2)
    for seed in range(10):
        parts = partition(cohort, sites, skew=skew, seed=seed)
        assert list(parts) == [f"site{index}" for index in range(1, sites + 1)]
        assert sorted(patient for members in parts.values() for patient in members) == list(cohort.patients)
        assert min(sizes_of(parts)) >= 2
        assert all(list(members) == sorted(members) for members in parts.values())


@pytest.mark.parametrize(("number", "sites", "sizes"), [(12, 3, [4, 4, 4]), (11, 4, [3, 3, 3, 2]), (5, 1, [5])])
def test_partition_without_skew_gives_equal_sizes(number, sites, sizes):
    assert sizes_of(partition(patients(number), sites, skew=None, seed=3, least=0)) == sizes


@pytest.mark.parametrize("skew", [None, "dirichlet:0.5", "fets"])
def test_partition_depends_on_seed_but_not_on_case_order(skew):
    cohort = classes(glioma=20, healthy=20)
    parts = partition(cohort, 4, skew=skew, seed=1)
    assert partition(cohort, "4", skew=skew, seed=1) == parts
    assert partition(cohort_of(*reversed(cohort.cases)), 4, skew=skew, seed=1) == parts
    assert partition(cohort, 4, skew=skew, seed=2) != parts


def test_partition_fets_skew_follows_institution_sizes():
    assert sum(FETS_SIZES) == 1251
    assert len(FETS_SIZES) == 23
    assert list(FETS_SIZES) == sorted(FETS_SIZES, reverse=True)
    assert sizes_of(partition(patients(1251), 23, skew="fets", seed=0)) == list(FETS_SIZES)


def test_partition_fets_skew_pools_institutions_of_similar_size():
    """Two sites: 11.5 institutions each, so the first has 1158 and half of 13, the second the other half and 80."""
    first = sum(FETS_SIZES[:11]) + FETS_SIZES[11] / 2
    assert (first, 1251 - first) == (1164.5, 86.5)
    assert sizes_of(partition(patients(2502), 2, skew="fets", seed=0)) == [2329, 173]


def test_partition_moves_patients_from_largest_site_to_reach_least():
    """Ten patients at four sites have FeTS's shares 8, 1, 1, 0 (8.28, 1.03, 0.45, 0.24)."""
    assert sizes_of(partition(patients(10), 4, skew="fets", seed=0, least=0)) == [8, 1, 1, 0]
    assert sizes_of(partition(patients(10), 4, skew="fets", seed=0)) == [4, 2, 2, 2]
    assert sizes_of(partition(patients(10), 4, skew="fets", seed=0, least=1)) == [7, 1, 1, 1]


def unevenness(cohort: Cohort, skew: str, name: str) -> float:
    """Mean over seeds of the largest site's share of the class."""
    shares = []
    for seed in range(30):
        parts = partition(cohort, 4, skew=skew, seed=seed).values()
        shares.append(max(sum(patient.startswith(name) for patient in members) for members in parts) / 40)
    return float(np.mean(shares))


def test_partition_dirichlet_concentrates_classes_for_small_alpha():
    cohort = classes(glioma=40, healthy=40)
    assert unevenness(cohort, "dirichlet:0.01", "glioma") > 0.9
    assert 0.4 < unevenness(cohort, "dirichlet:0.5", "glioma") < 0.9
    assert unevenness(cohort, "dirichlet:10000", "glioma") == pytest.approx(0.25, abs=0.05)


def test_partition_dirichlet_mixes_classes_for_large_alpha():
    parts = partition(classes(a=40, b=20), 4, skew="dirichlet:1e6", seed=0)
    mixtures = [Counter(patient[0] for patient in members) for members in parts.values()]
    assert all(abs(mixture["a"] - 10) <= 1 and abs(mixture["b"] - 5) <= 1 for mixture in mixtures)


def test_partition_dirichlet_skews_sizes_without_strata():
    spread = [max(sizes_of(partition(patients(40), 4, skew="dirichlet:0.1", seed=seed))) for seed in range(10)]
    assert np.mean(spread) > 20


def test_partition_by_hospital_follows_sites_of_cases():
    cohort = cohort_of(case("a", site="York"), case("b", site="Bath"), case("c", site="Bath"), case("d", site="Bath"))
    assert partition(cohort, "by-hospital", skew=None, seed=0) == {"Bath": ("b", "c", "d"), "York": ("a",)}


def test_partition_by_hospital_assigns_patient_of_two_sites_to_first():
    """At the first in name order; a visit at an unknown site changes nothing."""
    cohort = cohort_of(
        case("a", site="York"),
        case("a", site="Bath", visit=2),
        case("a", visit=3),
        case("b", site="York"),
        case("c", site="Bath"),
    )
    assert partition(cohort, "by-hospital", skew=None, seed=0) == {"Bath": ("a", "c"), "York": ("b",)}


def test_partition_by_hospital_covers_real_cohort(shared_data):
    cohort = read_cohort(shared_data / "lgg")
    parts = partition(cohort, "by-hospital", skew=None, seed=0)
    assert set(parts) == {found.site for found in cohort.cases}
    assert sorted(patient for members in parts.values() for patient in members) == list(cohort.patients)


def partition_error(error: type[Exception], cohort: Cohort, sites: str | int, skew: str | None = None) -> str:
    with pytest.raises(error) as caught:
        partition(cohort, sites, skew=skew, seed=0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_partition_by_hospital_counts_patients_of_unknown_site():
    cohort = cohort_of(case("a", site="York"), case("b", site="Bath"), case("c"), case("d"), case("d", visit=2))
    result = partition_error(DataError, cohort, "by-hospital")
    assert "2 of 4 patients" in result
    assert "CSV manifest" in result


def test_partition_by_hospital_rejects_single_site():
    result = partition_error(DataError, cohort_of(case("a", site="York"), case("b", site="York")), "by-hospital")
    assert "are of 1 hospital (York)" in result
    assert "--sites a number" in result


def test_partition_rejects_too_few_patients():
    result = partition_error(DataError, patients(7), 4)
    assert result.startswith("--sites 4: 4 sites of at least 2 patients need 8, and somewhere has 7")


@pytest.mark.parametrize("sites", [0, -1, "by-continent", "2.5", ""])
def test_partition_rejects_invalid_number_of_sites(sites):
    assert partition_error(ConfigError, patients(9), sites).startswith(
        f"--sites {sites}: write by-hospital or a number"
    )


@pytest.mark.parametrize("skew", ["dirichlet:0", "dirichlet:-1", "dirichlet:nan", "dirichlet:inf", "dirichlet:x"])
def test_partition_rejects_non_positive_alpha(skew):
    assert partition_error(ConfigError, patients(9), 2, skew).startswith(
        f"--skew {skew}: alpha must be a number above 0"
    )


@pytest.mark.parametrize("skew", ["zipf", "", "dirichlet"])
def test_partition_rejects_unknown_skew(skew):
    error = partition_error(ConfigError, patients(9), 2, skew)
    assert error.startswith(f"--skew {skew}: is not known; write dirichlet:ALPHA, such as dirichlet:0.5, or fets")


def test_partition_by_hospital_rejects_skew():
    cohort = cohort_of(case("a", site="York"), case("b", site="Bath"))
    assert partition_error(ConfigError, cohort, "by-hospital", "fets").startswith(
        "--skew fets: hospitals keep their patients"
    )


HOSPITALS = {"Bath": ("a", "b", "c"), "Hull": ("d", "e"), "Leeds": ("f", "g"), "York": ("h",)}


def test_participants_leaves_out_sites_of_too_few_patients_and_keeps_test_patients_whole():
    split = Split(("a", "d", "h"), ("b", "f"), ("c", "e", "g"))
    chosen = participants(HOSPITALS, split)
    assert chosen.sites == {name: HOSPITALS[name] for name in ("Bath", "Hull")}
    assert chosen.split == Split(("a", "d"), ("b",), ("c", "e", "g"))
    assert chosen.warnings() == (
        "Leeds: takes no part: has 2 patients, none of them to train on",
        "York: takes no part: has 1 patient, and a site needs 2",
        "no round is scored, and the last weights are kept: Bath alone has patients to validate on, and a mean needs "
        "two sites; raise data.validation_fraction, or draw other patients with another seed",
    )
    assert participants(HOSPITALS, chosen.split) == chosen, "an arm of a study chooses the same sites"


def test_participants_keeps_split_where_all_take_part():
    split = Split(("a", "d"), ("b", "x"), ("c", "e", "y"))
    chosen = participants({name: HOSPITALS[name] for name in ("Bath", "Hull")}, split)
    assert chosen.split is split
    assert chosen.left_out == {}


@pytest.mark.parametrize(
    ("names", "train", "message"),
    [
        (("Bath", "York"), "ah", r"^--sites: York has 1 patient, and a site needs 2, and 1 site of 2 can train; give"),
        (("Bath", "Hull", "Leeds"), "a", r"^--sites: Hull has 2 patients, none of them to train on, and 1 site of 3 "),
        (("Hull",), "x", r"^--sites: Hull has 2 patients, none of them to train on, and 0 sites of 1 can train"),
    ],
)
def test_participants_raises_where_no_federation_is_left(names, train, message):
    with pytest.raises(DataError, match=message):
        participants({name: HOSPITALS[name] for name in names}, Split(tuple(train), (), ()))
