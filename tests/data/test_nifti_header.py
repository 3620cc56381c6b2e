"""Which affine is chosen from sform, qform and pixdim, and what is noted of the others."""

import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ganseg_dist.data.checks.case_checks import check_case
from ganseg_dist.data.cohort import Case, Source
from ganseg_dist.data.nifti import load_nifti
from ganseg_dist.data.scan import load_scan
from ganseg_dist.errors import DataError
from ganseg_dist.metrics.surface import hd95

SHAPE = (12, 13, 14)
FOUR_MM = np.diag([-4.0, -4.0, 4.0, 1.0])
LOST_SCALE = np.diag([-1.0, -1.0, 1.0, 1.0])
QUATERN_B = 256
"""Byte offset in a NIfTI-1 header."""
UNITS = {"mm": 2, "metres": 1, "microns": 3, "nothing": 0}


def write_nifti(
    file: Path,
    *,
    sform: np.ndarray | None = None,
    qform: np.ndarray | None = None,
    pixdim: tuple[float, ...] | None = None,
    units: str = "mm",
    shape: tuple[int, int, int] = SHAPE,
    voxels: np.ndarray | None = None,
) -> Path:
    """A file whose header holds just this; what is not given is not set."""
    image = nib.Nifti1Image(
        np.arange(np.prod(shape)).reshape(shape).astype(np.int16) if voxels is None else voxels, None
    )
    header = image.header
    header.set_qform(qform, None if qform is None else 1)
    if sform is not None:
        header["sform_code"] = 2
        for row, values in zip(("srow_x", "srow_y", "srow_z"), sform, strict=False):
            header[row] = values
    if pixdim is not None:
        header["pixdim"][1:4] = pixdim
    header["xyzt_units"] = UNITS[units]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(image.to_bytes())
    return file


def notes_of(grid) -> list[str]:
    return [f"{note.check}: {note.problem}; {note.remedy}" for note in grid.notes]


def moved_affine(affine: np.ndarray, mm: float) -> np.ndarray:
    return nib.affines.from_matvec(affine[:3, :3], affine[:3, 3] + (mm, 0, 0))


@pytest.mark.parametrize("forms", [{"qform": FOUR_MM}, {"pixdim": (4, 4, 4)}], ids=["qform", "pixdim alone"])
def test_load_nifti_prefers_pixdim_over_unit_scale_sform(tmp_path, forms):
    """As in ACDC's headers."""
    _, grid = load_nifti(write_nifti(tmp_path / "a.nii", sform=LOST_SCALE, **forms), None)
    assert grid.spacing_mm == (4.0, 4.0, 4.0)
    assert nib.aff2axcodes(grid.affine) == ("L", "P", "S")
    assert notes_of(grid) == ["spacing: sform gives 1 x 1 x 1 mm, pixdim 4 x 4 x 4; pixdim is used"]


def test_hd95_uses_pixdim_of_unit_scale_sform(tmp_path):
    _, grid = load_nifti(write_nifti(tmp_path / "a.nii", sform=LOST_SCALE, qform=FOUR_MM), None)
    one, other = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    one[3, 5, 5] = other[6, 5, 5] = True
    assert hd95(one, other, grid.spacing_mm) == 12.0


def test_load_nifti_prefers_scaled_sform_over_pixdim(tmp_path):
    file = write_nifti(tmp_path / "a.nii", sform=np.diag([2.0, 2, 3, 1]), qform=np.diag([4.0, 4, 4, 1]))
    _, grid = load_nifti(file, None)
    assert grid.spacing_mm == (2.0, 2.0, 3.0)
    assert notes_of(grid) == ["spacing: sform gives 2 x 2 x 3 mm, pixdim 4 x 4 x 4; sform is used"]


def test_load_nifti_accepts_pixdim_with_fewer_digits(tmp_path):
    _, grid = load_nifti(
        write_nifti(tmp_path / "a.nii", sform=np.diag([0.859375, 0.859375, 5, 1]), pixdim=(0.8594, 0.8594, 5)), None
    )
    assert (grid.spacing_mm, grid.notes) == ((0.859375, 0.859375, 5.0), ())


def test_load_nifti_ignores_thickness_of_single_plane(tmp_path):
    file = write_nifti(tmp_path / "a.nii", sform=np.diag([2.0, 2, 5, 1]), pixdim=(2, 2, 0), shape=(12, 13, 1))
    _, grid = load_nifti(file, None)
    assert (grid.spacing_mm, grid.notes) == ((2.0, 2.0, 5.0), ())


