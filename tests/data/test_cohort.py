from collections import Counter
from pathlib import Path

import pytest

from ganseg_dist.data.cohort import Case, Cohort, Source, Split, split_by_patient
from ganseg_dist.errors import DataError


def cohort_of(*patients: tuple[str, str], cases_each: int = 1) -> Cohort:
    """Patients by name and site, with some cases each."""
    cases = tuple(
        Case(f"{patient}-{visit}", patient, site, {"t1": Source((Path("t1.nii"),))})
        for patient, site in patients
        for visit in range(cases_each)
    )
    return Cohort(Path("somewhere"), "manifest", cases)


def sites(**sizes: int) -> list[tuple[str, str]]:
    return [(f"{site}{number:02d}", site) for site, size in sizes.items() for number in range(size)]


def drawn(cohort: Cohort, *, validation: float = 0.2, test: float = 0.2, seed: int = 0) -> Split:
    return split_by_patient(cohort, validation=validation, test=test, seed=seed)


@pytest.mark.parametrize("seed", range(5))
def test_parts_are_disjoint_and_hold_everybody(seed):
    cohort = cohort_of(*sites(a=13, b=7))
    split = drawn(cohort, seed=seed)
    parts = [set(split.train), set(split.validation), set(split.test)]
    assert set.union(*parts) == set(cohort.patients)
    assert sum(map(len, parts)) == 20


@pytest.mark.parametrize("seed", range(5))
def test_parts_have_their_fractions_in_all_and_at_every_site(seed):
    split = drawn(cohort_of(*sites(a=20, b=10, c=30)), seed=seed)
    assert (len(split.validation), len(split.test)) == (12, 12)
    for part in (split.validation, split.test):
        by_site = Counter(patient[0] for patient in part)
        assert by_site["a"] == pytest.approx(4, abs=1)
        assert by_site["b"] == pytest.approx(2, abs=1)
        assert by_site["c"] == pytest.approx(6, abs=1)


def test_many_small_sites_still_give_every_part_its_share():
    """Rounding each site for itself would leave validation and test empty."""
    split = drawn(cohort_of(*[(f"p{number:02d}", f"s{number:02d}") for number in range(20)]))
    assert (len(split.validation), len(split.test)) == (4, 4)


def test_the_seed_decides_and_the_order_of_cases_does_not():
    patients = sites(a=15, b=15)
    split = drawn(cohort_of(*patients))
    assert drawn(cohort_of(*patients)) == split
    assert drawn(cohort_of(*reversed(patients))) == split
    assert drawn(cohort_of(*patients), seed=1) != split


def test_who_is_drawn_differs_from_seed_to_seed():
    cohort = cohort_of(*sites(a=10, b=10))
    assert len({patient for seed in range(20) for patient in drawn(cohort, seed=seed).test}) > 15


def test_a_patients_cases_stay_together():
    cohort = cohort_of(*sites(a=10), cases_each=3)
    split = drawn(cohort)
    parts = [cohort.of_patients(part) for part in (split.train, split.validation, split.test)]
    assert [len(part) for part in parts] == [18, 6, 6]
    for one in parts:
        for other in parts:
            if one is not other:
                assert not {case.patient for case in one} & {case.patient for case in other}


def test_a_patient_seen_at_two_sites_is_one_patient():
    patients = [*sites(a=9), ("both", "a"), ("both", "b")]
    split = drawn(cohort_of(*patients))
    assert sum(part.count("both") for part in (split.train, split.validation, split.test)) == 1


@pytest.mark.parametrize(("patients", "part"), [(1, "validation"), (2, "test")])
def test_too_few_patients_are_refused(patients, part):
    with pytest.raises(DataError, match=rf"somewhere: {patients} patients? leave none for \w+; add patients or lower"):
        drawn(cohort_of(*sites(a=patients)), validation=0.15, test=0.15)


def test_a_part_that_is_not_asked_for_may_be_empty():
    split = drawn(cohort_of(*sites(a=3)), validation=0.0, test=0.34)
    assert split.validation == ()
    assert len(split.test) == 1


def test_a_patient_in_two_parts_is_refused():
    with pytest.raises(DataError, match="a patient stands in two parts"):
        Split(("p1", "p2"), ("p2",), ())


def test_a_split_survives_json():
    split = Split(("p1", "p2"), ("p3",), ())
    assert Split.from_dict(split.to_dict()) == split


def test_modalities_are_those_that_all_share_in_canonical_order():
    def case(name, *modalities):
        return Case(name, name, "s", {modality: Source((Path("x.nii"),)) for modality in modalities})

    cohort = Cohort(Path("x"), "manifest", (case("p1", "swi", "flair", "t1", "adc"), case("p2", "t1", "adc", "swi")))
    assert cohort.modalities == ("t1", "adc", "swi")
    assert Cohort(Path("x"), "manifest", ()).modalities == ()


def test_regions_are_those_that_all_masks_can_tell_apart():
    mask = Source((Path("mask.nii"),))

    def case(name, regions, mask):
        return Case(name, name, "s", {}, mask, regions=regions)

    full, binary = case("p1", ("wt", "tc", "et"), mask), case("p2", ("wt",), mask)
    unmasked = case("p3", ("wt",), None)
    assert Cohort(Path("x"), "manifest", (full, unmasked)).regions == ("wt", "tc", "et")
    assert Cohort(Path("x"), "manifest", (full, binary)).regions == ("wt",)
    assert Cohort(Path("x"), "manifest", (unmasked,)).regions == ()


def test_a_cohort_less_some_cases():
    cohort = cohort_of(*sites(a=3))
    assert cohort.without(["a01-0"]).patients == ("a00", "a02")


def test_the_phantom_splits_over_its_sites(cohort):
    split = drawn(cohort, validation=0.15, test=0.2)
    assert split.train
    assert split.validation
    assert split.test
    assert len({case.site for case in cohort.cases}) == 2
