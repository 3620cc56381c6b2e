"""Targets of damage: each builds an input and reads it to one value."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from clients.egress import EgressManifest
from ganseg_dist.atomic import write_json
from ganseg_dist.cli.audit import EgressCounts, _verify_manifest
from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.checks.case_checks import check_case
from ganseg_dist.data.checks.cohort_checks import check_cohort, expected_modalities
from ganseg_dist.data.cohort import Case
from ganseg_dist.data.labels import BINARY
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.scan import load_scan
from ganseg_dist.data.store import PreparedCase, content_hash, prepare_case
from ganseg_dist.digests import sealed
from ganseg_dist.engine.checkpoint import FolderCheckpoints, load_checkpoint, save_checkpoint
from ganseg_dist.errors import DataError
from ganseg_dist.evaluation.probabilities import KeptCase, _arrays, _file, read_probabilities
from ganseg_dist.evaluation.results import CaseRow
from ganseg_dist.federation.egress_manifest import Content
from ganseg_dist.federation.privacy import Releases
from ganseg_dist.files import sha256
from ganseg_dist.inference.ensemble import load_together, member_folders, write_index
from ganseg_dist.inference.model_folder import Thresholds, load_model, write_model
from ganseg_dist.report.page import write_report
from ganseg_dist.runs import Run
from ganseg_dist.storage.remote import RemoteFolder, remote_folder
from ganseg_dist.storage.transfer import fetch, send
from ganseg_dist.studies.study import Study, write_result
from ganseg_dist.studies.sweeps.metric import Metric
from ganseg_dist.studies.sweeps.publish import best_values
from ganseg_dist.studies.sweeps.sweep import Sweep
from ganseg_dist.studies.trial import TrialResult
from ganseg_dist.systems import recipe
from tests.data import cohorts
from tests.engine import toys
from tests.inference.untrained import model_folder
from tests.report import made_runs


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was read."""

    value: Any
    """Equal values mean that the damage changed nothing."""
    warnings: tuple[str, ...] = ()
    """The product's message."""


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
    few: int = 20
    """How often the quick suite damages it; fewer where a read takes long."""


BRATS_CASES = ("BraTS20_Training_001", "BraTS20_Training_002")


def digest(*arrays: np.ndarray) -> str:
    """Digest of shapes, kinds and values."""
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


def _small(builder: Callable[..., object], *args: Any, depth: int = 8, **more: Any) -> Callable[[Path], None]:
    """A cohort of tests/data/cohorts.py, of fewer voxels."""

    def build(root: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cohorts, "SHAPE", (16, 20, depth))
            builder(root, *args, **more)

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

    _small(cohorts.write_kaggle, ("TCGA_CS_4941_19960909",), depth=3)(root)
    for file in root.rglob("*.tif"):
        tifffile.imwrite(file, tifffile.imread(file), compression="zlib")


def _config(root: Path) -> None:
    (root / "config.json").write_text(recipe("ganet_seg_debug").to_json())


def _tiny_config() -> RunConfig:
    return override(recipe("ganet_seg_debug"), {"data.modalities": ["t1"], "data.regions": ["wt"]})


def _model(root: Path) -> None:
    from tests.inference.untrained import untrained_weights

    config = _tiny_config()
    weights = untrained_weights(config, root / "untrained.safetensors")
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
        model.scheme.describe(),
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
        arrays = (prepared.image, prepared.masks, prepared.foreground, prepared.lesion)
        values.append([str(described), digest(*map(np.asarray, arrays))])
    return Outcome(values)


def _read_store_as_worker(root: Path) -> Outcome:
    """Reads what is there, as a worker on another node does, and prepares nothing."""
    values = []
    for folder in sorted((root / "store" / "cases").iterdir()):
        prepared = PreparedCase.open(folder)
        arrays = (prepared.image, prepared.masks, prepared.foreground, prepared.lesion)
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
    """As a training continues."""
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
    with _kept_in(root / "bucket") as remote:
        send(run, remote)
    shutil.rmtree(root / "runs")


def _fetch_bucket(root: Path) -> Outcome:
    """As a command on another machine does; whatever the bucket lists, only the run's folder is written."""
    with _kept_in(root / "bucket") as remote:
        fetch(root / "runs" / "first", remote)
    outside = {path.name for path in root.iterdir()} - {"bucket", "runs"}
    outside |= {path.name for path in (root / "runs").iterdir()} - {"first", ".copies"}
    assert not outside, f"{outside} written outside the run's folder"
    files = sorted(file for file in (root / "runs" / "first").rglob("*.json") if not file.name.startswith("."))
    return Outcome([(file.name, file.read_bytes()) for file in files])


@contextmanager
def _kept_in(bucket: Path) -> Iterator[RemoteFolder]:
    bucket.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANSEG_RUNS_URI", bucket.as_uri())
        remote = remote_folder()
        assert remote is not None
        yield remote


DICE = Metric("val/dice_wt", every_epoch=True)


