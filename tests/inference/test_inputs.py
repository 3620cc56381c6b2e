"""Which cases and channels `ganseg predict` reads from files and folders; no model is needed."""

import json
import os
import shutil

import numpy as np
import pytest

from ganseg_dist.data.scan import load_scan
from ganseg_dist.errors import DataError
from ganseg_dist.inference.inputs import read_inputs, unread_test_images
from tests.data.cohorts import MODALITIES, brain, save, write_brats, write_decathlon, write_nnunet

IMAGES = brain(0)[0]


def modalities_read(root, modalities=MODALITIES, **how):
    """Each case's name and, of each modality that the model needs, the one whose voxels are read."""
    cases = read_inputs(root, modalities, **how)
    return {
        case.id: [identify(volume) for volume in load_scan(case, modalities, with_mask=False).image] for case in cases
    }


def identify(volume):
    return next(f"{name} {patient}" for patient in range(3) for name, image in brain(patient)[0].items()
                if np.array_equal(volume, image))  # fmt: skip


def expected_of(patient, modalities=MODALITIES):
    return [f"{modality} {patient}" for modality in modalities]


def write_numbered(folder, cases, modalities):
    for patient, case in enumerate(cases):
        for number, modality in enumerate(modalities):
            save(folder / f"{case}_{number:04d}.nii.gz", brain(patient)[0][modality])


def describe(root, names, **more):
    named = {str(number): name for number, name in enumerate(names)}
    (root / "dataset.json").write_text(json.dumps({"channel_names": named, **more}))


@pytest.mark.parametrize("where", ["beside", "above"])
def test_read_inputs_takes_channels_of_images_ts_from_dataset_json(tmp_path, where):
    tests = tmp_path / "imagesTs"
    write_numbered(tests, ["BR_003", "BR_001"], ("flair", "t1", "t1ce", "t2"))
    (tests / "._BR_003_0000.nii.gz").write_bytes(b"no scan")
    describe(tmp_path if where == "above" else tests, ("FLAIR", "T1", "T1ce", "T2"))
    assert modalities_read(tests) == {"BR_001": expected_of(1), "BR_003": expected_of(0)}
    assert modalities_read(tests, ("t2", "flair")) == {
        name: expected_of(n, ("t2", "flair")) for n, name in ((1, "BR_001"), (0, "BR_003"))
    }


def test_read_inputs_accepts_data_set_with_images_ts_only(tmp_path):
    write_numbered(tmp_path / "imagesTs", ["BR_003"], MODALITIES)
    describe(tmp_path, MODALITIES, labels={"background": 0, "Anterior": 1, "Posterior": 2}, file_ending=".nii.gz")
    assert modalities_read(tmp_path) == {"BR_003": expected_of(0)}


def test_read_inputs_ignores_unknown_mask_labels(tmp_path):
    write_nnunet(tmp_path, ["a"], {"background": 0, "Anterior": 1, "Posterior": 2})
    assert modalities_read(tmp_path, ("t1",)) == {"a": ["t1 0"]}


def test_unread_test_images_names_images_ts_beside_training_images(tmp_path):
    write_nnunet(tmp_path, ["a"])
    write_numbered(tmp_path / "imagesTs", ["b"], ("t1", "t1ce"))
    cases = read_inputs(tmp_path, ("t1", "t1ce"))
    assert [case.id for case in cases] == ["a"]
    assert unread_test_images(tmp_path, cases) == tmp_path / "imagesTs"
    tests = read_inputs(tmp_path / "imagesTs", ("t1", "t1ce"))
    assert [case.id for case in tests] == ["b"]
    assert unread_test_images(tmp_path / "imagesTs", tests) is None


def test_read_inputs_reads_4d_images_ts_and_rejects_labels_folder(tmp_path):
    write_decathlon(tmp_path, ["BRATS_001"])
    (tmp_path / "imagesTr").rename(tmp_path / "imagesTs")
    assert modalities_read(tmp_path / "imagesTs") == {"BRATS_001": expected_of(0)}
    assert modalities_read(tmp_path / "imagesTs" / "BRATS_001.nii.gz") == {"BRATS_001": expected_of(0)}
    with pytest.raises(DataError, match="labelsTr: holds masks; give the folder of their images"):
        read_inputs(tmp_path / "labelsTr", MODALITIES)


