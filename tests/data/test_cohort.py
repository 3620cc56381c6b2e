from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from ganseg_dist.config import override
from ganseg_dist.data.cohort import Case, Cohort, Source, Split, split_as_configured, split_by_patient
from ganseg_dist.data.labels import BRATS
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.errors import DataError
from ganseg_dist.systems import recipe


def cohort_of(*patients: tuple[str, str], cases_each: int = 1) -> Cohort:
    """Patients by name and site, with some cases each."""
    cases = tuple(
        Case(f"{patient}-{visit}", patient, site, {"t1": Source((Path("t1.nii"),))})
        for patient, site in patients
        for visit in range(cases_each)
    )
    return Cohort(Path("somewhere"), "manifest", cases)


def patients_of_sites(**sizes: int) -> list[tuple[str, str]]:
    return [(f"{site}{number:02d}", site) for site, size in sizes.items() for number in range(size)]


def split_cohort(cohort: Cohort, *, validation: float = 0.2, test: float = 0.2, seed: int = 0) -> Split:
    return split_by_patient(cohort, validation=validation, test=test, seed=seed)


@pytest.mark.parametrize("seed", range(5))
def test_split_parts_are_disjoint_and_complete(seed):
    cohort = cohort_of(*patients_of_sites(a=13, b=7))
    split = split_cohort(cohort, seed=seed)
    parts = [set(split.train), set(split.validation), set(split.test)]
    assert set.union(*parts) == set(cohort.patients)
    assert sum(map(len, parts)) == 20


@pytest.mark.parametrize("seed", range(5))
def test_split_keeps_fractions_overall_and_per_site(seed):
    split = split_cohort(cohort_of(*patients_of_sites(a=20, b=10, c=30)), seed=seed)
    assert (len(split.validation), len(split.test)) == (12, 12)
    for part in (split.validation, split.test):
        by_site = Counter(patient[0] for patient in part)
        assert by_site["a"] == pytest.approx(4, abs=1)
        assert by_site["b"] == pytest.approx(2, abs=1)
        assert by_site["c"] == pytest.approx(6, abs=1)


def test_split_keeps_fractions_with_one_patient_per_site():
    """Rounding each site for itself would leave validation and test empty."""
    split = split_cohort(cohort_of(*[(f"p{number:02d}", f"s{number:02d}") for number in range(20)]))
    assert (len(split.validation), len(split.test)) == (4, 4)


def test_split_depends_on_seed_not_on_case_order():
    patients = patients_of_sites(a=15, b=15)
    split = split_cohort(cohort_of(*patients))
    assert split_cohort(cohort_of(*patients)) == split
    assert split_cohort(cohort_of(*reversed(patients))) == split
    assert split_cohort(cohort_of(*patients), seed=1) != split


def test_split_samples_most_patients_for_test_across_seeds():
    cohort = cohort_of(*patients_of_sites(a=10, b=10))
    assert len({patient for seed in range(20) for patient in split_cohort(cohort, seed=seed).test}) > 15


def test_split_keeps_cases_of_a_patient_together():
    cohort = cohort_of(*patients_of_sites(a=10), cases_each=3)
    split = split_cohort(cohort)
    parts = [cohort.of_patients(part) for part in (split.train, split.validation, split.test)]
    assert [len(part) for part in parts] == [18, 6, 6]
    for one in parts:
        for other in parts:
            if one is not other:
                assert not {case.patient for case in one} & {case.patient for case in other}


def test_split_counts_patient_at_two_sites_once():
    patients = [*patients_of_sites(a=9), ("both", "a"), ("both", "b")]
    split = split_cohort(cohort_of(*patients))
    assert sum(part.count("both") for part in (split.train, split.validation, split.test)) == 1


@pytest.mark.parametrize(("patients", "part"), [(1, "validation"), (2, "test")])
def test_split_rejects_too_few_patients(patients, part):
    with pytest.raises(DataError, match=rf"somewhere: {patients} patients? leave none for \w+; add patients or lower"):
        split_cohort(cohort_of(*patients_of_sites(a=patients)), validation=0.15, test=0.15)


def test_split_without_classes_matches_recorded_split():
    """A resumed run must find its patients in the parts that were recorded."""
    split = split_cohort(cohort_of(*patients_of_sites(a=5, b=4, c=3)), seed=7)
    assert split == Split(
        train=("a02", "a03", "a04", "b00", "b03", "c00", "c02"),
        validation=("a00", "b01", "c01"),
        test=("a01", "b02"),
    )