def _sweep(root: Path) -> None:
    found = Run(root / "s")
    metrics = [asdict(DICE)]
    found.write("study.json", {"kind": "sweep", "trials": 3, "metrics": metrics, "space": "ganet_seg", "patients": 2})
    study = Study.load(found)
    for trial, dice in zip(study.trial_names, (0.5, 0.7, 0.6), strict=True):
        result = TrialResult(f"s.{trial}", {"train.seed": int(trial)}, scores={DICE.name: dice}, epochs=3)
        write_result(study.result_file(trial), result)
    best = Sweep.of(study).best
    found.write("best.json", {"values": dict(best.values)})


def _read_sweep(root: Path) -> Outcome:
    """As `--from-sweep` and `ganseg report` do."""
    found = Sweep.of(Study.load(Run(root / "s")))
    return Outcome([found.metrics, found.patients, found.ranked, best_values(str(root / "s"))])


def _outcomes(root: Path) -> None:
    for name, dice in (("fold1", 0.5), ("fold2", 0.7)):
        rows = (CaseRow("c", "p", "x", {"wt/dice": dice}),)
        write_result(root / "trials" / f"{name}.json", TrialResult(name, {"fold": name}, 1.0, rows))


def _read_outcomes(root: Path) -> Outcome:
    """As a resumed experiment, which scores unknown trials again."""
    study = Study(Run(root), {"kind": "folds", "trials": {"fold1": {}, "fold2": {}}})
    scored_again = ("scored again",) if study.remaining() else ()
    return Outcome(list(study.results().values()), scored_again)


def _ledger(root: Path) -> None:
    releases = Releases.open(root, None)
    for round in (1, 2):
        releases.once(round, lambda round=round: {"w": np.full(3, round, np.float32)})  # type: ignore[misc]


def _read_ledger(root: Path) -> Outcome:
    """As a restarted server or site of a federation."""
    releases = Releases.open(root, None)
    released = [releases.of(round) for round in releases.rounds]
    return Outcome([releases.to_dict(), [digest(*parts.values()) for parts in released if parts is not None]])


EGRESS = "egress.jsonl"


def _egress(root: Path) -> None:
    for round in (1, 2, 3):
        sent = {"networks.segmenter.weight": np.full(3, round, np.float32)}
        entry = EgressManifest(root / EGRESS).record(Content.of("train", "lgg", round, sent, {"loss": 0.5}))
    (root / "head").write_text(entry.hash)


def _read_egress(root: Path) -> Outcome:
    """As `ganseg audit --head` does, and then the hospital's client."""
    summary = EgressCounts()
    verdict = _verify_manifest(root / EGRESS, summary, (root / "head").read_text())
    EgressManifest(root / EGRESS)
    return Outcome(str(summary.to_dict()), tuple(fault.problem for fault in verdict.faults))


def _probabilities(root: Path) -> None:
    rng = np.random.default_rng(0)
    digests = []
    for number in (0, 1):
        probability, truth = rng.random((1, 3, 4, 2), np.float32), rng.random((1, 3, 4, 2)) > 0.5
        slices = (probability[0, 0, 0], truth[0, 0, 0])
        kept = KeptCase(f"c{number}", "p", (1.0, 1.0, 2.0), (8, 8, 4), (1, 2, 0), probability, truth, *slices)
        save_file(_arrays(kept), root / _file(number))
        digests.append(sha256(root / _file(number)))
    cases = [{"case": f"c{number}", "patient": "p"} for number in (0, 1)]
    write_json(root / "index.json", sealed({"weights": "a", "regions": ["wt"], "cases": cases, "digests": digests}))


def _read_probabilities(root: Path) -> Outcome:
    cases = read_probabilities(root)
    described = [(case.case, case.patient, case.spacing_mm, case.shape, case.corner) for case in cases]
    return Outcome([described, [digest(case.probability, case.truth, case.score, case.abnormal) for case in cases]])


def _ensemble(root: Path) -> None:
    for name in ("fold1", "fold2"):
        model_folder(root / name, ("t1",), ("wt",), thresholds=Thresholds({"wt": 0.4}, 0.2, 3))
        (root / f"{name}.untrained").unlink()
    write_index(root, ["fold1", "fold2"])


def _read_ensemble(root: Path) -> Outcome:
    model = load_together(member_folders(root))
    weights = [value.numpy() for network in model.system.networks.values() for value in network.state_dict().values()]
    return Outcome([model.config.to_json(), str(model.thresholds), model.scheme.describe(), digest(*weights)])


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
    Target("TIFF", _small(cohorts.write_kaggle, ("TCGA_CS_4941_19960909",), depth=3), read_data),
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
    Target("run", _run, _read_run, few=10),
    Target("sweep", _sweep, _read_sweep, is_checked=lambda file: True),
    Target("outcomes of an experiment", _outcomes, _read_outcomes, is_checked=lambda file: True),
    Target("ledger of releases", _ledger, _read_ledger, is_checked=lambda file: True),
    Target("egress manifest", _egress, _read_egress, EGRESS, lambda file: True),
    Target("kept probabilities", _probabilities, _read_probabilities, is_checked=lambda file: True),
    Target("ensemble", _ensemble, _read_ensemble, is_checked=lambda file: file.suffix != ".md"),
)
