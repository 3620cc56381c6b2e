"""Small cohorts on disk, one builder per layout: ellipsoid brains with a lesion, different for each patient."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import tifffile
from PIL import Image
from scipy import ndimage

SHAPE = (40, 48, 32)
AFFINE = np.diag([-4.0, -4.0, 4.0, 1.0])
MODALITIES = ("t1", "t1ce", "t2", "flair")
FILES_2023 = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f"}


def brain(patient: int, *, skull: bool = False) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Four modalities, int16 with background 0, and labels 0 to 3 (necrotic core, oedema, enhancing tumour).

    With `skull` a bright rim surrounds the brain and noise fills the air.
    """
    rng = np.random.default_rng(patient)
    radius = _radius(SHAPE, centre=(0.5, 0.5, 0.5), reach=(0.36, 0.38, 0.36))
    tissue = ndimage.gaussian_filter(rng.normal(size=SHAPE), 2.0)
    tissue = (tissue - tissue.min()) / np.ptp(tissue)
    lesion = _radius(SHAPE, centre=(0.35, 0.55 - 0.02 * (patient % 8), 0.5), reach=(0.12, 0.12, 0.12))
    labels = np.select([radius > 1, lesion < 0.4, lesion < 0.6, lesion < 1], [0, 1, 3, 2], 0).astype(np.uint8)
    contrasts = {
        "t1": 300 + 500 * tissue - 100 * (labels == 2),
        "t1ce": 280 + 480 * tissue + 500 * (labels == 3),
        "t2": 900 - 600 * tissue + 300 * (labels == 2),
        "flair": 800 - 450 * tissue**2 + 500 * (labels > 0),
    }
    images = {}
    for modality, contrast in contrasts.items():
        image = np.where(radius <= 1, contrast + rng.normal(scale=10, size=SHAPE), 0)
        if skull:
            rim = (radius > 1.1) & (radius < 1.25)
            image = np.where(rim, 900, image) + np.abs(rng.normal(scale=15, size=SHAPE)) * (radius > 1)
        images[modality] = image.astype(np.int16)
    return images, labels


def save(file: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), file)
    return file


def reorient_file(
    file: Path, order: tuple[int, int, int] = (2, 0, 1), flips: tuple[int, int, int] = (1, -1, 1)
) -> None:
    """The same volume in the same place, stored with its axes in another order and some the other way round."""
    image = nib.load(file)
    change = np.stack([np.argsort(order), flips], axis=1).astype(float)
    affine = image.affine @ nib.orientations.inv_ornt_aff(change, image.shape)
    save(file, nib.orientations.apply_orientation(voxels(file), change), affine)


def voxels(file: Path) -> np.ndarray:
    return np.array(nib.load(file).dataobj)


def write_brats(root: Path, cases: Iterable[str], *, suffix: str = ".nii.gz", names_2023: bool = False) -> Path:
    """A folder per case; names as in 2018 to 2021, with label 4, or as in 2023 on, with label 3."""
    for number, case in enumerate(cases):
        images, labels = brain(number)
        folder = root / case
        separator = "-" if names_2023 else "_"
        name = Path(case).name
        for modality, image in images.items():
            called = FILES_2023[modality] if names_2023 else modality
            save(folder / f"{name}{separator}{called}{suffix}", image)
        save(
            folder / f"{name}{separator}seg{suffix}",
            labels if names_2023 else np.where(labels == 3, 4, labels).astype(np.uint8),
        )
    return root


