"""Writes predictions on the source's grid, with nothing else of its header; for pictures, as pictures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image

from ganseg_dist.atomic import write_file
from ganseg_dist.data.cohort import Case
from ganseg_dist.data.labels import LESION_IN_PICTURES
from ganseg_dist.data.listing import is_nifti
from ganseg_dist.data.nifti import image_like
from ganseg_dist.data.preprocess import restore
from ganseg_dist.errors import DataError
from ganseg_dist.inference.predictor import CasePrediction, Predictor
from ganseg_dist.names import folder_name, folder_names


@dataclass(frozen=True, slots=True)
class Extras:
    """Which parts of a prediction are written besides the mask."""

    probability: bool = False
    anomaly: bool = False
    reconstruction: bool = False


def write_case(
    case: Case, prediction: CasePrediction, predictor: Predictor, out: Path, extras: Extras, name: str | None = None
) -> tuple[Path, ...]:
    """Write one case's mask and extras; returns the files, the mask first.

    NIfTI in, NIfTI out on the grid of the model's first modality. A single picture gives a PNG; a stack of pictures
    gives a folder of PNGs named as the slices; both lie on the pictures as displayed, upright and without EXIF. Names
    of files begin with `name`, a valid file name, by default the case's id made one. Raises DataError where `out` is
    the folder of the case's own images or mask.
    """
    name = folder_name(case.id) if name is None else name
    source = case.images[predictor.modalities[0]].files  # whose grid the prediction is on
    folder = out if len(source) == 1 else out / name
    inputs = {"images": source, "mask": case.mask.files if case.mask is not None else ()}
    for what, files in inputs.items():
        if folder.resolve() in {file.parent.resolve() for file in files}:
            raise DataError(
                f"{case.id}: {folder} holds its own {what}; choose another --out, so that none is overwritten"
            )
    on_prepared = prediction.on_prepared
    # In the label values of the training data, for any layout of the input.
    labels = predictor.scheme.label_map(prediction.regions, predictor.regions)
    volumes: dict[str, npt.NDArray[Any]] = {"mask": labels}
    if extras.probability:
        for region, volume in zip(predictor.regions, prediction.probability, strict=True):
            volumes[f"probability_{region}"] = volume
    placement = prediction.prepared.placement
    if extras.anomaly and on_prepared.anomaly is not None:
        volumes["anomaly"] = restore(on_prepared.anomaly, placement)[0]
    if extras.reconstruction and on_prepared.reconstruction is not None:
        channels = restore(on_prepared.reconstruction, placement, outside=-1.0)
        modalities = predictor.config.system.gan_modalities or predictor.modalities
        volumes |= {f"healthy_{modality}": channel for modality, channel in zip(modalities, channels, strict=True)}
    kinds = folder_names(volumes)  # regions and modalities have the data set's names, which a file may not have
    if is_nifti(source[0]):
        written = {out / f"{name}_{kinds[kind]}.nii.gz": kind for kind in volumes}
        for file, kind in written.items():
            image = image_like(source[0], volumes[kind], is_mask=kind == "mask")
            write_file(file, partial(nib.save, image))
        return tuple(written)
    if len(predictor.regions) == 1:
        volumes["mask"] = np.where(volumes["mask"] > 0, LESION_IN_PICTURES, 0).astype(np.uint8)
    return tuple(file for kind, v in volumes.items() for file in _write_pictures(folder, name, kinds[kind], source, v))


def _write_pictures(
    folder: Path, case: str, name: str, source: tuple[Path, ...], volume: npt.NDArray[Any]
) -> list[Path]:
    written = []
    stems = [case] if len(source) == 1 else [file.stem for file in source]
    if len(set(stems)) < len(stems):  # such as 1.png beside 1.tif
        stems = [file.name for file in source]
    for index, stem in enumerate(stems):
        path = folder / f"{stem}_{name}.png"
        write_file(path, _as_picture(name, volume[..., index]).save)
        written.append(path)
    return written


def _as_picture(name: str, plane: npt.NDArray[Any]) -> Image.Image:
    """Masks as they are, everything else scaled to 0..255."""
    if name == "mask":
        return Image.fromarray(plane)
    lowest = -1.0 if name.startswith("healthy") else 0.0
    return Image.fromarray(np.clip((plane - lowest) / (1 - lowest) * 255 + 0.5, 0, 255).astype(np.uint8))
