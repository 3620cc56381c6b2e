"""What is damaged, and how the product reads it: each target builds an input, and reads all of it to one value."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.cohort import Case
from ganseg_dist.data.labels import BINARY
from ganseg_dist.data.preflight import check_case, check_cohort, expected_modalities
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.scan import load_scan
from ganseg_dist.data.store import PreparedCase, content_hash, prepare_case
from ganseg_dist.engine.checkpoint import FolderCheckpoints, load_checkpoint, save_checkpoint
from ganseg_dist.errors import DataError
from ganseg_dist.inference.model_folder import Thresholds, load_model, write_model
from ganseg_dist.recipes import recipe
from ganseg_dist.report import write_report
from ganseg_dist.runs import Run
from ganseg_dist.storage.address import Address, kept_at
from ganseg_dist.storage.copies import fetch, send
from tests.data import cohorts
from tests.engine import toys
from tests.report import made_runs


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was read."""

    value: Any
    """Equal values mean that the damage changed nothing."""
    warnings: tuple[str, ...] = ()
    """What the product says of it."""


@dataclass(frozen=True, slots=True)
class Target:
    """An input of one kind."""

    name: str
    build: Callable[[Path], None]
    """Fills an empty folder."""
    read: Callable[[Path], Outcome]
    """Reads everything in it. Raises GansegError where something cannot be used."""
    damaged: str = "**/*"
    """Which files are damaged, as a pattern."""
    is_checked: Callable[[Path], bool] = lambda file: False
    """Whether any change of this file's content must be noticed: it is compressed, or has a digest."""


BRATS_CASES = ("BraTS20_Training_001", "BraTS20_Training_002")


def digest(*arrays: np.ndarray) -> str:
    """Of shapes, kinds and values."""
    content = hashlib.blake2b(digest_size=16)
    for array in arrays:
        content.update(f"{array.shape}{array.dtype}".encode())
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def read_data(root: Path) -> Outcome:
    """As `ganseg check` and training read a cohort. Raises DataError with the first finding that is an error."""
    cohort = read_cohort(root)
    expected = expected_modalities(cohort)
    reports = [check_case(case, expected_modalities=expected) for case in cohort.cases]
    findings = [finding for report in reports for finding in report.findings]
    findings += check_cohort(cohort, reports)
    errors = [finding.line() for finding in findings if finding.severity == "error"]
    if errors:
        raise DataError(errors[0])
    return Outcome([_read_case(case) for case in cohort.cases], tuple(sorted(finding.check for finding in findings)))


def _read_case(case: Case) -> list[str]:
    scan = load_scan(case)
    affine = np.zeros(0) if scan.grid.affine is None else scan.grid.affine
    labels = np.zeros(0) if scan.labels is None else scan.labels
    described = (case.id, case.patient, case.site, case.class_name, scan.modalities)
    return [*map(str, described), digest(scan.image, labels, affine)]


def _small(builder: Callable[..., object], *words: Any, **more: Any) -> Callable[[Path], None]:
    """A cohort of tests/data/cohorts.py, of fewer voxels."""

    def build(root: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cohorts, "SHAPE", (16, 20, 8))
            builder(root, *words, **more)

    return build


def _pictures(**more: Any) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        cohorts.write_pictures(root, ("a", "b"), **more)

    return build


def _patients_and_labels(root: Path) -> None:
    cohorts.write_pictures(root, ("a", "b"))
    (root / "masks" / "labels.json").write_text('{"nucleus": [255, 255, 255], "structure": "nucleus"}')
    rows = [{"file": f"{name}.png", "patient": f"p{name}", "site": "York"} for name in ("a", "b")]
    cohorts.write_rows(root / "patients.csv", rows)


def _compressed_tiff(root: Path) -> None:
    import tifffile

    _small(cohorts.write_kaggle, ("TCGA_CS_4941_19960909",))(root)
    for file in root.rglob("*.tif"):
        tifffile.imwrite(file, tifffile.imread(file), compression="zlib")


def _config(root: Path) -> None:
    (root / "config.json").write_text(recipe("ganet_seg_debug").to_json())


def _tiny_config() -> RunConfig:
    return override(recipe("ganet_seg_debug"), {"data.modalities": ["t1"], "data.regions": ["wt"]})


def _model(root: Path) -> None:
    from tests.inference.untrained import untrained_weights

    config = _tiny_config()
    weights = untrained_weights(config, root / "drawn.safetensors")
    write_model(
        root / "model",
        config,
        weights,
        card="A card.",
        facts={},
        thresholds=Thresholds({"wt": 0.4}, 0.2, 3),
        scheme=BINARY,
    )
    weights.unlink()


def _read_model(root: Path) -> Outcome:
    model = load_model(root / "model")
    weights = [value.numpy() for network in model.system.networks.values() for value in network.state_dict().values()]
    described = (
        model.config.to_json(),
        str(model.thresholds),
        str(model.channels),
        str(model.absent),
        model.scheme.described(),
    )
    return Outcome([*described, digest(*weights)])


def _store(root: Path) -> None:
    _small(cohorts.write_brats, BRATS_CASES)(root / "data")
    for case in read_cohort(root / "data").cases:
        prepare_case(root / "store", case, _tiny_config().data, content_hash(case))


