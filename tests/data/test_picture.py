"""Picture files of every kind that people have, read as a viewer displays them."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from ganseg_dist.data.cohort import Case, Source
from ganseg_dist.data.picture import is_lossy, load_mask_picture, load_picture, orientation
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.scan import load_scan
from ganseg_dist.errors import DataError
from tests.data.cohorts import save_picture, slice_of_head, tissue, write_pictures

TRUTH = np.zeros((40, 56), bool)
TRUTH[5:18, 30:50] = True
TRUTH[25:36, 8:20] = True

CORNERS = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
"""Where a viewer shows the first stored pixel, by orientation; from 5 on rows and columns change places."""


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def mask_dice(root):
    return dice(load_scan(read_cohort(root).cases[0]).labels[..., 0] > 0, TRUTH)


def cohort_with_mask(root, suffix, write):
    """images/a.png and the mask that `write` makes of a path."""
    save_picture(root / "images" / "a.png", tissue(0)[0])
    file = root / "masks" / f"a{suffix}"
    file.parent.mkdir()
    write(file)
    return root


def turned(file, pixels, number, **how):
    """Saved as the pixels are, with a tag that says how to display them."""
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
def test_a_picture_is_turned_as_it_is_displayed(tmp_path, name, dtype, how, number):
    pixels = slice_of_head(0, (40, 56)).astype(dtype)
    pixels[:8, :8] = 255
    file = turned(tmp_path / name, pixels, number, **how)
    assert orientation(file) == number
    row, column = CORNERS[number]
    shown = {"image": load_picture(file), "mask": load_mask_picture(file, by_value=True)}
    for what, picture in shown.items():
        flipped = picture[:: 1 if row == 0 else -1, :: 1 if column == 0 else -1]
        stored = flipped if number < 5 else flipped.T
        np.testing.assert_allclose(stored.astype(float), pixels, atol=6 if name == "a.jpg" else 0, err_msg=what)


@pytest.mark.parametrize("number", [3, 6])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_turned_image_and_a_mask_of_it_upright_lie_on_each_other(tmp_path, suffix, number):
    image = np.where(TRUTH, 200, slice_of_head(0, TRUTH.shape)).astype(np.uint8)
    stored = {3: np.rot90(image, 2), 6: np.rot90(image)}[number]
    turned(tmp_path / "images" / f"a{suffix}", np.ascontiguousarray(stored), number)
    save_picture(tmp_path / "masks" / "a.png", TRUTH)
    scan = load_scan(read_cohort(tmp_path).cases[0])
    np.testing.assert_array_equal(scan.image[0, ..., 0], image)
    assert dice(scan.image[0, ..., 0] == 200, scan.labels[..., 0] > 0) > 0.95


def test_a_mask_of_the_stored_pixels_of_a_turned_image_has_another_shape(tmp_path):
    turned(tmp_path / "images" / "a.png", slice_of_head(0, TRUTH.shape), 6)
    file = save_picture(tmp_path / "masks" / "a.png", TRUTH)
    with pytest.raises(DataError) as caught:
        load_scan(read_cohort(tmp_path).cases[0])
    assert str(caught.value).startswith(
        f"{file}: shape (40, 56, 1) differs from the other files' (56, 40, 1); turn one"
    )


def alpha_of(mode):
    alpha = Image.fromarray(TRUTH.astype(np.uint8) * 255)
    channels = {"RGBA": (255, 0, 0), "LA": (255,)}[mode]
    return Image.merge(mode, [*(Image.new("L", alpha.size, level) for level in channels), alpha])


def transparent_palette(file):
    """Red wherever it is, of which number 0 is transparent."""
    picture = Image.fromarray(TRUTH.astype(np.uint8))
    picture = Image.fromarray(np.asarray(picture), "P")
    picture.putpalette([255, 0, 0] * 2)
    picture.save(file, transparency=bytes([0, 255]))


def transparent_key(file):
    """White, of which (255, 255, 254) is transparent."""
    Image.fromarray(np.where(TRUTH[..., None], (255, 255, 255), (255, 255, 254)).astype(np.uint8)).save(
        file, transparency=(255, 255, 254)
    )


def transparent_grey_of_16_bits(file):
    Image.fromarray(np.where(TRUTH, 40000, 700).astype(np.uint16)).save(file, transparency=700)


def soft_edge(file):
    """An alpha that fades over the outermost pixels."""
    alpha = np.where(TRUTH, 255, 0).astype(np.uint8)
    alpha[4, 30:50] = alpha[18, 30:50] = 90
    Image.merge(
        "RGBA", [Image.fromarray(np.full_like(alpha, level)) for level in (255, 0, 0)] + [Image.fromarray(alpha)]
    ).save(file)


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        (".png", lambda file: alpha_of("RGBA").save(file)),
        (".png", lambda file: alpha_of("LA").save(file)),
        (".tif", lambda file: alpha_of("RGBA").save(file)),
        (".tif", lambda file: alpha_of("LA").save(file, compression="tiff_lzw")),
        (".tif", lambda file: tifffile.imwrite(file, np.asarray(alpha_of("RGBA")), extrasamples=["assocalpha"])),
        (".png", transparent_palette),
        (".png", transparent_key),
        (".png", transparent_grey_of_16_bits),
        (".png", soft_edge),
    ],
    ids=["rgba", "la", "rgba-tif", "la-tif", "premultiplied", "palette", "key", "key-16", "soft"],
)
def test_what_is_transparent_in_a_mask_is_background(tmp_path, suffix, write):
    assert mask_dice(cohort_with_mask(tmp_path, suffix, write)) == 1


def test_an_image_lies_on_black_where_it_is_transparent(tmp_path):
    picture, _ = tissue(0)
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    alpha[:10], alpha[10:20] = 0, 51
    shown = load_picture(save_picture(tmp_path / "a.png", np.dstack([picture, alpha])))
    assert shown.shape == (40, 56, 3)
    assert not shown[:10].any()
    np.testing.assert_allclose(shown[10:20], picture[10:20] / 5, atol=0.51)
    np.testing.assert_array_equal(shown[20:], picture[20:])


WHITE_8, WHITE_16 = TRUTH.astype(np.uint8) * 255, TRUTH.astype(np.uint16) * 65535
RED = np.where(TRUTH[..., None], (255, 0, 0), 0).astype(np.uint8)
GREEN = np.where(TRUTH[..., None], (0, 255, 0), 0).astype(np.uint8)


def palette_tif(file):
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
    "palette.tif": palette_tif,
    "float.tif": lambda file: tifffile.imwrite(file, TRUTH.astype(np.float32) * 1.0000001),
    "half-float.tif": lambda file: tifffile.imwrite(file, TRUTH.astype(np.float16)),
    "double.tif": lambda file: tifffile.imwrite(file, TRUTH * 0.9999 + 1e-9),
    "signed.tif": lambda file: tifffile.imwrite(file, TRUTH.astype(np.int8)),
    "32.tif": lambda file: tifffile.imwrite(file, TRUTH.astype(np.uint32) * 4_000_000_000),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_mask_is_read_alike_in_every_format(tmp_path, name):
    kind, suffix = name.split(".")
    assert mask_dice(cohort_with_mask(tmp_path, f".{suffix}", FORMATS[name])) == 1, kind


@pytest.mark.parametrize("name", [name for name in FORMATS if name.partition(".")[0] not in ("half", "32", "palette")])
def test_and_so_it_is_where_a_manifest_lists_it(tmp_path, name):
    file = tmp_path / name
    FORMATS[name](file)
    image = save_picture(tmp_path / "image.png", slice_of_head(0, TRUTH.shape))
    scan = load_scan(Case("a", "a", "s", {"grey": Source((image,))}, Source((file,))))
    assert dice(scan.labels[..., 0] > 0, TRUTH) == 1


def test_a_palette_of_colours_numbers_the_labels_that_a_manifest_lists(tmp_path):
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
def test_a_jpeg_mask_is_cut_at_half_of_its_own_brightest(tmp_path, value, quality):
    def write(file):
        Image.fromarray((TRUTH * value).astype(np.uint8)).save(file, quality=quality)

    assert mask_dice(cohort_with_mask(tmp_path, ".jpg", write)) >= 0.97


@pytest.mark.parametrize("value", [2, 30])
def test_a_jpeg_mask_that_is_nearly_black_is_empty(tmp_path, value):
    root = cohort_with_mask(tmp_path, ".jpg", lambda file: Image.fromarray((TRUTH * value).astype(np.uint8)).save(file))
    assert not load_scan(read_cohort(root).cases[0]).labels.any()


def test_slices_of_a_jpeg_stack_are_cut_one_by_one(tmp_path):
    planes = [TRUTH * 127, np.where(np.arange(56) % 9, 0, 20) * np.ones((40, 1)), TRUTH * 255]
    masks = [save_picture(tmp_path / f"{z}_mask.jpg", plane.astype(np.uint8)) for z, plane in enumerate(planes)]
    images = [save_picture(tmp_path / f"{z}.png", slice_of_head(z, TRUTH.shape)) for z in range(3)]
    scan = load_scan(Case("a", "a", "s", {"grey": Source(tuple(images))}, Source(tuple(masks))))
    assert [dice(scan.labels[..., z] > 0, TRUTH) > 0.97 for z in range(3)] == [True, False, True]
    assert not scan.labels[..., 1].any()


def test_a_jpeg_is_known_by_its_content(tmp_path):
    def write(file):
        Image.fromarray(WHITE_8).save(file, format="JPEG", quality=60)

    root = cohort_with_mask(tmp_path, ".png", write)
    assert is_lossy(root / "masks" / "a.png")
    assert mask_dice(root) >= 0.97
    file = tmp_path / "b.tif"
    Image.fromarray(WHITE_8).save(file, compression="jpeg")
    assert (is_lossy(file), is_lossy(save_picture(tmp_path / "c.png", WHITE_8))) == (True, False)


@pytest.mark.parametrize("darker", [40, 85, 127, 128])
def test_a_jpeg_mask_of_two_classes_is_rejected(tmp_path, darker):
    def write(file):
        two = np.zeros(TRUTH.shape, np.uint8)
        two[5:18, 30:50], two[25:36, 8:20] = darker, 255
        Image.fromarray(two).save(file, quality=90)

    root = cohort_with_mask(tmp_path, ".jpg", write)
    with pytest.raises(DataError) as caught:
        load_scan(read_cohort(root).cases[0])
    said = str(caught.value)
    assert said.startswith(f"{root / 'masks' / 'a.jpg'}: is a JPEG mask of several grey levels, such as ")
    assert said.endswith(" beside 255; save it as PNG, or name its levels in masks/labels.json") or " beside 25" in said
    (root / "masks" / "labels.json").write_text(f'{{"rim": {darker}, "core": 255}}')
    assert mask_dice(root) >= 0.95


def test_a_jpeg_mask_of_real_nuclei_has_one_level(shared_data):
    for case in read_cohort(shared_data / "monusac").cases:
        assert load_scan(case).labels.any()


def test_a_tiff_of_several_pages_is_no_picture(tmp_path):
    root = write_pictures(tmp_path, ["a", "b"], suffix=".tif")
    file = root / "images" / "a.tif"
    tifffile.imwrite(file, np.stack([slice_of_head(z) for z in range(3)]), photometric="minisblack")
    with pytest.raises(DataError) as caught:
        load_picture(file)
    assert str(caught.value) == f"{file}: has 3 pages; save each as a picture, or all as one NIfTI volume"


def test_a_thumbnail_in_a_tiff_is_no_page(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(slice_of_head(0))
        file.write(slice_of_head(0)[::2, ::2], subfiletype=1)
    np.testing.assert_array_equal(load_picture(tmp_path / "a.tif"), slice_of_head(0))


def test_of_many_channels_one_is_named(tmp_path):
    channels = np.dstack([slice_of_head(z) for z in range(5)])
    tifffile.imwrite(tmp_path / "a.tif", channels, photometric="minisblack", planarconfig="contig")
    second = Case("a", "a", "s", {"t1": Source((tmp_path / "a.tif",), 1)})
    np.testing.assert_array_equal(load_scan(second).image[0, ..., 0], channels[..., 1])
    with pytest.raises(DataError, match="has 5 channels; name one of them in a manifest, as in FILE#0"):
        load_scan(Case("a", "a", "s", {"t1": Source((tmp_path / "a.tif",))}))


def test_an_image_in_colour_of_which_no_channel_is_named_gives_its_luminance(tmp_path):
    file = save_picture(tmp_path / "a.png", np.full((8, 8, 3), (100, 200, 50), np.uint8))
    image = load_scan(Case("a", "a", "s", {"t1": Source((file,))})).image
    np.testing.assert_allclose(image, 0.299 * 100 + 0.587 * 200 + 0.114 * 50, rtol=1e-6)


def test_a_deep_tiff_that_is_turned_is_rejected(tmp_path):
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, RED.astype(np.uint16), photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    with pytest.raises(DataError, match="is a turned or transparent TIFF of uint16; export it with 8 bits a channel"):
        load_picture(file)


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_exif_that_cannot_be_read_turns_nothing(tmp_path, name, recwarn):
    Image.fromarray(WHITE_8).save(tmp_path / name, exif=b"Exif\0\0II*\0\x08\0\0\0")
    assert load_picture(tmp_path / name).shape == (40, 56)
    assert not recwarn.list


def test_a_png_whose_pixels_do_not_fit_its_checksum_is_not_read(tmp_path):
    file = save_picture(tmp_path / "a.png", slice_of_head(0))
    content = bytearray(file.read_bytes())
    content[content.index(b"IDAT") + 4 + 60] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="is not a readable picture"):
        load_picture(file)


@pytest.mark.parametrize("predictor", [False, True])
def test_a_deflated_tiff_whose_pixels_do_not_fit_its_checksum_is_not_read(tmp_path, predictor):
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
def test_an_animation_is_no_picture(tmp_path, name):
    first, second = (Image.fromarray(slice_of_head(number)) for number in range(2))
    first.save(tmp_path / name, save_all=True, append_images=[second])
    with pytest.raises(DataError, match=rf"{name}: is animated; save the frame that is meant as a picture"):
        load_picture(tmp_path / name)


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd", "a.hdr", "a.dcm"])
def test_a_file_of_another_format_is_to_be_converted(tmp_path, name):
    (tmp_path / name).write_bytes(b"ObjectType = Image" * 40)
    with pytest.raises(DataError, match=rf"{name}: is neither NIfTI \(\.nii, \.nii\.gz\) nor a picture; convert it"):
        load_picture(tmp_path / name)


@pytest.mark.parametrize(
    ("values", "problem"),
    [((0, 1, 2), "unknown label values 2; known are 0, 1"), ((0, 1, 255), "values 1; known are 0, 255, 65535")],
)
def test_unknown_values_of_a_binary_picture_mask_are_not_among_the_known(tmp_path, values, problem):
    image = save_picture(tmp_path / "image.png", slice_of_head(0, TRUTH.shape))
    drawn = np.where(TRUTH, values[1], 0).astype(np.uint8)
    drawn[0, 0] = values[2]
    mask = save_picture(tmp_path / "m.png", drawn)
    with pytest.raises(DataError, match=problem):
        load_scan(Case("a", "a", "s", {"grey": Source((image,))}, Source((mask,))))
