"""Fingerprints of synthetic scans with numbers counted by hand, and of phantoms."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from ganseg_dist.config import DataConfig, RunConfig
from ganseg_dist.data.cohort import Case, Cohort, Source
from ganseg_dist.data.labels import BRATS
from ganseg_dist.data.store import PreparedCase, content_hash, prepare_case
from ganseg_dist.federation.fingerprint.histograms import Axis, Fingerprint, axes
from ganseg_dist.federation.fingerprint.measure import case_shares, fingerprint, patient_points

LESION_IN_TWO = BRATS.of_regions(("wt", "et"))
DATA = DataConfig(modalities=("t1",), regions=("wt", "et"), size=16, spacing_mm=2.0)


def block(folder: Path, name: str, *, inside: float = 400.0, lesion: int = 0, spacing=(2.0, 2.0, 5.0)) -> Case:
    """A 20 x 20 x 2 scan: zeros around 12 x 12 x 2 voxels, half of them `inside`, half ten times less."""
    image, mask = np.zeros((20, 20, 2), np.float32), np.zeros((20, 20, 2), np.uint8)
    image[4:16, 4:16] = inside
    image[4:16, 4:10] = inside / 10
    mask[5, 5 : 5 + lesion, 0] = 1
    files = {"t1": folder / f"{name}_t1.nii.gz", "seg": folder / f"{name}_seg.nii.gz"}
    for file, voxels in ((files["t1"], image), (files["seg"], mask)):
        nib.save(nib.Nifti1Image(voxels, np.diag([*spacing, 1.0])), file)
    return Case(name, name.split("-")[0], "here", {"t1": Source((files["t1"],))}, Source((files["seg"],)),
                scheme=LESION_IN_TWO)  # fmt: skip


def with_prepared(cases: list[Case], data: DataConfig, store: Path) -> list[tuple[Case, PreparedCase]]:
    return [(case, PreparedCase.open(prepare_case(store, case, data, content_hash(case)))) for case in cases]


def shares_of(case: Case, data: DataConfig, store: Path) -> dict[str, dict[str, float]]:
    """Each histogram's bins that are not empty, by name."""
    ((_, prepared),) = with_prepared([case], data, store)
    return {
        name: named(axes(data)[name], shares) for name, shares in case_shares(case, prepared, data).items()
    }  # fmt: skip


def named(axis: Axis, values) -> dict[str, float]:
    return {bin_: float(value) for bin_, value in zip(axis.names, values, strict=False) if value}


def test_case_shares_of_scan_count_voxels_units_and_millimetres(tmp_path: Path):
    result = shares_of(block(tmp_path, "a", lesion=5), DATA, tmp_path)
    assert result["raw/t1"] == {"31.6 to 100": 0.5, "316 to 1e+03": 0.5}
    assert result["in_plane"] == {"1.68 to 2.38 mm": 1}
    assert result["thickness"] == {"4.76 to 6.73 mm": 1}
    assert result["side"] == {"below 53.8 pixels": 1}
    assert result["lesion/wt"] == {"0.1 to 0.316 ml": 1}  # 5 voxels of 20 mm^3
    assert result["lesion/et"] == {"no lesion": 1}
    assert sum(result["seen/t1"].values()) == pytest.approx(1)