def _read_store(root: Path) -> Outcome:
    """Prepares what is missing and reads all, as a training in one process does."""
    values = []
    for case in read_cohort(root / "data").cases:
        prepared = PreparedCase.open(prepare_case(root / "store", case, _tiny_config().data, content_hash(case)))
        described = (prepared.id, prepared.patient, prepared.site, prepared.modalities, prepared.regions)
        arrays = (prepared.image, prepared.masks, prepared.body, prepared.lesion)
        values.append([str(described), digest(*map(np.asarray, arrays))])
    return Outcome(values)


def _read_store_as_worker(root: Path) -> Outcome:
    """Reads what is there, as a worker on another node does, and prepares nothing."""
    values = []
    for folder in sorted((root / "store" / "cases").iterdir()):
        prepared = PreparedCase.open(folder)
        arrays = (prepared.image, prepared.masks, prepared.body, prepared.lesion)
        values.append([prepared.id, prepared.patient, digest(*map(np.asarray, arrays))])
    return Outcome(values)


def _checkpoints(root: Path) -> None:
    state = toys.state_of(toys.Toy())
    kept = FolderCheckpoints(root / "checkpoints")
    for step in (1, 2):
        state.position.step = step
        with torch.no_grad():
            state.networks["first"].value.fill_(float(step))
        kept.save({}, lambda folder: save_checkpoint(folder, state))


def _read_checkpoints(root: Path) -> Outcome:
    """As a training goes on."""
    warnings: list[str] = []
    newest = FolderCheckpoints(root / "checkpoints").latest(warnings.append)
    if newest is None:
        return Outcome("begins anew", ("nothing to resume",))
    state = toys.state_of(toys.Toy())
    load_checkpoint(newest, state)
    return Outcome([state.position.step, state.networks["first"].value.item()], tuple(warnings))


def _bucket(root: Path) -> None:
    run = root / "runs" / "first"
    run.mkdir(parents=True)
    for name in ("run.json", "history.json"):
        (run / name).write_text("{}")
    with _kept_in(root / "bucket") as address:
        send(run, address)
    shutil.rmtree(root / "runs")


def _fetch_bucket(root: Path) -> Outcome:
    """As a command on another machine does; whatever the bucket lists, only the run's folder is written."""
    with _kept_in(root / "bucket") as address:
        fetch(root / "runs" / "first", address)
    outside = {path.name for path in root.iterdir()} - {"bucket", "runs"}
    outside |= {path.name for path in (root / "runs").iterdir()} - {"first", ".kept"}
    assert not outside, f"{outside} written outside the run's folder"
    files = sorted(file for file in (root / "runs" / "first").rglob("*.json") if not file.name.startswith("."))
    return Outcome([(file.name, file.read_bytes()) for file in files])


@contextmanager
def _kept_in(bucket: Path) -> Iterator[Address]:
    bucket.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANSEG_RUNS_URI", bucket.as_uri())
        address = kept_at()
        assert address is not None
        yield address


def _run(root: Path) -> None:
    made_runs.finished_run(root)


def _read_run(root: Path) -> Outcome:
    """The report, as it is written."""
    (folder,) = [path for path in root.iterdir() if path.is_dir()]
    run = Run(folder)
    return Outcome(write_report(run).read_bytes())


TARGETS = (
    Target("NIfTI, compressed", _small(cohorts.write_brats, BRATS_CASES), read_data, is_checked=lambda file: True),
    Target("NIfTI", _small(cohorts.write_brats, BRATS_CASES[:1], suffix=".nii"), read_data),
    Target("TIFF", _small(cohorts.write_kaggle, ("TCGA_CS_4941_19960909",)), read_data),
    Target("TIFF, compressed", _compressed_tiff, read_data, is_checked=lambda file: True),
    Target("PNG", _pictures(), read_data, is_checked=lambda file: True),
    Target(
        "JPEG", lambda root: cohorts.write_pictures(root, "ab", suffix=".jpg", mask_suffix=".jpg") and None, read_data
    ),
    Target("manifest", _small(cohorts.write_manifest, ("p1", "p2", "p3")), read_data, "*.csv"),
    Target("patients.csv, labels.json", _patients_and_labels, read_data, "**/[pl]*.[cj]s*"),
    Target("dataset.json of nnU-Net", _small(cohorts.write_nnunet, ("c1", "c2")), read_data, "dataset.json"),
    Target("dataset.json of the Decathlon", _small(cohorts.write_decathlon, ("c1", "c2")), read_data, "dataset.json"),
    Target("config", _config, lambda root: Outcome(RunConfig.load(root / "config.json").to_json())),
    Target("model", _model, _read_model, is_checked=lambda file: file.suffix == ".safetensors"),
    Target("store", _store, _read_store, "store/cases/*/*", lambda file: True),
    Target("store on a worker", _store, _read_store_as_worker, "store/cases/*/*", lambda file: True),
    Target("checkpoints", _checkpoints, _read_checkpoints, "checkpoints/*/*", lambda file: True),
    Target("bucket", _bucket, _fetch_bucket, "bucket/**/*", lambda file: file.name != "contents.json"),
    Target("run", _run, _read_run),
)