def write_decathlon(root: Path, cases: Iterable[str], labels: Mapping[str, str] | None = None) -> Path:
    """4-D images in the order of the Decathlon's brain task, whose oedema is label 1."""
    for number, case in enumerate(cases):
        images, tissues = brain(number)
        save(root / "imagesTr" / f"{case}.nii.gz", np.stack([images[m] for m in ("flair", "t1", "t1ce", "t2")], -1))
        save(root / "labelsTr" / f"{case}.nii.gz", np.array([0, 2, 1, 3], np.uint8)[tissues])
    description = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": labels or {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
        "training": [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in cases],
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def write_nnunet(root: Path, cases: Iterable[str], labels: Mapping[str, object] | None = None) -> Path:
    """nnU-Net version 2 with the regions of its BraTS conversion: 1 oedema, 2 necrotic core, 3 enhancing."""
    regions = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}
    for number, case in enumerate(cases):
        images, tissues = brain(number)
        for channel, modality in enumerate(("t1", "t1ce")):
            save(root / "imagesTr" / f"{case}_{channel:04d}.nii.gz", images[modality])
        save(root / "labelsTr" / f"{case}.nii.gz", np.array([0, 2, 1, 3], np.uint8)[tissues])
    description = {"channel_names": {"0": "T1", "1": "T1ce"}, "labels": labels or regions, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def write_kaggle(root: Path, cases: Iterable[str]) -> Path:
    """RGB slices of T1, FLAIR and contrast-enhanced T1 with a 0/255 mask beside each, numbered from 1."""
    for number, case in enumerate(cases):
        images, labels = brain(number)
        planes = np.stack([images[m] / 6 for m in ("t1", "flair", "t1ce")], -1).clip(0, 255).astype(np.uint8)
        (root / case).mkdir(parents=True)
        for z in range(SHAPE[2]):
            tifffile.imwrite(root / case / f"{case}_{z + 1}.tif", planes[:, :, z])
            tifffile.imwrite(root / case / f"{case}_{z + 1}_mask.tif", (255 * (labels[:, :, z] > 0)).astype(np.uint8))
    return root


def tissue(number: int, shape: tuple[int, int] = (40, 56)) -> tuple[np.ndarray, np.ndarray]:
    """A picture in colour, (rows, columns, 3) uint8, purple nuclei on pink, and where the nuclei are, bool."""
    rng = np.random.default_rng(number)
    blobs = ndimage.gaussian_filter(rng.normal(size=shape), 3.0)
    nuclei = blobs > np.quantile(blobs, 0.75)
    picture = np.where(nuclei[..., None], (90, 40, 130), (230, 160, 200)) + rng.normal(scale=5, size=(*shape, 1))
    return picture.clip(0, 255).astype(np.uint8), nuclei


def slice_of_head(number: int, shape: tuple[int, int] = (48, 48)) -> np.ndarray:
    """A grey picture, (rows, columns) uint8, of textured tissue in the dark."""
    rng = np.random.default_rng(number)
    radius = _radius(shape, centre=(0.5, 0.5), reach=(0.38, 0.34))
    texture = ndimage.gaussian_filter(rng.normal(size=shape), 2.0)
    return np.where(radius < 1, 130 + 400 * texture, 0).clip(0, 255).astype(np.uint8)


def save_picture(file: Path, pixels: np.ndarray) -> Path:
    """Save in the format of the file's suffix; bool as black and white in 8 bits."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(255 * pixels.astype(np.uint8) if pixels.dtype == bool else pixels).save(file)
    return file


def write_pictures(root: Path, names: Iterable[str], *, suffix: str = ".png", mask_suffix: str = ".png") -> Path:
    """images/ in colour and masks/ of the same names."""
    for number, name in enumerate(names):
        picture, nuclei = tissue(number)
        save_picture(root / "images" / f"{name}{suffix}", picture)
        save_picture(root / "masks" / f"{name}{mask_suffix}", nuclei)
    return root


def write_classes(root: Path, folders: Mapping[str, int]) -> Path:
    """Folders with so many grey PNGs each, 0.png and on; no two pictures are alike."""
    number = 0
    for folder, count in folders.items():
        for name in range(count):
            save_picture(root / folder / f"{name}.png", slice_of_head(number))
            number += 1
    return root


def write_manifest(root: Path, patients: Sequence[str], *, skulls: Sequence[str] = ()) -> Path:
    """Arbitrary file names listed in manifest.csv, binary masks, a hospital for every second patient."""
    rows = []
    for number, patient in enumerate(patients):
        images, labels = brain(number, skull=patient in skulls)
        row = {"case": patient, "patient": patient, "site": f"hospital{number % 2}"}
        row |= {m: save(root / patient / f"{m}.nii.gz", images[m]).relative_to(root).as_posix() for m in MODALITIES}
        row["mask"] = save(root / patient / "lesion.nii.gz", (labels > 0).astype(np.uint8)).relative_to(root).as_posix()
        rows.append(row)
    return write_rows(root / "manifest.csv", rows)


def write_rows(file: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """A CSV; returns the file."""
    with file.open("w", newline="") as text:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def read_rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Of two masks that are not both empty."""
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def _radius(shape: Sequence[int], centre: Sequence[float], reach: Sequence[float]) -> np.ndarray:
    """Distance from the centre in units of an ellipsoid's reach; all as shares of the side."""
    axes = np.meshgrid(*(np.arange(side) for side in shape), indexing="ij")
    parts = ((axis - c * side) / (r * side) for axis, c, r, side in zip(axes, centre, reach, shape, strict=True))
    return np.sqrt(sum(part**2 for part in parts))