def picture_cohort(*groups: tuple[Iterable[str], str, str | None], site: str = "s") -> Cohort:
    """A picture for each patient of each group of patients, class and part."""
    cases = tuple(
        Case(f"{part}-{name}-{patient}", patient, f"{site}{index % 2}", {}, class_name=name, part=part)
        for patients, name, part in groups
        for index, patient in enumerate(patients)
    )
    return Cohort(Path("somewhere"), "class_folder", cases)


def patient_ids(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number:03d}" for number in range(count)]


def class_counts(cohort: Cohort, patients: Iterable[str]) -> Counter[str]:
    return Counter(case.class_name for case in cohort.of_patients(patients))


@pytest.mark.parametrize("test", [0.0, 0.3])
def test_split_uses_published_test_part_for_any_seed(test):
    cohort = picture_cohort(
        (patient_ids("a", 20), "a", "train"),
        (patient_ids("b", 40), "b", "train"),
        (["t1"], "a", "test"),
        (["t2"], "b", "test"),
    )
    split = split_cohort(cohort, validation=0.25, test=test)
    assert split.test == ("t1", "t2")
    assert class_counts(cohort, split.validation) == {"a": 5, "b": 10}
    assert class_counts(cohort, split.train) == {"a": 15, "b": 30}
    other = split_cohort(cohort, validation=0.25, test=test, seed=1)
    assert other.test == split.test
    assert other.validation != split.validation


def test_split_uses_published_test_part_without_classes():
    cases = [Case(f"c{n}", f"p{n:02d}", "s", {}, part="test" if n < 4 else "train") for n in range(24)]
    split = split_cohort(Cohort(Path("somewhere"), "x", tuple(cases)), validation=0.2, test=0.2)
    assert split.test == ("p00", "p01", "p02", "p03")
    assert (len(split.train), len(split.validation)) == (16, 4)


def test_split_puts_patient_of_both_published_parts_into_test():
    cohort = picture_cohort(
        (["p", *patient_ids("a", 9)], "a", "train"), (patient_ids("b", 9), "b", "train"), (["p"], "a", "test")
    )
    assert split_cohort(cohort).test == ("p",)


def test_split_rejects_cohort_with_test_part_only():
    with pytest.raises(DataError, match="2 patients leave none for train"):
        split_cohort(picture_cohort((["p", "q"], "a", "test")))


def test_split_divides_cohort_with_train_part_only_into_three():
    split = split_cohort(picture_cohort((patient_ids("a", 10), "a", "train"), (patient_ids("b", 10), "b", "train")))
    assert (len(split.train), len(split.validation), len(split.test)) == (12, 4, 4)


@pytest.mark.parametrize("seed", range(3))
def test_split_stratifies_by_class_and_site(seed):
    cohort = picture_cohort(
        (patient_ids("a", 100), "a", None), (patient_ids("b", 50), "b", None), (patient_ids("c", 10), "c", None)
    )
    split = split_cohort(cohort, seed=seed)
    assert class_counts(cohort, split.test) == {"a": 20, "b": 10, "c": 2}
    assert class_counts(cohort, split.validation) == {"a": 20, "b": 10, "c": 2}
    by_site = Counter(case.site for case in cohort.of_patients(split.test) if case.class_name == "a")
    assert by_site == {"s0": 10, "s1": 10}


@pytest.mark.parametrize("seed", range(5))
def test_split_puts_class_of_three_patients_into_each_part(seed):
    cohort = picture_cohort((patient_ids("a", 60), "a", None), (patient_ids("b", 3), "b", None))
    split = split_cohort(cohort, validation=0.1, test=0.1, seed=seed)
    for part in (split.train, split.validation, split.test):
        assert class_counts(cohort, part)["b"] == 1


@pytest.mark.parametrize("seed", range(5))
def test_split_assigns_rare_class_to_train_then_test(seed):
    cohort = picture_cohort((patient_ids("a", 20), "a", None), (patient_ids("b", 2), "b", None), (["c"], "c", None))
    split = split_cohort(cohort, seed=seed)
    assert class_counts(cohort, split.train).keys() == {"a", "b", "c"}
    assert class_counts(cohort, split.test).keys() == {"a", "b"}


@pytest.mark.parametrize("seed", range(5))
def test_split_keeps_patients_of_several_classes_whole(seed):
    patients = patient_ids("p", 30)
    cohort = picture_cohort((patients, "a", None), (patients[:15], "b", None), (patients[10:18], "c", None))
    split = split_cohort(cohort, seed=seed)
    parts = (split.train, split.validation, split.test)
    assert sorted(patient for part in parts for patient in part) == patients
    for part in parts:
        assert class_counts(cohort, part).keys() == {"a", "b", "c"}
    assert len(split.train) > 12