@pytest.mark.parametrize(
    ("qform", "problem"),
    [
        (moved_affine(FOUR_MM, 2.2), "sform and qform place it up to 2.2 mm apart"),
        (moved_affine(FOUR_MM, 96), "sform and qform place it up to 96.0 mm apart"),
        (FOUR_MM @ np.diag([-1, 1, 1, 1]), "sform and qform place it up to 88.0 mm apart, with axes to LPS and RPS"),
    ],
)
def test_load_nifti_notes_qform_at_other_place_or_orientation(tmp_path, qform, problem):
    _, grid = load_nifti(write_nifti(tmp_path / "a.nii", sform=FOUR_MM, qform=qform), None)
    assert np.array_equal(grid.affine, FOUR_MM)
    assert notes_of(grid) == [f"qform: {problem}; sform is used"]


def test_load_nifti_accepts_qform_within_half_a_voxel(tmp_path):
    _, grid = load_nifti(write_nifti(tmp_path / "a.nii", sform=FOUR_MM, qform=moved_affine(FOUR_MM, 1.9)), None)
    assert grid.notes == ()


def test_load_nifti_accepts_qform_near_half_turn(tmp_path):
    """float32 quaternions lose a thousandth of a turn there, which is more than half of a small voxel."""
    tilt = np.radians(0.03)
    turn = np.diag([1.0, -1, -1]) @ np.array(
        [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
    )
    affine = nib.affines.from_matvec(0.3 * turn, (0, 0, 0))
    volume = np.arange(800 * 800, dtype=np.int16).reshape(800, 1, 800)
    _, grid = load_nifti(write_nifti(tmp_path / "a.nii", sform=affine, qform=affine, voxels=volume), None)
    assert grid.notes == ()


@pytest.mark.parametrize("sform", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.diag([4.0, 4, 0, 1])])
def test_load_nifti_uses_qform_when_sform_is_unusable(tmp_path, sform):
    _, grid = load_nifti(write_nifti(tmp_path / "a.nii", sform=sform, qform=FOUR_MM), None)
    assert np.array_equal(grid.affine, FOUR_MM)
    assert notes_of(grid) == ["sform: sform is zero, NaN or singular; qform is used"]


@pytest.mark.parametrize("sform", [FOUR_MM, None], ids=["beside an sform", "alone"])
def test_load_nifti_rejects_unusable_qform_without_sform(tmp_path, sform):
    file = write_nifti(tmp_path / "a.nii", sform=sform, qform=FOUR_MM)
    content = bytearray(file.read_bytes())
    content[QUATERN_B : QUATERN_B + 4] = struct.pack("<f", 3.0)  # no part of a unit quaternion is longer than 1
    file.write_bytes(content)
    if sform is not None:
        assert np.array_equal(load_nifti(file, None)[1].affine, FOUR_MM)
        return
    with pytest.raises(DataError, match=r"a\.nii: is not a readable NIfTI file \(w2 should be positive"):
        load_nifti(file, None)


def test_load_nifti_notes_missing_orientation(tmp_path):
    _, grid = load_nifti(write_nifti(tmp_path / "a.nii", pixdim=(1, 2, 3)), None)
    assert (grid.spacing_mm, grid.sides_known) == ((1.0, 2.0, 3.0), False)
    assert notes_of(grid) == [
        "no-orientation: neither sform nor qform is set, so the patient's left, front and top are not known; "
        "export it again with its orientation"
    ]
    _, grid = load_nifti(write_nifti(tmp_path / "b.nii", sform=FOUR_MM, pixdim=(4, 4, 4)), None)
    assert grid.sides_known


@pytest.mark.parametrize("size", [0.0, -4.0, np.nan, np.inf])
@pytest.mark.parametrize("forms", [{"sform": FOUR_MM}, {}], ids=["sform", "nothing"])
def test_load_nifti_rejects_impossible_pixdim(tmp_path, size, forms, caplog, capfd):
    file = write_nifti(tmp_path / "a.nii", pixdim=(4, size, 4), **forms)
    with pytest.raises(DataError) as caught:
        load_nifti(file, None)
    expected = f"{file}: pixdim gives voxels of 4 x {size:g} x 4; correct it, or export the file again"
    assert str(caught.value) == expected
    assert capfd.readouterr().err == "", "nibabel prints nothing"


