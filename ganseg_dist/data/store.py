"""The prepared store: one folder a case, named by the hash of its content and of the settings that shaped it.

A case that is already prepared is skipped, a changed image or setting makes a new folder, and an interrupted
preparation leaves no partial one. A case's arrays and its description carry digests: a damaged case is prepared
again, or raises an error where it is read.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ganseg_dist.atomic import discard_folder, unfinished_folder
from ganseg_dist.config import DataConfig
from ganseg_dist.data.cohort import Case
from ganseg_dist.data.preprocess import intensities_of, prepare_scan, usable_slices
from ganseg_dist.data.scan import load_scan
from ganseg_dist.digests import Damaged, damage_as, first_damage, read_sealed, sealed, verify_file
from ganseg_dist.errors import DataError
from ganseg_dist.files import read_bytes, sha256

FORMAT = 4
"""Raised whenever preparation changes what it writes."""

SETTINGS = {"size", "spacing_mm", "enhance", "equalise", "clusters", "cluster_by"}
"""Fields of DataConfig that a prepared case depends on, besides its modalities."""

MAPPED_FROM_BYTES = 2**20
"""Smaller arrays are read whole: each memory map holds a file open, and a cohort of pictures has thousands."""

DESCRIPTION, IMAGE, MASKS = "case.json", "image.npy", "masks.npy"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedCase:
    """A prepared case on disk; voxels are read on first access: large arrays memory-mapped, small ones whole.

    The first access in a process compares their digest. A case that is pickled for another process of this machine
    is verified before, and trusted there, because data loaders start new processes in every epoch.
    """

    folder: Path
    id: str
    patient: str
    site: str
    modalities: tuple[str, ...]
    regions: tuple[str, ...]
    """Empty when the case has no mask."""
    foreground: npt.NDArray[np.float64]
    """(S,) share of each slice that is foreground."""
    lesion: npt.NDArray[np.int64]
    """(S,) lesion pixels of each slice."""
    size: int
    sides_known: bool
    """Whether columns run from the patient's left to right."""
    digests: Mapping[str, str]
    """File name of an array to its SHA-256 digest."""
    class_name: str | None = None
    """Class of the whole image, where it is known."""
    trusted: bool = False
    """Whether another process has verified it."""

    @classmethod
    def open(cls, folder: Path, *, trusted: bool = False) -> PreparedCase:
        """Read the case's description, but not its voxels. Raises DataError when it is missing or damaged."""
        with _prepared_again(folder):
            meta = read_sealed(folder / DESCRIPTION)
        return cls(
            folder,
            meta["id"],
            meta["patient"],
            meta["site"],
            tuple(meta["modalities"]),
            tuple(meta["regions"]),
            np.asarray(meta["foreground"], np.float64),
            np.asarray(meta["lesion"], np.int64),
            meta["size"],
            meta["sides_known"],
            meta["digests"],
            meta["class"],
            trusted,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        self.verify()
        return partial(PreparedCase.open, trusted=True), (self.folder,)  # a pickled memory map would carry its voxels

    def verify(self) -> None:
        """Raises DataError naming an array's file that is missing or damaged."""
        for name in self.digests:
            self._verify(name)

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """(S,) slices to train on."""
        return usable_slices(self.foreground, self.lesion)

    @property
    def has_lesion(self) -> npt.NDArray[np.bool_]:
        """(S,)"""
        return self.lesion > 0

    @cached_property
    def image(self) -> npt.NDArray[np.float16]:
        """(S, C, size, size) float16 in [-1, 1]. Raises DataError when the file is damaged."""
        return self._load(IMAGE)

    @cached_property
    def masks(self) -> npt.NDArray[np.uint8]:
        """(S, R, size, size) in {0, 1}. Raises DataError when the file is damaged."""
        return self._load(MASKS)

    def _load(self, name: str) -> npt.NDArray[Any]:
        self._verify(name)
        file = self.folder / name
        mapped = file.stat().st_size >= MAPPED_FROM_BYTES
        return np.load(file, mmap_mode="r" if mapped else None)  # type: ignore[no-any-return]

    def _verify(self, name: str) -> None:
        if not self.trusted:
            with _prepared_again(self.folder):
                _verify_once(self.folder / name, self.digests[name])


def _prepared_again(folder: Path) -> AbstractContextManager[None]:
    return damage_as(DataError, f"delete {folder} and rerun the same command, which prepares the case again")


def _verify_once(file: Path, digest: str) -> None:
    """Raises Damaged. An unchanged file is read once per process."""
    try:
        status = file.stat()
    except OSError:
        verify_file(file, digest)  # its error names the problem
        return
    _verified(file, digest, status.st_size, status.st_mtime_ns)


@cache
def _verified(file: Path, digest: str, size: int, changed_ns: int) -> None:
    verify_file(file, digest)


def content_hash(case: Case) -> str:
    """Hash of the bytes of a case's files and of the reader's description of them."""
    digest = hashlib.blake2b(digest_size=16)
    sources = [*sorted(case.images.items()), *([("mask", case.mask)] if case.mask is not None else [])]
    hashed: set[Path] = set()
    for name, source in sources:
        digest.update(f"{name}:{source.channel}:{len(source.files)};".encode())
        digest.update((source.reads or "").encode())
        for file in source.files:
            if file not in hashed:  # channels of a colour stack share its files
                hashed.add(file)
                digest.update(read_bytes(file))
    description = [case.id, case.patient, case.site, sorted(case.labels.items()), case.regions]
    digest.update(json.dumps([*description, case.class_name] if case.class_name is not None else description).encode())
    return digest.hexdigest()


def prepared_folder(store: Path, case: Case, config: DataConfig, content: str) -> Path:
    """The folder of a case with this content under these settings."""
    settings = config.model_dump(mode="json", include=SETTINGS)
    modalities = _modalities(case, config)
    settings["modalities"] = list(modalities)  # the foreground, and so the window, is the union over them
    settings["intensities"] = intensities_of(modalities, config)
    key = hashlib.blake2b(json.dumps([FORMAT, content, settings], sort_keys=True).encode(), digest_size=12)
    return store / "cases" / key.hexdigest()


def _modalities(case: Case, config: DataConfig) -> tuple[str, ...]:
    """The config's modalities; all of the case's where the config names none."""
    return config.modalities or tuple(case.images)


def prepare_case(
    store: Path,
    case: Case,
    config: DataConfig,
    content: str,
    *,
    warn: Callable[[str], object] = logger.warning,
) -> Path:
    """Prepare one case unless it is complete already; returns its folder. It changes nothing but that folder, so that
    it can be mapped over a cluster.

    `warn` is called with a line where the folder is damaged, before the case is prepared again. Raises DataError when
    the case cannot be read, and leaves nothing behind.
    """
    folder = prepared_folder(store, case, config, content)
    if folder.exists():
        damage = case_damage(folder)
        if damage is None:
            return folder
        warn(f"{damage}; {case.id} is prepared again")
        discard_folder(folder)
    modalities = _modalities(case, config)
    prepared = prepare_scan(load_scan(case, modalities), config, case.regions)
    description = {
        "id": case.id,
        "patient": case.patient,
        "site": case.site,
        "modalities": [*modalities, *config.made_channels],
        "regions": list(case.regions) if prepared.masks is not None else [],
        "size": config.size,
        "sides_known": prepared.placement.grid.sides_known,
        "class": case.class_name,
        "foreground": [round(float(share), 4) for share in prepared.foreground],
        "lesion": prepared.lesion.tolist(),
    }
    try:
        with unfinished_folder(folder.parent) as unfinished:
            write_prepared(unfinished, description, prepared.image.astype(np.float16), prepared.masks)
            unfinished.rename(folder)
    except OSError:
        if not folder.exists():  # otherwise another worker prepared the same case first
            raise
    return folder


def write_prepared(
    folder: Path,
    description: Mapping[str, Any],
    image: npt.NDArray[np.float16],
    masks: npt.NDArray[np.uint8] | None,
) -> None:
    """Write a prepared case into a folder. Its description (JSON types) gets the arrays' digests and a seal."""
    arrays: dict[str, npt.NDArray[Any]] = {IMAGE: image} if masks is None else {IMAGE: image, MASKS: masks}
    for name, array in arrays.items():
        np.save(folder / name, array)
    digests = {name: sha256(folder / name) for name in arrays}
    (folder / DESCRIPTION).write_text(json.dumps(sealed({**description, "digests": digests})), encoding="utf-8")


def case_damage(folder: Path) -> Damaged | None:
    """The first damage found in a prepared case; None where it is complete."""
    return first_damage(folder / DESCRIPTION, _verify_once)
