"""Reads a run's folder for its report. Every file may be missing; those that exist are validated."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, TypeAdapter

from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Split
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.errors import FederationError, RunError
from ganseg_dist.federation.fingerprint import record as fingerprint_record
from ganseg_dist.federation.fingerprint.histograms import Fingerprint
from ganseg_dist.federation.record import FederationRecord
from ganseg_dist.files import parse_json, read_bytes, read_csv
from ganseg_dist.inference.card import unknown_patients
from ganseg_dist.report.classified import Classification, read_classification
from ganseg_dist.report.compared import Comparison, read_comparison
from ganseg_dist.report.reading import Difference, Interval, Record, finite, read_record
from ganseg_dist.report.sheets import Sheet, newest_sheet, shows_generated
from ganseg_dist.report.simulated import SimulatedSite, read_simulation
from ganseg_dist.runs import Run

PARTS = ("train", "validation", "test")

Plane = npt.NDArray[np.float32]
Masks = npt.NDArray[np.uint8]


class Tracked(Record):
    """Where MLflow keeps the run."""

    uri: str | None = None
    run_id: str | None = None


class Kept(Record):
    """The epoch whose weights a stage handed on."""

    epoch: int
    best_of: tuple[str, ...]
    """The scores whose mean is best in this epoch; none: it is the last epoch."""


class Description(Record):
    """run.json."""

    recipe: str = "unknown"
    status: str = "unknown"
    created: str | None = None
    seconds: float | None = None
    version: str | None = None
    commit: str | None = None
    workers: int | None = None
    device: str | None = None
    command: str | None = None
    error: str | None = None
    """Why an unfinished run stopped."""
    mlflow: Tracked | None = None
    sites: dict[str, int] = Field(default_factory=dict)
    """Patients by site, of a simulated federation; a deployment's sites report theirs as they join."""
    absent: tuple[str, ...] = ()
    """Networks that stayed at the sites."""
    kept: dict[str, Kept] = Field(default_factory=dict)
    """By stage, of a finished run."""


class Epoch(Record):
    """One record of history.json; losses are named `phase/term`, dynamic weights `phase/weight_term`."""

    stage: str
    epoch: int
    losses: dict[str, float]
    scores: dict[str, float]


class ListedCase(Record):
    """A case that was used."""

    id: str
    patient: str
    site: str
    content: str | None = None


class ExcludedCase(Record):
    """A case that was left out, and why."""

    case: str
    problem: str
    remedy: str = ""


class Data(Record):
    """data.json: the cohort's fingerprint."""

    root: str
    layout: str
    phantom: bool = False
    synthetic: bool = False
    modalities: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    cases: tuple[ListedCase, ...] = ()
    excluded: tuple[ExcludedCase, ...] = ()

    @property
    def unknown_patients(self) -> int:
        """Number of cases that count as one patient each because their patient is unknown."""
        return unknown_patients(self.layout, ((case.id, case.patient) for case in self.cases))


class Method(Record):
    """One row of the scores table: the run itself or a method that it is compared with."""

    name: str
    kind: Literal["model", "baseline", "comparison"]
    n: int
    scores: dict[str, Interval]


class Paired(Difference):
    """Method a minus method b over the same subjects."""

    score: str
    a: str
    b: str


class ThresholdRow(Record):
    """Detection of abnormal slices at one threshold on the discriminator's score."""

    threshold: float
    accuracy: float
    sensitivity: float | None
    specificity: float | None
    youden_j: float | None
    tp: int
    fn: int
    fp: int
    tn: int


class Detection(Record):
    """Detection of abnormal slices by the discriminator: a slice is abnormal if score < threshold."""

    auroc: float | None
    auprc: float | None
    n_slices: int
    n_abnormal: int
    score: str
    chosen: float | None
    rows: tuple[ThresholdRow, ...]
    roc: tuple[tuple[float, float], ...]
    """(false positive rate, true positive rate)."""


class Feedback(Record):
    """L_adv of true and wrong masks, as `systems.ganet_seg.feedback_evidence` measures it."""

    losses: dict[str, Interval]
    margins: dict[str, Difference]
    cosine: Interval | None
    grown: Interval
    shrunk: Interval