@pytest.mark.parametrize("forms", ["sform", "qform", "both"])
@pytest.mark.parametrize(("units", "factor"), [("metres", 1e-3), ("microns", 1e3), ("mm", 1), ("nothing", 1)])
def test_load_nifti_converts_length_units_to_mm(tmp_path, units, factor, forms):
    affine = nib.affines.from_matvec(np.diag([0.7, 0.9765625, 3.0]), (10, 20, 30))
    stored = np.vstack([affine[:3] * factor, affine[3:]])
    given = {"sform": stored, "qform": stored} if forms == "both" else {forms: stored}
    file = write_nifti(tmp_path / "a.nii", pixdim=tuple(np.diag(stored)[:3]), units=units, **given)
    _, grid = load_nifti(file, None)
    assert (grid.spacing_mm, grid.notes) == ((0.7, 0.9765625, 3.0), ())
    np.testing.assert_allclose(grid.affine, affine, rtol=1e-6)


def test_load_nifti_notes_spacing_conflict_in_mm(tmp_path):
    sform = np.diag([0.002, 0.002, 0.002, 1])
    _, grid = load_nifti(write_nifti(tmp_path / "a.nii", sform=sform, pixdim=(0.004,) * 3, units="metres"), None)
    assert grid.spacing_mm == (2.0, 2.0, 2.0)
    assert notes_of(grid) == ["spacing: sform gives 2 x 2 x 2 mm, pixdim 4 x 4 x 4; sform is used"]


@pytest.mark.parametrize(
    ("size", "units", "in_mm", "likely"),
    [
        (4, "metres", "4000", ", or set xyzt_units to mm if that is their unit"),
        (4, "microns", "0.004", ", or set xyzt_units to mm if that is their unit"),
        (0.004, "mm", "0.004", ", or set xyzt_units to metres if that is their unit"),
        (4000, "nothing", "4000", ", or set xyzt_units to microns if that is their unit"),
        (1e9, "mm", "1e+09", ""),
    ],
)
def test_load_nifti_rejects_implausible_spacing_with_its_unit(tmp_path, size, units, in_mm, likely):
    file = write_nifti(tmp_path / "a.nii", sform=np.diag([size, size, size, 1.0]), pixdim=(size,) * 3, units=units)
    with pytest.raises(DataError) as caught:
        load_nifti(file, None)
    assert str(caught.value) == (
        f"{file}: voxels are {in_mm} x {in_mm} x {in_mm} mm (xyzt_units gives {units}), beyond 0.01 to 100; "
        f"correct the sizes{likely}"
    )


@pytest.mark.parametrize("size", [0.02, 90.0])
def test_load_nifti_accepts_extreme_but_plausible_spacing(tmp_path, size):
    _, grid = load_nifti(
        write_nifti(tmp_path / "a.nii", sform=np.diag([size, size, size, 1.0]), pixdim=(size,) * 3), None
    )
    assert grid.spacing_mm == (size, size, size)


def test_load_scan_and_check_case_report_grid_note_once(tmp_path):
    files = {name: write_nifti(tmp_path / f"{name}.nii", sform=LOST_SCALE, qform=FOUR_MM) for name in ("t1", "flair")}
    mask = write_nifti(tmp_path / "mask.nii", sform=LOST_SCALE, qform=FOUR_MM, voxels=np.ones(SHAPE, np.uint8))
    case = Case("a", "a", "s", {name: Source((file,)) for name, file in files.items()}, Source((mask,)))
    expected = f"{files['t1']}: sform gives 1 x 1 x 1 mm, pixdim 4 x 4 x 4; pixdim is used"
    scan = load_scan(case)
    assert (scan.warnings, scan.grid.spacing_mm) == ((expected,), (4.0, 4.0, 4.0))
    (finding,) = (finding for finding in check_case(case).findings if finding.check == "spacing")
    assert finding.line() == f"warning: a: {expected}"


def test_load_scan_warns_of_mask_grid_only_with_mask(tmp_path):
    image = write_nifti(tmp_path / "t1.nii", sform=FOUR_MM, qform=FOUR_MM)
    mask = write_nifti(tmp_path / "mask.nii", sform=LOST_SCALE, qform=FOUR_MM, voxels=np.ones(SHAPE, np.uint8))
    case = Case("a", "a", "s", {"t1": Source((image,))}, Source((mask,)))
    expected = f"{mask}: sform gives 1 x 1 x 1 mm, pixdim 4 x 4 x 4; pixdim is used"
    assert load_scan(case).warnings == (expected,)
    assert load_scan(case, with_mask=False).warnings == ()
    assert f"warning: a: {expected}" in [finding.line() for finding in check_case(case).findings]
