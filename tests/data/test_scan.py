import shutil
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image

from ganseg_dist.config import DataConfig
from ganseg_dist.data.checks.case_checks import check_case
from ganseg_dist.data.cohort import Case, Source
from ganseg_dist.data.preprocess import prepare_scan
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.scan import Scan, load_scan, load_volume
from ganseg_dist.errors import DataError
from tests.data.cohorts import AFFINE, reorient_file, save, voxels, write_manifest

SFORM_CODE, SROW, VOX_OFFSET = 254, 280, 108
"""Byte offsets in a NIfTI-1 header."""


@pytest.fixture(scope="session")
def good_folder(tmp_path_factory):
    return write_manifest(tmp_path_factory.mktemp("good"), ["ada"]).parent


@pytest.fixture
def folder(good_folder, tmp_path):
    """A cohort of one case to damage."""
    return shutil.copytree(good_folder, tmp_path / "cohort")


def only_case(folder: Path) -> Case:
    (case,) = read_cohort(folder).cases
    return case


def load_error(case: Case, **how) -> str:
    """The message of load_scan, which check_case reports for the same file too."""
    with pytest.raises(DataError) as caught:
        load_scan(case, **how)
    message = str(caught.value)
    assert "\n" not in message
    assert message in {f"{finding.file}: {finding.problem}; {finding.remedy}" for finding in check_case(case).findings}
    return message


def moved(affine):
    affine = affine.copy()
    affine[0, 3] += 6.0
    return affine


def flipped(affine):
    return affine @ np.diag([-1.0, 1, 1, 1])


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_load_scan_rejects_non_finite_voxel(folder, value):
    file = folder / "ada" / "t2.nii.gz"
    image = voxels(file).astype(np.float32)
    image[20, 20, 10] = value
    save(file, image)
    case = only_case(folder)
    assert load_error(case) == (
        f"{file}: t2 has 1 voxels that are NaN or infinite; export it again or leave the case out"
    )
    assert load_scan(case, ("t1", "flair")).image.shape[0] == 2, "the other modalities are valid"


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_load_scan_rejects_float64_value_beyond_float32(folder):
    file = folder / "ada" / "t2.nii.gz"
    image = voxels(file).astype(np.float64)
    image[20, 20, 10] = 1e300
    save(file, image)
    assert load_error(only_case(folder)).startswith(f"{file}: t2 has 1 voxels that are NaN or infinite; ")


@pytest.mark.parametrize("value", [3e38, -2e15])
def test_load_scan_rejects_intensity_beyond_1e15(folder, value):
    file = folder / "ada" / "t2.nii.gz"
    image = voxels(file).astype(np.float32)
    image[20, 20, 10] = value
    save(file, image)
    message = load_error(only_case(folder))
    assert message.startswith(f"{file}: t2 goes from ")
    assert message.endswith(", beyond 1e+15; scale its intensities down or leave the case out")


@pytest.mark.parametrize("change", [moved, flipped])
@pytest.mark.parametrize("name", ["t1.nii.gz", "flair.nii.gz", "lesion.nii.gz"])
def test_load_scan_rejects_file_with_other_affine(folder, name, change):
    file = folder / "ada" / name
    save(file, voxels(file), change(AFFINE))
    case = only_case(folder)
    message = load_error(case)
    assert message.startswith(f"{file}: affine places it up to ")
    assert message.endswith(" mm from the other files; resample the case's files to one grid")
    if name == "lesion.nii.gz":
        assert load_scan(case, with_mask=False).labels is None


@pytest.mark.parametrize("name", ["t1.nii.gz", "flair.nii.gz", "lesion.nii.gz"])
def test_load_scan_reorients_file_with_other_axes(folder, name):
    case = only_case(folder)
    wanted = load_scan(case)
    reorient_file(folder / "ada" / name)
    got = load_scan(case, ("flair", "t1", "t1ce", "t2"))
    assert check_case(case).findings == ()
    if name == "flair.nii.gz":  # the first of them, on whose grid the case then is
        assert got.grid.shape == (32, 40, 48)
    expected = Scan(("flair", "t1", "t1ce", "t2"), wanted.image[[3, 0, 1, 2]], wanted.labels, wanted.grid)
    for one, other in zip(prepared_arrays(got), prepared_arrays(expected), strict=True):
        assert np.array_equal(one, other)


def prepared_arrays(scan: Scan) -> tuple[np.ndarray, np.ndarray]:
    prepared = prepare_scan(scan, DataConfig(size=32, spacing_mm=6.0), ("wt",))
    return prepared.image, prepared.masks


@pytest.mark.parametrize("name", ["t1.nii.gz", "lesion.nii.gz"])
def test_load_scan_rejects_file_without_orientation_beside_others(folder, name):
    file = folder / "ada" / name
    image = nib.Nifti1Image(voxels(file), None)
    image.header["pixdim"][1:4] = 4.0
    nib.save(image, file)
    assert load_error(only_case(folder)) == (
        f"{file}: has neither sform nor qform, so it has no place among the other files; "
        "copy both from another file if its voxels lie on theirs, or export it again"
    )


@pytest.mark.parametrize("name", ["t1.nii.gz", "lesion.nii.gz"])
def test_load_scan_rejects_other_shape(folder, name):
    file = folder / "ada" / name
    save(file, voxels(file)[:, :-1])
    message = load_error(only_case(folder))
    assert message.startswith(f"{file}: shape (40, 47, 32) differs from the other files' (40, 48, 32); resample")


def test_load_scan_accepts_affine_rounding(folder):
    file = folder / "ada" / "t2.nii.gz"
    save(file, voxels(file), AFFINE + np.diag([1e-3, 0, 0, 0]))
    assert load_scan(only_case(folder)).image.shape == (4, 40, 48, 32)


