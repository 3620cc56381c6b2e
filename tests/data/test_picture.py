"""Picture files in many formats, read as a viewer displays them."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from ganseg_dist.data.cohort import Case, Source
from ganseg_dist.data.picture import is_lossy, load_picture, orientation
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.scan import load_scan
from ganseg_dist.errors import DataError
from tests.data.cohorts import dice, save_picture, slice_of_head, tissue, write_pictures

TRUTH = np.zeros((40, 56), bool)
TRUTH[5:18, 30:50] = True
TRUTH[25:36, 8:20] = True

CORNERS = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
"""Where a viewer shows the first stored pixel, by orientation; from 5 on rows and columns change places."""


def mask_dice(root):
    return dice(load_scan(read_cohort(root).cases[0]).labels[..., 0] > 0, TRUTH)


def cohort_with_mask(root, suffix, write):
    """images/a.png and the mask that `write` makes of a path."""
    save_picture(root / "images" / "a.png", tissue(0)[0])
    file = root / "masks" / f"a{suffix}"
    file.parent.mkdir()
    write(file)
    return root


def save_oriented(file, pixels, number, **how):
    """Save the pixels as they are, with an EXIF orientation tag."""
    exif = Image.Exif()
    exif[0x0112] = number
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".tif":
        Image.fromarray(pixels).save(file, tiffinfo={0x0112: number}, **how)
    else:
        Image.fromarray(pixels).save(file, exif=exif, **how)
    return file


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize(
    ("name", "dtype", "how"),
    [
        ("a.jpg", np.uint8, {"quality": 100}),
        ("a.png", np.uint8, {}),
        ("a.png", np.uint16, {}),
        ("a.tif", np.uint8, {}),
        ("a.tif", np.uint16, {}),
        ("a.tif", np.uint8, {"compression": "tiff_lzw"}),
        ("a.tif", np.float32, {"compression": "tiff_deflate"}),
    ],
)
def test_load_picture_applies_orientation_tag(tmp_path, name, dtype, how, number):
    pixels = slice_of_head(0, (40, 56)).astype(dtype)
    pixels[:8, :8] = 255
    file = save_oriented(tmp_path / name, pixels, number, **how)
    assert orientation(file) == number
    row, column = CORNERS[number]
    loaded = {"image": load_picture(file), "mask": load_picture(file, by_value=True, is_mask=True)}
    for what, picture in loaded.items():
        flipped = picture[:: 1 if row == 0 else -1, :: 1 if column == 0 else -1]
        stored = flipped if number < 5 else flipped.T
        np.testing.assert_allclose(stored.astype(float), pixels, atol=6 if name == "a.jpg" else 0, err_msg=what)


@pytest.mark.parametrize("number", [3, 6])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_load_scan_aligns_oriented_image_with_upright_mask(tmp_path, suffix, number):
    image = np.where(TRUTH, 200, slice_of_head(0, TRUTH.shape)).astype(np.uint8)
    stored = {3: np.rot90(image, 2), 6: np.rot90(image)}[number]
    save_oriented(tmp_path / "images" / f"a{suffix}", np.ascontiguousarray(stored), number)
    save_picture(tmp_path / "masks" / "a.png", TRUTH)
    scan = load_scan(read_cohort(tmp_path).cases[0])
    np.testing.assert_array_equal(scan.image[0, ..., 0], image)
    assert dice(scan.image[0, ..., 0] == 200, scan.labels[..., 0] > 0) > 0.95


def test_load_scan_rejects_mask_of_unoriented_pixels(tmp_path):
    save_oriented(tmp_path / "images" / "a.png", slice_of_head(0, TRUTH.shape), 6)
    file = save_picture(tmp_path / "masks" / "a.png", TRUTH)
    with pytest.raises(DataError) as caught:
        load_scan(read_cohort(tmp_path).cases[0])
    assert str(caught.value).startswith(
        f"{file}: shape (40, 56, 1) differs from the other files' (56, 40, 1); turn one"
    )


def image_with_alpha(mode):
    alpha = Image.fromarray(TRUTH.astype(np.uint8) * 255)
    channels = {"RGBA": (255, 0, 0), "LA": (255,)}[mode]
    return Image.merge(mode, [*(Image.new("L", alpha.size, level) for level in channels), alpha])


def write_transparent_palette(file):
    """A palette of two reds, of which index 0 is transparent."""
    picture = Image.fromarray(TRUTH.astype(np.uint8))
    picture = Image.fromarray(np.asarray(picture), "P")
    picture.putpalette([255, 0, 0] * 2)
    picture.save(file, transparency=bytes([0, 255]))


def write_transparent_key(file):
    """White, of which (255, 255, 254) is transparent."""
    Image.fromarray(np.where(TRUTH[..., None], (255, 255, 255), (255, 255, 254)).astype(np.uint8)).save(
        file, transparency=(255, 255, 254)
    )


def write_transparent_grey_16(file):
    Image.fromarray(np.where(TRUTH, 40000, 700).astype(np.uint16)).save(file, transparency=700)


def write_soft_alpha(file):
    """An alpha that fades over the outermost pixels."""
    alpha = np.where(TRUTH, 255, 0).astype(np.uint8)
    alpha[4, 30:50] = alpha[18, 30:50] = 90
    Image.merge(
        "RGBA", [Image.fromarray(np.full_like(alpha, level)) for level in (255, 0, 0)] + [Image.fromarray(alpha)]
    ).save(file)


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        (".png", lambda file: image_with_alpha("RGBA").save(file)),
        (".png", lambda file: image_with_alpha("LA").save(file)),
        (".tif", lambda file: image_with_alpha("RGBA").save(file)),
        (".tif", lambda file: image_with_alpha("LA").save(file, compression="tiff_lzw")),
        (
            ".tif",
            lambda file: tifffile.imwrite(file, np.asarray(image_with_alpha("RGBA")), extrasamples=["assocalpha"]),
        ),
        (".png", write_transparent_palette),
        (".png", write_transparent_key),
        (".png", write_transparent_grey_16),
        (".png", write_soft_alpha),
    ],
    ids=["rgba", "la", "rgba-tif", "la-tif", "premultiplied", "palette", "key", "key-16", "soft"],
)
def test_mask_picture_is_background_where_transparent(tmp_path, suffix, write):
    assert mask_dice(cohort_with_mask(tmp_path, suffix, write)) == 1


def test_load_picture_blends_transparency_onto_black(tmp_path):
    picture, _ = tissue(0)
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    alpha[:10], alpha[10:20] = 0, 51
    loaded = load_picture(save_picture(tmp_path / "a.png", np.dstack([picture, alpha])))
    assert loaded.shape == (40, 56, 3)
    assert not loaded[:10].any()
    np.testing.assert_allclose(loaded[10:20], picture[10:20] / 5, atol=0.51)
    np.testing.assert_array_equal(loaded[20:], picture[20:])


WHITE_8, WHITE_16 = TRUTH.astype(np.uint8) * 255, TRUTH.astype(np.uint16) * 65535
RED = np.where(TRUTH[..., None], (255, 0, 0), 0).astype(np.uint8)
GREEN = np.where(TRUTH[..., None], (0, 255, 0), 0).astype(np.uint8)


def write_palette_tif(file):
    colours = np.zeros((3, 256), np.uint16)
    colours[1, 7] = 65535
    tifffile.imwrite(file, TRUTH.astype(np.uint8) * 7, photometric="palette", colormap=colours)


FORMATS = {
    "white.png": lambda file: Image.fromarray(WHITE_8).save(file),
    "half.png": lambda file: Image.fromarray(WHITE_8 // 2).save(file),
    "one.png": lambda file: Image.fromarray(WHITE_8 // 255).save(file),
    "bit.png": lambda file: Image.fromarray(TRUTH).save(file),
    "16.png": lambda file: Image.fromarray(WHITE_16).save(file),
    "green.png": lambda file: Image.fromarray(GREEN).save(file),
    "palette.png": lambda file: Image.fromarray(RED).quantize(4).save(file),
    "bit.bmp": lambda file: Image.fromarray(TRUTH).save(file),
    "lzw.tif": lambda file: Image.fromarray(WHITE_8).save(file, compression="tiff_lzw"),
    "fax.tif": lambda file: Image.fromarray(TRUTH).save(file, compression="group4"),
    "inverted.tif": lambda file: tifffile.imwrite(file, 255 - WHITE_8, photometric="miniswhite"),
    "inverted-bit.tif": lambda file: tifffile.imwrite(file, ~TRUTH, photometric="miniswhite"),
    "inverted-16.tif": lambda file: tifffile.imwrite(file, 65535 - WHITE_16, photometric="miniswhite"),
    "planes.tif": lambda file: tifffile.imwrite(
        file, np.moveaxis(RED, -1, 0), photometric="rgb", planarconfig="separate"
    ),
    "rgb-16.tif": lambda file: tifffile.imwrite(file, RED.astype(np.uint16) * 257, photometric="rgb"),
    "palette.tif": write_palette_tif,
    "float.tif": lambda file: tifffile.imwrite(file, TRUTH.astype(np.float32) * 1.0000001),
    "half-float.tif": lambda file: tifffile.imwrite(file, TRUTH.astype(np.float16)),
    "double.tif": lambda file: tifffile.imwrite(file, TRUTH * 0.9999 + 1e-9),
    "signed.tif": lambda file: tifffile.imwrite(file, TRUTH.astype(np.int8)),
    "32.tif": lambda file: tifffile.imwrite(file, TRUTH.astype(np.uint32) * 4_000_000_000),
}


@pytest.mark.parametrize("name", FORMATS)
def test_mask_picture_is_read_alike_in_each_format(tmp_path, name):
    kind, suffix = name.split(".")
    assert mask_dice(cohort_with_mask(tmp_path, f".{suffix}", FORMATS[name])) == 1, kind


@pytest.mark.parametrize("name", [name for name in FORMATS if name.partition(".")[0] not in ("half", "32", "palette")])
def test_manifest_mask_is_read_alike_in_each_format(tmp_path, name):
    file = tmp_path / name
    FORMATS[name](file)
    image = save_picture(tmp_path / "image.png", slice_of_head(0, TRUTH.shape))
    scan = load_scan(Case("a", "a", "s", {"grey": Source((image,))}, Source((file,))))
    assert dice(scan.labels[..., 0] > 0, TRUTH) == 1


def test_manifest_mask_palette_of_colours_gives_indices(tmp_path):
    file, image = tmp_path / "a.png", save_picture(tmp_path / "image.png", slice_of_head(0, TRUTH.shape))
    numbers = Image.fromarray(TRUTH.astype(np.uint8), "P")
    numbers.putpalette([0, 0, 0, 128, 0, 0])
    numbers.save(file)
    scan = load_scan(Case("a", "a", "s", {"grey": Source((image,))}, Source((file,))))
    assert dice(scan.labels[..., 0] > 0, TRUTH) == 1
    numbers.putpalette([255, 255, 255, 0, 0, 0])
    numbers.save(file)
    scan = load_scan(Case("a", "a", "s", {"grey": Source((image,))}, Source((file,))))
    assert dice(scan.labels[..., 0] > 0, ~TRUTH) == 1, "a palette of greys stands for its greys"


@pytest.mark.parametrize("value", [64, 90, 127, 128, 255])
@pytest.mark.parametrize("quality", [75, 95])
def test_jpeg_mask_is_thresholded_at_half_its_maximum(tmp_path, value, quality):
    def write(file):
        Image.fromarray((TRUTH * value).astype(np.uint8)).save(file, quality=quality)

    assert mask_dice(cohort_with_mask(tmp_path, ".jpg", write)) >= 0.97


@pytest.mark.parametrize("value", [2, 30])
def test_jpeg_mask_that_is_nearly_black_is_empty(tmp_path, value):
    root = cohort_with_mask(tmp_path, ".jpg", lambda file: Image.fromarray((TRUTH * value).astype(np.uint8)).save(file))
    assert not load_scan(read_cohort(root).cases[0]).labels.any()


def test_jpeg_stack_slices_are_thresholded_separately(tmp_path):
    planes = [TRUTH * 127, np.where(np.arange(56) % 9, 0, 20) * np.ones((40, 1)), TRUTH * 255]
    masks = [save_picture(tmp_path / f"{z}_mask.jpg", plane.astype(np.uint8)) for z, plane in enumerate(planes)]
    images = [save_picture(tmp_path / f"{z}.png", slice_of_head(z, TRUTH.shape)) for z in range(3)]
    scan = load_scan(Case("a", "a", "s", {"grey": Source(tuple(images))}, Source(tuple(masks))))
    assert [dice(scan.labels[..., z] > 0, TRUTH) > 0.97 for z in range(3)] == [True, False, True]
    assert not scan.labels[..., 1].any()


def test_is_lossy_recognises_jpeg_by_content(tmp_path):
    def write(file):
        Image.fromarray(WHITE_8).save(file, format="JPEG", quality=60)

    root = cohort_with_mask(tmp_path, ".png", write)
    assert is_lossy(root / "masks" / "a.png")
    assert mask_dice(root) >= 0.97
    file = tmp_path / "b.tif"
    Image.fromarray(WHITE_8).save(file, compression="jpeg")
    assert (is_lossy(file), is_lossy(save_picture(tmp_path / "c.png", WHITE_8))) == (True, False)


@pytest.mark.parametrize("darker", [40, 85, 127, 128])
def test_jpeg_mask_of_two_levels_is_rejected_without_labels(tmp_path, darker):
    def write(file):
        two = np.zeros(TRUTH.shape, np.uint8)
        two[5:18, 30:50], two[25:36, 8:20] = darker, 255
        Image.fromarray(two).save(file, quality=90)

    root = cohort_with_mask(tmp_path, ".jpg", write)
    with pytest.raises(DataError) as caught:
        load_scan(read_cohort(root).cases[0])
    message = str(caught.value)
    assert message.startswith(f"{root / 'masks' / 'a.jpg'}: is a JPEG mask of several grey levels, such as ")
    assert (
        message.endswith(" beside 255; save it as PNG, or name its levels in masks/labels.json")
        or " beside 25" in message
    )
    (root / "masks" / "labels.json").write_text(f'{{"rim": {darker}, "core": 255}}')
    assert mask_dice(root) >= 0.95


def test_jpeg_masks_of_monusac_have_one_level(shared_data):
    for case in read_cohort(shared_data / "monusac").cases:
        assert load_scan(case).labels.any()


def test_load_picture_rejects_multipage_tiff(tmp_path):
    root = write_pictures(tmp_path, ["a", "b"], suffix=".tif")
    file = root / "images" / "a.tif"
    tifffile.imwrite(file, np.stack([slice_of_head(z) for z in range(3)]), photometric="minisblack")
    with pytest.raises(DataError) as caught:
        load_picture(file)
    assert str(caught.value) == f"{file}: has 3 pages; save each as a picture, or all as one NIfTI volume"


def test_load_picture_ignores_tiff_thumbnail(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(slice_of_head(0))
        file.write(slice_of_head(0)[::2, ::2], subfiletype=1)
    np.testing.assert_array_equal(load_picture(tmp_path / "a.tif"), slice_of_head(0))


def test_load_scan_reads_named_channel_of_tiff(tmp_path):
    channels = np.dstack([slice_of_head(z) for z in range(5)])
    tifffile.imwrite(tmp_path / "a.tif", channels, photometric="minisblack", planarconfig="contig")
    second = Case("a", "a", "s", {"t1": Source((tmp_path / "a.tif",), 1)})
    np.testing.assert_array_equal(load_scan(second).image[0, ..., 0], channels[..., 1])
    with pytest.raises(DataError, match="has 5 channels; name one of them in a manifest, as in FILE#0"):
        load_scan(Case("a", "a", "s", {"t1": Source((tmp_path / "a.tif",))}))


def test_load_scan_reads_luminance_of_colour_image(tmp_path):
    file = save_picture(tmp_path / "a.png", np.full((8, 8, 3), (100, 200, 50), np.uint8))
    image = load_scan(Case("a", "a", "s", {"t1": Source((file,))})).image
    np.testing.assert_allclose(image, 0.299 * 100 + 0.587 * 200 + 0.114 * 50, rtol=1e-6)


def test_load_picture_rejects_oriented_16_bit_tiff(tmp_path):
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, RED.astype(np.uint16), photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    with pytest.raises(DataError, match="is a turned or transparent TIFF of uint16; export it with 8 bits a channel"):
        load_picture(file)


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_load_picture_ignores_unreadable_exif(tmp_path, name, recwarn):
    Image.fromarray(WHITE_8).save(tmp_path / name, exif=b"Exif\0\0II*\0\x08\0\0\0")
    assert load_picture(tmp_path / name).shape == (40, 56)
    assert not recwarn.list


def test_load_picture_rejects_png_with_wrong_checksum(tmp_path):
    file = save_picture(tmp_path / "a.png", slice_of_head(0))
    content = bytearray(file.read_bytes())
    content[content.index(b"IDAT") + 4 + 60] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="is not a readable picture"):
        load_picture(file)


@pytest.mark.parametrize("predictor", [False, True])
def test_load_picture_rejects_deflated_tiff_with_wrong_checksum(tmp_path, predictor):
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, slice_of_head(0), compression="zlib", predictor=predictor)
    np.testing.assert_array_equal(load_picture(file), slice_of_head(0))
    content = bytearray(file.read_bytes())
    with tifffile.TiffFile(file) as tiff:
        last = tiff.pages[0].dataoffsets[0] + tiff.pages[0].databytecounts[0] - 1
    content[last] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="is not a readable picture"):
        load_picture(file)


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_load_picture_rejects_animation(tmp_path, name):
    first, second = (Image.fromarray(slice_of_head(number)) for number in range(2))
    first.save(tmp_path / name, save_all=True, append_images=[second])
    with pytest.raises(DataError, match=rf"{name}: is animated; save the frame that is meant as a picture"):
        load_picture(tmp_path / name)


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd", "a.hdr", "a.dcm"])
def test_load_picture_rejects_other_formats(tmp_path, name):
    (tmp_path / name).write_bytes(b"ObjectType = Image" * 40)
    with pytest.raises(DataError, match=rf"{name}: is neither NIfTI \(\.nii, \.nii\.gz\) nor a picture; convert it"):
        load_picture(tmp_path / name)


@pytest.mark.parametrize(
    ("values", "problem"),
    [((0, 1, 2), "unknown label values 2; known are 0, 1"), ((0, 1, 255), "values 1; known are 0, 255, 65535")],
)
def test_load_scan_lists_unknown_values_of_binary_mask(tmp_path, values, problem):
    image = save_picture(tmp_path / "image.png", slice_of_head(0, TRUTH.shape))
    pixels = np.where(TRUTH, values[1], 0).astype(np.uint8)
    pixels[0, 0] = values[2]
    mask = save_picture(tmp_path / "m.png", pixels)
    with pytest.raises(DataError, match=problem):
        load_scan(Case("a", "a", "s", {"grey": Source((image,))}, Source((mask,))))