class Healthy(Record):
    """How well the generator fills holes in healthy tissue."""

    hole_l1: float
    biharmonic_l1: float
    guess_l1: float | None = None
    """The smooth guess that the generator refines."""
    hole_l1_interval: Interval | None = None
    guess_l1_interval: Interval | None = None
    biharmonic_l1_interval: Interval | None = None
    less_biharmonic: Difference | None = None
    n_holes: int
    psnr: float | None = None
    ssim: float | None = None
    feedback: Feedback | None = None


class Summary(Record):
    """evaluation/PART/summary.json."""

    part: str
    n_cases: int
    n_patients: int
    distance_unit: Literal["mm", "px"]
    rows: tuple[Method, ...]
    paired: tuple[Paired, ...] = ()
    detection: Detection | None = None
    healthy: Healthy | None = None
    thresholds: dict[str, float] = Field(default_factory=dict)
    calibrated_on: int = 0
    """Validation patients that the thresholds were chosen on; 0: none, they are the defaults."""

    @property
    def model(self) -> Method | None:
        """The run's own row."""
        return next((row for row in self.rows if row.kind == "model"), None)

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions that are scored, in the order of the scores."""
        return tuple(dict.fromkeys(score.partition("/")[0] for row in self.rows for score in row.scores))


@dataclass(frozen=True, slots=True)
class ScoredCase:
    """One line of cases.csv."""

    case: str
    patient: str
    site: str
    scores: dict[str, float]


@dataclass(frozen=True, slots=True)
class Example:
    """One slice of gallery.npz."""

    case: str
    rank: str
    slice: int
    dice: float
    """Of the whole case."""
    sides_known: bool
    """Whether columns run from the patient's left to right."""
    image: Plane
    """(C, H, W) in [-1, 1]."""
    truth: Masks
    """(R, H, W) in {0, 1}."""
    predicted: Masks
    """(R, H, W) in {0, 1}."""
    anomaly: Plane | None
    """(1, H, W) in [0, 1]."""
    reconstruction: Plane | None
    """(C', H, W) in [-1, 1]."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The results of a segmenter on one part of the data."""

    part: str
    summary: Summary
    cases: tuple[ScoredCase, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Records:
    """All records of a run's folder."""

    name: str
    description: Description
    config: RunConfig | None
    history: tuple[Epoch, ...]
    data: Data | None
    split: Split | None
    evaluations: tuple[Evaluation, ...]
    """Test first, then by name; none of a classifier."""
    classifications: tuple[Classification, ...]
    """The same for a classifier; none of a segmenter."""
    sheet: Sheet | None
    """The newest examples of a system that makes images."""
    federation: FederationRecord | None = None
    """For a run that sites trained together."""
    comparison: Comparison | None = None
    """The federation beside pooled data and each site alone, where they were compared."""
    fingerprints: Mapping[str, Fingerprint] = field(default_factory=dict)
    """By site, the fingerprint of its data from before the first round."""
    simulation: tuple[SimulatedSite, ...] = ()
    """The sites of a simulated federation; a case's site is then the one that it was dealt to."""

    @classmethod
    def of(cls, run: Run) -> Records:
        """Read the run's folder. Raises RunError naming the file and the field that cannot be used."""
        folder = run.folder
        config = run.config() if (folder / "config.json").exists() else None
        parts, classifies = _evaluated_parts(run), _classifies(config)
        description = read_record(run, "run.json", TypeAdapter(Description)) or Description()
        tracked = description.mlflow.run_id if description.mlflow is not None else None
        data = read_record(run, "data.json", TypeAdapter(Data))
        simulation = read_simulation(run)
        site_of = {patient: site.name for site in simulation for patient in site.patients}
        return cls(
            name=run.name,
            description=description,
            config=config,
            history=_history(run),
            data=_data_at(site_of, data) if data is not None else None,
            split=run.split() if (folder / "split.json").exists() else None,
            evaluations=() if classifies else tuple(_evaluation_at(site_of, _evaluation(run, part)) for part in parts),
            classifications=tuple(read_classification(run, part) for part in parts) if classifies else (),
            sheet=newest_sheet(run, tracked) if shows_generated(config) else None,
            federation=run.federation(),
            comparison=read_comparison(run),
            fingerprints=_fingerprints(run, config),
            simulation=simulation,
        )

    @property
    def classifies(self) -> bool:
        """Whether the run's system classifies whole images."""
        return _classifies(self.config)

    def patients_known(self, part: str) -> bool:
        """Whether n counts patients in this part; of a cohort other than the run's own it is assumed."""
        return part not in PARTS or self.data is None or not self.data.unknown_patients

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the image channels; empty when unknown."""
        if self.config is not None and self.config.data.modalities is not None:
            return self.config.data.modalities
        return self.data.modalities if self.data is not None else ()


def _classifies(config: RunConfig | None) -> bool:
    return config is not None and config.system.task == "classification"


def _history(run: Run) -> tuple[Epoch, ...]:
    """history.json; for a run that is still training, or was interrupted, the history of its newest checkpoint."""
    epochs = TypeAdapter(tuple[Epoch, ...])
    finished = read_record(run, "history.json", epochs)
    if finished is not None:
        return finished
    return epochs.validate_python(FolderCheckpoints(run.checkpoints).history())


def _data_at(site_of: Mapping[str, str], data: Data) -> Data:
    """Replace each case's site by the federation's, which may differ from the cohort's own."""
    cases = (case.model_copy(update={"site": site_of.get(case.patient, case.site)}) for case in data.cases)
    return data.model_copy(update={"cases": tuple(cases)})


def _evaluation_at(site_of: Mapping[str, str], evaluation: Evaluation) -> Evaluation:
    cases = (replace(case, site=site_of.get(case.patient, case.site)) for case in evaluation.cases)
    return replace(evaluation, cases=tuple(cases))


def _evaluated_parts(run: Run) -> list[str]:
    parts = (path.parent.name for path in run.evaluation("_").parent.glob("*/summary.json"))
    return sorted(parts, key=lambda part: (part != "test", part))


def _evaluation(run: Run, part: str) -> Evaluation:
    summary = read_record(run, f"evaluation/{part}/summary.json", TypeAdapter(Summary))
    if summary is None:
        raise RunError(f"{run.evaluation(part)}: has lost its summary.json; evaluate again")
    folder = run.evaluation(part)
    return Evaluation(part, summary, _cases(folder / "cases.csv"), _examples(folder / "gallery.npz"))


def _cases(path: Path) -> tuple[ScoredCase, ...]:
    """The lines of a cases.csv; a score left empty is left out."""
    if not path.exists():
        return ()
    try:
        return tuple(
            ScoredCase(
                line.pop("case"),
                line.pop("patient"),
                line.pop("site"),
                {name: finite(value) for name, value in line.items() if value},
            )
            for line in read_csv(path)
        )
    except (OSError, KeyError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error}); evaluate again") from None