@pytest.mark.parametrize("names", [("flair",), ("CT",)])
def test_read_inputs_accepts_volumes_of_one_channel(tmp_path, names):
    modality = names[0].lower()
    write_numbered(tmp_path / "imagesTs", ["lung_1", "lung_2"], ("flair",))
    assert modalities_read(tmp_path / "imagesTs", (modality,)) == {"lung_1": ["flair 0"], "lung_2": ["flair 1"]}
    describe(tmp_path, names)
    assert modalities_read(tmp_path / "imagesTs", (modality,)) == {"lung_1": ["flair 0"], "lung_2": ["flair 1"]}


def test_read_inputs_rejects_channel_numbers_without_names(tmp_path):
    write_numbered(tmp_path, ["a"], MODALITIES)
    with pytest.raises(DataError, match=r"a_0000\.nii\.gz: gives only a channel number, and no dataset\.json"):
        read_inputs(tmp_path, MODALITIES)
    describe(tmp_path, ("CT", "PET"))
    with pytest.raises(DataError, match="no case has all of t1, t1ce, t2, flair, which the model needs; a has ct, pet"):
        read_inputs(tmp_path, MODALITIES)


def test_read_inputs_reads_brats_cases_without_masks(tmp_path):
    write_brats(tmp_path, ["BraTS-PED-00001-000", "BraTS-PED-00002-000"], names_2023=True)
    assert len(modalities_read(tmp_path)) == 2
    for mask in tmp_path.glob("*/*seg*"):
        mask.unlink()
    assert modalities_read(tmp_path) == {"BraTS-PED-00001-000": expected_of(0), "BraTS-PED-00002-000": expected_of(1)}


@pytest.mark.parametrize(
    "name",
    [
        "{case}/{modality}.nii.gz", "{case}/{MODALITY}.NII.GZ", "{case}_{modality}.nii.gz", "{case}-{modality}.nii",
        "{case}/anything_{modality}.nii.gz", "{case}/{modality}_N4_regtoFLAIR_regtoMNI.nii.gz",
        "{case}_{modality}_brain.nii",
        "{case}/ses-1/anat/{case}_{modality}.nii.gz",
    ],
)  # fmt: skip
def test_read_inputs_finds_modalities_in_file_names(tmp_path, name):
    for patient, case in enumerate(("p01", "p02")):
        for modality, called in zip(MODALITIES, ("T1w", "t1-Gd", "T2w", "FLAIR"), strict=True):
            place = name.format(case=case, modality=called.replace("-", ""), MODALITY=called.replace("-", "").upper())
            save(tmp_path / place, brain(patient)[0][modality])
        save(tmp_path / case / "GOLD_STANDARD_seg.nii.gz", brain(patient)[1])
    cases = modalities_read(tmp_path)
    assert list(cases.values()) == [expected_of(0), expected_of(1)]
    assert [case[:3] for case in cases] == ["p01", "p02"]
    if "anat" not in name and "brain" not in name:
        assert list(cases) == ["p01", "p02"]
    if name.startswith("{case}/{"):
        assert modalities_read(tmp_path / "p02") == {"p02": expected_of(1)}


def test_read_inputs_reads_bids_contrast_agent_names(tmp_path):
    for name, modality in (("T1w", "t1"), ("ce-gadolinium_T1w", "t1ce"), ("T2w", "t2"), ("space-T1w_FLAIR", "flair")):
        save(tmp_path / f"sub-01_{name}.nii.gz", IMAGES[modality])
    assert list(modalities_read(tmp_path).values()) == [expected_of(0)]


def test_read_inputs_rejects_two_differing_files_of_one_modality(tmp_path):
    for modality in MODALITIES:
        save(tmp_path / "p" / f"{modality}.nii.gz", IMAGES[modality])
    save(tmp_path / "p" / "T1w.nii.gz", IMAGES["t1"])
    assert modalities_read(tmp_path) == {"p": expected_of(0)}
    save(tmp_path / "p" / "T1w.nii.gz", IMAGES["t2"])
    with pytest.raises(DataError) as caught:
        read_inputs(tmp_path, MODALITIES)
    assert all(part in str(caught.value) for part in ("T1w.nii.gz: could be t1 of p", "t1.nii.gz, which differs"))


def test_read_inputs_rejects_name_with_two_modalities(tmp_path):
    for name in ("t1", "t1ce", "t2", "flair_to_t1"):
        save(tmp_path / "p" / f"p_{name}.nii.gz", IMAGES["t1"])
    with pytest.raises(DataError, match="no case has all of t1, t1ce, t2, flair"):
        read_inputs(tmp_path, MODALITIES)