def test_case_shares_mark_missing_mask_and_spacing(tmp_path: Path):
    scan = replace(block(tmp_path, "a"), mask=None)
    assert shares_of(scan, DATA, tmp_path)["lesion/wt"] == {"no mask": 1}
    pixels = np.zeros((64, 48, 3), np.uint8)
    pixels[:32] = (200, 2, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(np.where(pixels[..., 0] > 0, 255, 0).astype(np.uint8)).save(tmp_path / "mask.png")
    colours = {name: Source((tmp_path / "a.png",), channel) for channel, name in enumerate(("red", "green", "blue"))}
    picture = Case("a", "a", "here", colours, Source((tmp_path / "mask.png",)))
    data = DataConfig(modalities=tuple(colours), regions=("wt",), classes=("no lesion", "lesion"), size=16)
    result = shares_of(picture, data, tmp_path)
    assert result["raw/red"] == {"0 to 0.0316": 0.5, "100 to 316": 0.5}
    assert result["raw/green"] == {"0 to 0.0316": 0.5, "1 to 3.16": 0.5}
    assert result["raw/blue"] == {"0 to 0.0316": 1}
    assert result["in_plane"] == result["thickness"] == {"not known": 1}
    assert result["side"] == {"53.8 to 76.1 pixels": 1}
    assert result["lesion/wt"] == {"size not known": 1}
    assert result["classes"] == {"lesion": 1}
    assert shares_of(replace(picture, class_name="no lesion"), data, tmp_path)["classes"] == {"no lesion": 1}
    assert shares_of(picture, data.model_copy(update={"classes": ("a", "b")}), tmp_path)["classes"] == {"not known": 1}


def test_fingerprint_gives_100_points_per_patient(tmp_path: Path):
    assert patient_points([np.array([1, 0, 0]), np.array([0, 1, 0]), np.array([0, 1, 0])]).tolist() == [33, 67, 0]
    assert patient_points([np.array([0.001, 0.001, 0.998])]).tolist() == [0, 0, 100]
    cases = [block(tmp_path, "p-1", lesion=5), block(tmp_path, "p-2"), block(tmp_path, "q-1")]
    found = fingerprint(with_prepared(cases, DATA, tmp_path), DATA, 1)
    assert found.patients == 2
    assert named(found.axes["lesion/wt"], found.disclosed("lesion/wt")) == {"no lesion": 150, "0.1 to 0.316 ml": 50}
    assert named(found.axes["raw/t1"], found.disclosed("raw/t1")) == {"31.6 to 100": 100, "316 to 1e+03": 100}


def test_fingerprint_withholds_numbers_of_few_patients(tmp_path: Path):
    cases = [block(tmp_path, f"p{i}", lesion=5 if i < 2 else 0, inside=4e4 if i == 5 else 400) for i in range(6)]
    found = fingerprint(with_prepared(cases, DATA, tmp_path), DATA, 3)
    assert named(found.axes["raw/t1"], found.disclosed("raw/t1")) == {"31.6 to 100": 250, "316 to 1e+03": 350}
    assert found.withheld("lesion/wt") == 1
    assert found.withheld("lesion/et") == 0
    alone = fingerprint(with_prepared(cases[:2], DATA, tmp_path), DATA, 3)
    assert {name: alone.withheld(name) for name in alone.axes} == dict.fromkeys(alone.axes, 1.0)
    assert alone.patients == 2


def test_fingerprint_changes_by_at_most_100_points_per_patient(tmp_path: Path):
    cases = with_prepared([block(tmp_path, f"p{i}", inside=10.0**i, lesion=i) for i in range(5)], DATA, tmp_path)
    all_patients, without = fingerprint(cases, DATA, 1), fingerprint(cases[:-1], DATA, 1)
    for name in all_patients.axes:
        changed = all_patients.points[name] - without.points[name]
        assert changed.min() >= 0
        assert changed.sum() == 100


def test_fingerprint_of_phantoms_round_trips(cohort: Cohort, debug_config: RunConfig, store: Path):
    cases = with_prepared([case for case in cohort.cases if case.mask is not None], debug_config.data, store)
    found = fingerprint(cases, debug_config.data, 5)
    assert found.patients == len({case.patient for case, _ in cases}) >= 5
    read = Fingerprint.from_arrays(found.points, axes(debug_config.data))
    assert read.disclosed("in_plane").max() == 100 * found.patients  # all at 6 mm
    for channel in debug_config.data.modalities:
        seen = read.disclosed(f"seen/{channel}")
        middle = np.searchsorted(np.cumsum(seen), seen.sum() / 2)
        assert abs(read.axes[f"seen/{channel}"].scale.centres[middle - 1]) < 0.5  # medians are normalised to 0
