"""The prepared store: one folder a case, named by the hash of its content and of the settings that shaped it.

Preparing again what is there does nothing, a changed image or setting makes a new folder, and an interrupted
preparation leaves no half-written one.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ganseg_dist.atomic import UNFINISHED
from ganseg_dist.config import DataConfig
from ganseg_dist.data.cohort import Case
from ganseg_dist.data.preprocess import intensities_of, prepare_scan, worth_using
from ganseg_dist.data.scan import load_scan
from ganseg_dist.files import read_bytes, read_json

FORMAT = 2
"""Raised whenever preparation changes what it writes."""

SETTINGS = {"size", "spacing_mm", "enhance", "equalise", "clusters", "cluster_by"}
"""Fields of the data's config that shape a prepared case; its modalities do too, as far as it has them."""

MAPPED_FROM_BYTES = 2**20
"""Smaller arrays are read whole: each memory map holds a file open, and a cohort of pictures has thousands."""


@dataclass(frozen=True)
class PreparedCase:
    """A prepared case on disk; voxels are read when first asked for: large arrays memory-mapped, small ones whole."""

    folder: Path
    id: str
    patient: str
    site: str
    modalities: tuple[str, ...]
    regions: tuple[str, ...]
    """Empty when the case has no mask."""
    body: npt.NDArray[np.float64]
    """(S,) share of each slice that is body."""
    lesion: npt.NDArray[np.int64]
    """(S,) lesion pixels of each slice."""
    size: int
    sides_known: bool
    """Whether columns run from the patient's left to right."""
    class_name: str | None = None
    """What the whole image is, where that is known."""

    @classmethod
    def open(cls, folder: Path) -> PreparedCase:
        """Read the case's description; the voxels wait."""
        meta = read_json(folder / "case.json")
        return cls(
            folder,
            meta["id"],
            meta["patient"],
            meta["site"],
            tuple(meta["modalities"]),
            tuple(meta["regions"]),
            np.asarray(meta["body"], np.float64),
            np.asarray(meta["lesion"], np.int64),
            meta["size"],
            meta["sides_known"],
            meta.get("class"),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return PreparedCase.open, (self.folder,)  # a pickled memory map would carry its voxels

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """(S,) slices worth training on."""
        return worth_using(self.body, self.lesion)

    @property
    def has_lesion(self) -> npt.NDArray[np.bool_]:
        """(S,)"""
        return self.lesion > 0

    @cached_property
    def image(self) -> npt.NDArray[np.float16]:
        """(S, C, size, size) float16 in [-1, 1]."""
        return _load(self.folder / "image.npy")

    @cached_property
    def masks(self) -> npt.NDArray[np.uint8]:
        """(S, R, size, size) in {0, 1}."""
        return _load(self.folder / "masks.npy")


def _load(file: Path) -> npt.NDArray[Any]:
    return np.load(file, mmap_mode="r" if file.stat().st_size >= MAPPED_FROM_BYTES else None)  # type: ignore[no-any-return]


def content_hash(case: Case) -> str:
    """Hash of the bytes of a case's files and of what its reader says of them."""
    digest = hashlib.blake2b(digest_size=16)
    sources = [*sorted(case.images.items()), *([("mask", case.mask)] if case.mask is not None else [])]
    seen: set[Path] = set()
    for name, source in sources:
        digest.update(f"{name}:{source.channel}:{len(source.files)};".encode())
        digest.update((source.reads or "").encode())
        for file in source.files:
            if file not in seen:  # the channels of a colour stack share its files
                seen.add(file)
                digest.update(read_bytes(file))
    said = [case.id, case.patient, case.site, sorted(case.labels.items()), case.regions]
    digest.update(json.dumps([*said, case.class_name] if case.class_name is not None else said).encode())
    return digest.hexdigest()


def prepared_folder(store: Path, case: Case, config: DataConfig, content: str) -> Path:
    """Where a case with this content belongs under these settings."""
    settings = config.model_dump(mode="json", include=SETTINGS)
    modalities = _modalities(case, config)
    settings["modalities"] = list(modalities)  # the body, and so the window, is their union
    settings["intensities"] = intensities_of(modalities, config)
    key = hashlib.blake2b(json.dumps([FORMAT, content, settings], sort_keys=True).encode(), digest_size=12)
    return store / "cases" / key.hexdigest()


def _modalities(case: Case, config: DataConfig) -> tuple[str, ...]:
    """The channels a model of this config will see; without a choice, all of the case's."""
    return config.modalities or tuple(case.images)


def prepare_case(store: Path, case: Case, config: DataConfig, content: str) -> Path:
    """Prepare one case unless it is there; returns its folder. Pure but for that folder: fit to map over a cluster.

    Raises DataError when the case cannot be read, and leaves nothing behind.
    """
    folder = prepared_folder(store, case, config, content)
    if folder.exists():
        return folder
    modalities = _modalities(case, config)
    prepared = prepare_scan(load_scan(case, modalities), config, case.regions)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f"{UNFINISHED}{secrets.token_hex(8)}"  # mkdtemp's would be closed to a group for good
    unfinished.mkdir()
    try:
        np.save(unfinished / "image.npy", prepared.image.astype(np.float16))
        if prepared.masks is not None:
            np.save(unfinished / "masks.npy", prepared.masks)
        meta = {
            "id": case.id,
            "patient": case.patient,
            "site": case.site,
            "modalities": [*modalities, *config.made_channels],
            "regions": list(case.regions) if prepared.masks is not None else [],
            "size": config.size,
            "sides_known": prepared.placement.grid.sides_known,
            "class": case.class_name,
            "body": [round(float(share), 4) for share in prepared.body],
            "lesion": prepared.lesion.tolist(),
        }
        (unfinished / "case.json").write_text(json.dumps(meta))
        unfinished.replace(folder)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not folder.exists():  # else another worker prepared the same case first
            raise
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return folder