def test_read_inputs_for_one_modality_takes_any_volume_but_masks(tmp_path):
    for patient, name in enumerate(("1000_SS", "1001_SS")):
        save(tmp_path / f"{name}.nii.gz", brain(patient)[0]["t1"])
        save(tmp_path / f"{name}_seg.nii.gz", brain(patient)[1])
    os.mkfifo(tmp_path / "pipe.nii")
    assert modalities_read(tmp_path, ("t1",)) == {"1000_SS": ["t1 0"], "1001_SS": ["t1 1"]}
    (tmp_path / "1001_SS_seg.nii.gz").unlink()
    shutil.move(tmp_path / "1001_SS.nii.gz", tmp_path / "a_flair.nii.gz")
    with pytest.raises(DataError, match="no case has all of t1, which the model needs; a has flair"):
        read_inputs(tmp_path, ("t1",))


@pytest.mark.parametrize("shape", ["XYZ1", "XYZ11", "XYZ"])
def test_read_inputs_accepts_trailing_singleton_axes(tmp_path, shape):
    save(tmp_path / "scan.nii.gz", IMAGES["t1"].reshape(*IMAGES["t1"].shape, *[1] * (len(shape) - 3)))
    assert modalities_read(tmp_path / "scan.nii.gz", ("t1",)) == {"scan": ["t1 0"]}
    assert modalities_read(tmp_path, ("t1",)) == {"scan": ["t1 0"]}


@pytest.mark.parametrize("between", [(), (1,)])
def test_read_inputs_maps_vector_channels_to_modalities(tmp_path, between):
    stack = np.stack([IMAGES[modality] for modality in MODALITIES], -1)
    file = save(tmp_path / "scans" / "a.nii.gz", stack.reshape(*stack.shape[:3], *between, 4))
    order = ("t2", "t1")
    for place in (file, file.parent):
        assert modalities_read(place, order, channels=MODALITIES) == {"a": expected_of(0, order)}
        with pytest.raises(DataError, match=r"has 4 channel\(s\) and the model needs 3"):
            read_inputs(place, order, channels=MODALITIES[:3])


def test_read_inputs_keeps_damaged_file_for_load_scan_to_report(tmp_path):
    stack = np.stack([IMAGES[modality] for modality in MODALITIES], -1)
    for name in ("a", "b"):
        save(tmp_path / f"{name}.nii.gz", stack)
    (tmp_path / "b.nii.gz").write_bytes(b"no scan")
    a, b = read_inputs(tmp_path, MODALITIES)
    assert (a.id, load_scan(a, MODALITIES).image.shape[0]) == ("a", 4)
    with pytest.raises(DataError, match=r"b\.nii\.gz: is not a readable NIfTI file"):
        load_scan(b, MODALITIES)


@pytest.mark.parametrize("name", ["pipe", "pipe.nii.gz", "pipe.csv", "pipe.png"])
def test_read_inputs_rejects_named_pipe(tmp_path, name):
    os.mkfifo(tmp_path / name)
    for modalities in (("t1",), ("grey",)):
        with pytest.raises(DataError, match=rf"{name}: cannot be opened \(is not a regular file\)"):
            read_inputs(tmp_path / name, modalities)


def test_read_inputs_rejects_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="no known layout recognised"):
        read_inputs(tmp_path, ("t1",))
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        read_inputs(tmp_path / "nowhere", ("t1",))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("a_flair", "is flair by its name"), ("a_t1_gd", "is t1ce by its name"), ("BraTS_seg", "is a mask by its name"),
        ("AX_T2_FLAIR", "is flair by its name"), ("AX_T1_SE_POST", "is t1ce by its name"),
        ("p_brain_mask", "is a mask by its name"), ("Segmentation", "is a mask by its name"),
    ],
)  # fmt: skip
def test_read_inputs_rejects_single_file_named_otherwise(tmp_path, name, problem):
    file = save(tmp_path / f"{name}.nii.gz", IMAGES["t1"])
    with pytest.raises(DataError, match=rf"{name}\.nii\.gz: {problem}, and the model needs t1; give"):
        read_inputs(file, ("t1",))


def test_read_inputs_checks_single_file_against_dataset_json(tmp_path):
    write_numbered(tmp_path / "imagesTs", ["a"], ("flair", "t1"))
    describe(tmp_path, ("FLAIR", "T1"))
    assert modalities_read(tmp_path / "imagesTs" / "a_0001.nii.gz", ("t1",)) == {"a_0001": ["t1 0"]}
    with pytest.raises(DataError, match=r"a_0000\.nii\.gz: is flair by dataset\.json, and the model needs t1"):
        read_inputs(tmp_path / "imagesTs" / "a_0000.nii.gz", ("t1",))
    describe(tmp_path, ("MRI",))  # which may be any sequence
    assert modalities_read(tmp_path / "imagesTs" / "a_0000.nii.gz", ("flair",)) == {"a_0000": ["flair 0"]}
    file = save(tmp_path / "patient_with_lesion.nii.gz", IMAGES["t1"])
    assert modalities_read(file, ("t1",)) == {"patient_with_lesion": ["t1 0"]}


