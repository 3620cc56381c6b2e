"""Images with the geometry of a source, bit for bit, and nothing else of its header."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension

from ganseg_dist.data.cohort import Source
from ganseg_dist.data.nifti import TRANSFORMS, image_like
from ganseg_dist.data.scan import load_volume
from ganseg_dist.errors import DataError

SHAPE = (5, 6, 4)
AFFINE = np.array([[-1.9, 0.3, 0.0, 90.1], [0.3, 1.9, 0.1, -120.7], [0.0, -0.2, 3.3, -70.3], [0, 0, 0, 1]])
SECRET = b"DOE^JANE"
TEXTS = ("data_type", "db_name", "descrip", "aux_file", "intent_name")


def both_forms(header):
    """Both transforms, of different codes."""
    header.set_qform(AFFINE, 1)
    header.set_sform(AFFINE, 2)


def sform_only(header):
    header.set_qform(None, 0)
    header.set_sform(AFFINE, 4)


def qform_only(header):
    header.set_sform(None, 0)
    header.set_qform(AFFINE, 3)


def no_forms(header):
    header.set_qform(None, 0)
    header.set_sform(None, 0)
    header["pixdim"][1:4] = (2, 2, 5)


def unit_scale_sform(header):
    header.set_qform(AFFINE, 1)
    header.set_sform(np.diag([-1.0, -1.0, 1.0, 1.0]), 2)


def in_metres(header):
    both_forms(header)
    header["pixdim"][1:4] /= 1000
    for row in ("srow_x", "srow_y", "srow_z"):
        header[row] /= 1000
    header["xyzt_units"] = 1 | 16  # metres and milliseconds


def left_handed(header):
    header.set_sform(None, 0)
    header.set_qform(AFFINE @ np.diag([1, -1, 1, 1]), 1)


HEADERS = (both_forms, sform_only, qform_only, no_forms, unit_scale_sform, in_metres, left_handed)


def write_source(file, lay, *, kind=nib.Nifti1Image, shape=SHAPE, order="<"):
    """A file whose header is full of fields other than geometry."""
    voxels = np.random.default_rng(0).integers(0, 900, shape).astype(np.int16)
    image = kind(voxels, None, kind.header_class(endianness=order))
    image.set_data_dtype(np.int16)
    header = image.header
    if len(shape) > 3:
        header["pixdim"][4:6] = (2.5, 7)
    lay(header)
    for field in TEXTS:
        if field in header:
            header[field] = SECRET[: header[field].dtype.itemsize]
    header["intent_code"], header["intent_p1"] = 1001, 19600101
    header["cal_min"], header["cal_max"], header["toffset"], header["slice_duration"] = 7, 70, 19.6, 0.1
    header["slice_code"], header["slice_end"], header["dim_info"] = 3, 2, 57
    header.extensions.append(Nifti1Extension("comment", SECRET))
    nib.save(image, file)
    return file


def write_like(file, target, *, is_mask=True):
    mask = np.random.default_rng(1).integers(0, 4, SHAPE).astype(np.uint8 if is_mask else np.float32)
    nib.save(image_like(file, mask, is_mask=is_mask), target)
    return mask


def raw_header(file):
    kind = type(nib.load(file))
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
        return kind.header_class.from_fileobj(stream, check=False)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 3), (*SHAPE, 1, 2)])
@pytest.mark.parametrize("lay", HEADERS)
def test_image_like_copies_geometry_exactly(tmp_path, lay, shape, kind):
    file = write_source(tmp_path / "source.nii", lay, kind=kind, shape=shape)
    mask = write_like(file, tmp_path / "mask.nii.gz")
    loaded, like = nib.load(tmp_path / "mask.nii.gz"), nib.load(file)
    assert type(loaded) is kind
    assert np.array_equal(np.asarray(loaded.dataobj), mask)
    assert np.array_equal(loaded.affine, like.affine)
    written_header, source_header = raw_header(tmp_path / "mask.nii.gz"), raw_header(file)
    for field in TRANSFORMS:
        assert written_header[field] == pytest.approx(source_header[field], abs=0, nan_ok=True) or np.array_equal(
            written_header[field], source_header[field]
        ), field
    assert np.array_equal(written_header["pixdim"][:4], source_header["pixdim"][:4])
    assert loaded.header.get_xyzt_units()[0] == like.header.get_xyzt_units()[0]
    ours_grid, their_grid = (
        load_volume(Source((one,), 0 if one == file and len(shape) > 3 else None))[1]
        for one in (tmp_path / "mask.nii.gz", file)
    )
    assert np.array_equal(ours_grid.affine, their_grid.affine)
    assert ours_grid.notes == their_grid.notes


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("is_mask", [True, False])
def test_image_like_copies_geometry_only(tmp_path, kind, is_mask):
    file = write_source(tmp_path / "source.nii.gz", in_metres, kind=kind, shape=(*SHAPE, 2))
    write_like(file, tmp_path / "mask.nii.gz", is_mask=is_mask)
    header, fresh = raw_header(tmp_path / "mask.nii.gz"), kind.header_class()
    geometry = (*TRANSFORMS, "pixdim", "dim", "datatype", "bitpix", "vox_offset", "xyzt_units", "magic")
    for field in set(fresh.keys()) - {*geometry, "intent_code", "scl_slope", "scl_inter"}:
        assert np.array_equal(header[field], fresh[field]), field
    assert header["intent_code"] == (1002 if is_mask else 0)
    assert header["xyzt_units"] == 1, "metres, and no unit of time"
    assert np.array_equal(header["pixdim"][4:], np.ones(4))
    assert header.get_slope_inter() == (1.0, 0.0)
    assert list(header.extensions) == []
    assert SECRET not in gzip.decompress((tmp_path / "mask.nii.gz").read_bytes())
    assert b"source" not in (tmp_path / "mask.nii.gz").read_bytes()


def test_image_like_reads_big_endian_source(tmp_path):
    file = write_source(tmp_path / "source.nii", both_forms, order=">")
    write_like(file, tmp_path / "mask.nii")
    assert np.array_equal(nib.load(tmp_path / "mask.nii").affine, nib.load(file).affine)


def test_image_like_reports_missing_or_damaged_source(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"no image")
    for name in ("a.nii", "b.nii"):
        with pytest.raises(DataError, match=rf"{name}: "):
            image_like(tmp_path / name, np.zeros(SHAPE, np.uint8), is_mask=True)