def _examples(path: Path) -> tuple[Example, ...]:
    if not path.exists():
        return ()
    try:
        with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as arrays:
            index: list[dict[str, Any]] = parse_json(str(arrays["index"]))
            return tuple(_example(entry, dict(arrays)) for entry in index)
    except Exception as error:  # a damaged archive raises errors of a dozen classes
        raise RunError(f"{path}: cannot be read ({error}); evaluate again") from None


def _example(entry: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> Example:
    key = entry["k"]
    return Example(
        case=str(entry["case"]),
        rank=str(entry["rank"]),
        slice=int(entry["slice"]),
        dice=float(entry["dice"]),
        sides_known=bool(entry["sides_known"]),
        image=arrays[f"{key}/image"],
        truth=arrays[f"{key}/truth"],
        predicted=arrays[f"{key}/predicted"],
        anomaly=arrays.get(f"{key}/anomaly"),
        reconstruction=arrays.get(f"{key}/reconstruction"),
    )


def _fingerprints(run: Run, config: RunConfig | None) -> dict[str, Fingerprint]:
    """The sites' fingerprints in fingerprint.json; none for a run in one place, or where none were requested."""
    file = run.folder / fingerprint_record.FILE
    if config is None or not file.exists():
        return {}
    try:
        return fingerprint_record.read_sites(run.read(file.name), config.data)
    except FederationError:
        raise RunError(f"{file}: is damaged; delete it, and the report goes without") from None