def test_read_inputs_reads_dcm2niix_names(tmp_path):
    names = ("AX_T1", "AX_T1_POST", "AX_T2", "AX_T2_FLAIR")
    for name, modality in zip(names, MODALITIES, strict=True):
        save(tmp_path / f"{name}.nii.gz", IMAGES[modality])
    assert modalities_read(tmp_path) == {"AX": expected_of(0)}
    assert modalities_read(tmp_path, ("t1",)) == {"AX": ["t1 0"]}
    assert modalities_read(tmp_path, ("flair",)) == {"AX": ["flair 0"]}


def test_read_inputs_distinguishes_scans_before_and_after_contrast(tmp_path):
    for name in ("a_t1_gd", "b_T1_+C"):
        save(tmp_path / f"{name}.nii.gz", IMAGES["t1ce"])
    with pytest.raises(DataError, match="no case has all of t1, which the model needs; a has t1ce"):
        read_inputs(tmp_path, ("t1",))
    assert modalities_read(tmp_path, ("t1ce",)) == {"a": ["t1ce 0"], "b": ["t1ce 0"]}
    save(tmp_path / "c_T1_pre_contrast.nii.gz", IMAGES["t1"])
    assert modalities_read(tmp_path / "c_T1_pre_contrast.nii.gz", ("t1",)) == {"c_T1_pre_contrast": ["t1 0"]}


@pytest.mark.parametrize(
    "mask",
    ["p_t1_seg", "p_t1_brain_mask", "p_t1_lesion", "p_t1-Segmentation", "masks/p_t1_mask", "masks/p_t1_probability_wt",
     "labelsTr/p_t1", "sub/p_t1_anomaly"],
)  # fmt: skip
@pytest.mark.parametrize("image", ["p_t1", "p"])
def test_read_inputs_skips_masks_of_scans(tmp_path, image, mask):
    save(tmp_path / f"{image}.nii.gz", IMAGES["t1"])
    save(tmp_path / f"{mask.replace('p_t1', image)}.nii.gz", brain(0)[1])
    assert modalities_read(tmp_path, ("t1",)) == {"p": ["t1 0"]}


def test_read_inputs_rejects_numbered_channels_as_cases(tmp_path):
    write_numbered(tmp_path, ["a", "b"], ("flair", "t1"))
    with pytest.raises(DataError, match=r"a_0000\.nii\.gz: is one of 2 channels by its number, and no dataset\.json"):
        read_inputs(tmp_path, ("t1",))
    for name in ("b_0000", "b_0001"):  # what is left counts cases
        (tmp_path / f"{name}.nii.gz").unlink()
    assert list(modalities_read(tmp_path, ("t1",))) == ["a_0000", "a_0001"]


def test_read_inputs_accepts_case_names_ending_in_four_digits(tmp_path):
    tests = tmp_path / "imagesTs"
    for patient in range(3):
        save(tests / f"lung_{patient:04d}.nii.gz", brain(patient)[0]["t1"])
    description = {"modality": {"0": "T1"}, "labels": {"0": "background", "1": "tumour"}, "training": []}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    assert modalities_read(tests, ("t1",)) == {f"lung_{n:04d}": [f"t1 {n}"] for n in range(3)}
    for patient in range(3):
        images = brain(patient)[0]
        save(tests / f"lung_{patient:04d}.nii.gz", np.stack([images[m] for m in ("flair", "t1")], -1))
    (tmp_path / "dataset.json").write_text(json.dumps({**description, "modality": {"0": "FLAIR", "1": "T1"}}))
    assert modalities_read(tests, ("t1",)) == {f"lung_{n:04d}": [f"t1 {n}"] for n in range(3)}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"channel_names": {"0": "T1", "1": "T1ce",}}', "is not readable JSON"),
        ('{"channel_names": ["T1", "T1ce"]}', "channel_names does not map numbers to names"),
    ],
)
def test_read_inputs_names_malformed_dataset_json(tmp_path, text, problem):
    write_numbered(tmp_path / "imagesTs", ["a"], ("t1", "t1ce"))
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=rf"dataset\.json: {problem}"):
        read_inputs(tmp_path / "imagesTs", ("t1", "t1ce"))
