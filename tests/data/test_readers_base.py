import gzip

import nibabel as nib
import numpy as np
import pytest

from ganseg_dist.data.readers.shared.base import by_stem, one_of, same_image
from ganseg_dist.errors import DataError
from tests.data.cohorts import AFFINE, save, save_picture, slice_of_head

VOXELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


def test_one_of_accepts_compressed_copy(tmp_path):
    files = [save(tmp_path / name, VOXELS) for name in ("a.nii", "a.nii.gz")]
    nib.save(nib.Nifti2Image(VOXELS.astype(np.float32), AFFINE), tmp_path / "b.nii")
    assert one_of([*files, tmp_path / "b.nii"], "a") == files[0]
    assert by_stem(files, "the image") == {"a": files[0]}


@pytest.mark.parametrize("change", ["voxel", "place", "size", "damage"])
def test_by_stem_rejects_differing_images_of_one_stem(tmp_path, change):
    first = save(tmp_path / "a.nii", VOXELS)
    voxels, affine = VOXELS.copy(), AFFINE.copy()
    if change == "voxel":
        voxels[1, 2, 3] += 1
    if change == "place":
        affine[0, 3] += 1
    second = save(tmp_path / "a.nii.gz", voxels[..., :-1] if change == "size" else voxels, affine)
    if change == "damage":
        second.write_bytes(gzip.compress(b"no header"))
    with pytest.raises(DataError) as caught:
        by_stem([first, second], "the image")
    assert str(caught.value) == (
        f"{first}: could be the image a, and so could a.nii.gz, which differs; keep or rename one"
    )


def test_same_image_treats_nan_as_equal(tmp_path):
    voxels = np.where(VOXELS > 50, np.nan, VOXELS).astype(np.float32)
    assert same_image(save(tmp_path / "a.nii", voxels), save(tmp_path / "a.nii.gz", voxels))


def test_same_image_compares_pictures_by_pixels(tmp_path):
    files = {name: save_picture(tmp_path / name, slice_of_head(number)) for name, number in
             (("a.png", 0), ("a.tif", 0), ("a.bmp", 1))}  # fmt: skip
    assert same_image(files["a.png"], files["a.tif"])
    assert not same_image(files["a.png"], files["a.bmp"])
    assert not same_image(files["a.png"], save(tmp_path / "a.nii", VOXELS))
    assert not same_image(files["a.png"], tmp_path / "nowhere.png")