def test_split_includes_cases_without_class():
    cohort = picture_cohort((patient_ids("a", 10), "a", None), (patient_ids("b", 10), "b", None))
    cases = (*cohort.cases, *(Case(f"x{n}", f"x{n}", "s", {}) for n in range(10)))
    split = split_cohort(Cohort(Path("somewhere"), "x", cases))
    assert (len(split.train), len(split.validation), len(split.test)) == (18, 6, 6)


def test_split_with_classes_ignores_case_order():
    cohort = picture_cohort((patient_ids("a", 12), "a", None), (patient_ids("b", 12), "b", None))
    split = split_cohort(cohort)
    assert split_cohort(Cohort(cohort.root, cohort.layout, cohort.cases[::-1])) == split
    assert split_cohort(cohort, seed=1) != split


def test_split_of_brain4_keeps_published_test_part(shared_data):
    cohort = read_cohort(shared_data / "brain4")
    split = split_cohort(cohort, validation=0.15)
    assert {case.part for case in cohort.of_patients(split.test)} == {"test"}
    assert set(class_counts(cohort, split.test).values()) == {50}
    assert set(class_counts(cohort, split.validation).values()) == {30}


def test_split_allows_empty_part_for_zero_fraction():
    split = split_cohort(cohort_of(*patients_of_sites(a=3)), validation=0.0, test=0.34)
    assert split.validation == ()
    assert len(split.test) == 1


def test_split_rejects_patient_in_two_parts():
    with pytest.raises(DataError, match="a patient is in two parts"):
        Split(("p1", "p2"), ("p2",), ())


def test_split_round_trips_through_dict():
    split = Split(("p1", "p2"), ("p3",), ())
    assert Split.from_dict(split.to_dict()) == split


def test_cohort_modalities_are_shared_ones_in_canonical_order():
    def case(name, *modalities):
        return Case(name, name, "s", {modality: Source((Path("x.nii"),)) for modality in modalities})

    cohort = Cohort(Path("x"), "manifest", (case("p1", "swi", "flair", "t1", "adc"), case("p2", "t1", "adc", "swi")))
    assert cohort.modalities == ("t1", "adc", "swi")
    assert Cohort(Path("x"), "manifest", ()).modalities == ()
    colours = Cohort(Path("x"), "manifest", (case("p1", "blue", "infrared", "green", "red", "flair"),))
    assert colours.modalities == ("flair", "red", "green", "blue", "infrared")


def test_cohort_regions_are_those_of_every_mask():
    mask = Source((Path("mask.nii"),))

    def case(name, regions, mask):
        return Case(name, name, "s", {}, mask, scheme=BRATS.of_regions(regions))

    full, binary = case("p1", ("wt", "tc", "et"), mask), case("p2", ("wt",), mask)
    unmasked = case("p3", ("wt",), None)
    assert Cohort(Path("x"), "manifest", (full, unmasked)).regions == ("wt", "tc", "et")
    assert Cohort(Path("x"), "manifest", (full, binary)).regions == ("wt",)
    assert Cohort(Path("x"), "manifest", (unmasked,)).regions == ()


def test_cohort_without_removes_named_cases():
    cohort = cohort_of(*patients_of_sites(a=3))
    assert cohort.without(["a01-0"]).patients == ("a00", "a02")


def test_split_of_phantom_fills_each_part(cohort):
    split = split_cohort(cohort, validation=0.15, test=0.2)
    assert split.train
    assert split.validation
    assert split.test
    assert len({case.site for case in cohort.cases}) == 2


def test_split_of_patients_keeps_their_parts():
    split = Split(("a", "b", "c"), ("d",), ("e", "f"))
    assert split.of(["f", "b", "a", "unknown"]) == Split(("a", "b"), (), ("f",))
    assert split.of(()) == Split((), (), ())


def test_split_as_configured_uses_config_fractions_and_seed():
    cohort = cohort_of(*patients_of_sites(a=13, b=7))
    fields = {"data.validation_fraction": 0.3, "data.test_fraction": 0.1, "seed": 5}
    config = override(recipe("ganet_seg_debug"), fields)
    assert split_as_configured(cohort, config) == split_cohort(cohort, validation=0.3, test=0.1, seed=5)
    assert split_as_configured(cohort, override(config, {"seed": 6})) != split_as_configured(cohort, config)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [("1.dcm", b"", "DICOM"), ("IM0001", bytes(128) + b"DICM", "DICOM"), ("scan.nrrd", b"NRRD0004", "NRRD")],
)
def test_read_cohort_names_unsupported_format_and_remedy(tmp_path, name, content, kind):
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_cohort(tmp_path)
    expected = f"{tmp_path}: holds {kind} files (series/{name}), which are not read; convert them to .nii.gz"
    assert str(caught.value).startswith(expected)