def test_load_scan_rejects_unknown_labels(folder):
    file = folder / "ada" / "lesion.nii.gz"
    save(file, 2 * voxels(file))
    assert load_error(only_case(folder)).startswith(f"{file}: unknown label values 2; known are 0, 1; recode the mask")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("factor", [1.0000001, 0.9995, 1.0002])
def test_load_scan_rounds_mask_values_near_integers(folder, dtype, factor):
    file = folder / "ada" / "lesion.nii.gz"
    truth = voxels(file)
    save(file, (truth * factor + 1e-6).astype(dtype))
    case = only_case(folder)
    np.testing.assert_array_equal(load_scan(case).labels, truth)
    assert check_case(case).findings == ()


def test_load_scan_rounds_scaled_mask(folder):
    file = folder / "ada" / "lesion.nii.gz"
    truth = voxels(file)
    image = nib.Nifti1Image((truth * 3).astype(np.int16), AFFINE)
    image.header.set_slope_inter(1 / 3, 0)
    nib.save(image, file)
    assert nib.load(file).get_fdata().max() != 1, "the slope is a rounded third"
    np.testing.assert_array_equal(load_scan(only_case(folder)).labels, truth)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda mask: mask * 1.0015, "the mask has values that are no whole numbers, 1.0015; round or recode it"),
        (
            lambda mask: np.where(mask > 0, np.linspace(0.05, 0.95, mask.size).reshape(mask.shape), 0),
            "holds probabilities of 0.",
        ),
        (lambda mask: np.where(mask > 0, np.nan, 0), "the mask has "),
    ],
    ids=["fraction", "probabilities", "nan"],
)
def test_load_scan_rejects_fractional_mask_values(folder, change, problem):
    file = folder / "ada" / "lesion.nii.gz"
    save(file, change(voxels(file).astype(np.float64)).astype(np.float32))
    assert load_error(only_case(folder)).startswith(f"{file}: {problem}")


def case_of_file(file: Path, channel: int | None = None) -> Case:
    return Case("a", "a", "s", {"t1": Source((file,), channel)})


def nifti_bytes(file: Path) -> bytearray:
    save(file, np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    return bytearray(file.read_bytes())


@pytest.mark.parametrize(
    "rows", [np.zeros((3, 4)), np.full((3, 4), np.nan), np.diag([1.0, 1, 0, 1])[:3]], ids=["zero", "nan", "flat"]
)
def test_load_scan_rejects_singular_affine(tmp_path, rows):
    file = tmp_path / "a.nii"
    content = nifti_bytes(file)
    struct.pack_into("<h", content, SFORM_CODE, 1)
    content[SROW : SROW + 48] = rows.astype("<f4").tobytes()
    file.write_bytes(content)
    assert load_error(case_of_file(file)).startswith(f"{file}: affine is zero, NaN or singular")


def write_rgb_voxels(file):
    rgb = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, np.eye(4)), file)


def write_complex_voxels(file):
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.complex64), np.eye(4)), file)


def write_infinite_offset(file):
    content = nifti_bytes(file)
    struct.pack_into("<f", content, VOX_OFFSET, np.inf)
    file.write_bytes(content)


def write_damaged_deflate(file):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    tifffile.imwrite(file, noise, compression="zlib")
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    file.write_bytes(content)


def write_truncated_deflate(file):
    tifffile.imwrite(file, np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8), compression="zlib")
    file.write_bytes(file.read_bytes()[:-1000])


def write_unknown_png_chunk(file):
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    Image.fromarray(noise).save(file)
    content = bytearray(file.read_bytes())
    second = content.index(b"IDAT", content.index(b"IDAT") + 4)
    content[second : second + 4] = bytes(4)
    file.write_bytes(content)


def write_decompression_bomb(file):
    """A header alone that promises 400 million pixels."""
    file.write_bytes(struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, 20000, 20000, 1, 24, 0, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.nii", write_rgb_voxels),
        ("a.nii", write_complex_voxels),
        ("a.nii", write_infinite_offset),
        ("a.tif", write_damaged_deflate),
        ("a.tif", write_truncated_deflate),
        ("a.png", write_unknown_png_chunk),
        ("a.bmp", write_decompression_bomb),
    ],
)
def test_load_scan_rejects_undecodable_file(tmp_path, name, write):
    file = tmp_path / name
    write(file)
    message = load_error(case_of_file(file))
    assert message.startswith(f"{file}: is not a readable {'NIfTI file' if name == 'a.nii' else 'picture'} (")
    assert message.endswith("); copy or export it again")


def test_load_scan_reports_lack_of_memory(tmp_path, monkeypatch):
    def too_much(*_):
        raise MemoryError("Unable to allocate 59.6 TiB")

    file = tmp_path / "a.nii"
    nifti_bytes(file)
    monkeypatch.setattr("nibabel.arrayproxy.ArrayProxy.__array__", too_much)
    assert load_error(case_of_file(file)).startswith(f"{file}: needs more memory than this machine has;")


def test_load_scan_rejects_image_without_voxels(tmp_path):
    file = save(tmp_path / "a.nii", np.zeros((0, 4, 4), np.int16))
    assert load_error(case_of_file(file)).startswith(f"{file}: has no voxels;")


def test_load_volume_returns_contiguous_float32(tmp_path):
    stored = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    volume, grid = load_volume(Source((save(tmp_path / "a.nii.gz", stored),)))
    np.testing.assert_array_equal(volume, stored)
    assert (volume.dtype, volume.flags["C_CONTIGUOUS"], grid.shape) == (np.float32, True, (3, 4, 5))
