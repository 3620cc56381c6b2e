"""Reads a run's folder for its report. Every file may be missing; those that exist are validated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Split
from ganseg_dist.data.record import DataRecord
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.engine.state import Epoch
from ganseg_dist.errors import FederationError, RunError
from ganseg_dist.evaluation.gallery import Example, read_gallery
from ganseg_dist.evaluation.results import CaseRow, ClassSummary, ImageRow, Summary, read_cases, read_images
from ganseg_dist.federation.comparison import FederationComparison
from ganseg_dist.federation.fingerprint import record as fingerprint_record
from ganseg_dist.federation.fingerprint.histograms import Fingerprint
from ganseg_dist.federation.record import FederationRecord
from ganseg_dist.federation.site_settings import FILE, SiteSettings
from ganseg_dist.report.generated import Sheet, newest_sheet, shows_generated
from ganseg_dist.runs import Run, RunRecord

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The results of a segmenter on one part of the data."""

    part: str
    file: Path
    """summary.json."""
    summary: Summary
    cases: tuple[CaseRow, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Classification:
    """The results of a classifier on one part of the data."""

    part: str
    summary: ClassSummary
    images: tuple[ImageRow, ...]


@dataclass(frozen=True, slots=True)
class Records:
    """All records of a run's folder."""

    name: str
    description: RunRecord
    config: RunConfig | None
    history: tuple[Epoch, ...]
    data: DataRecord | None
    split: Split | None
    evaluations: tuple[Evaluation, ...]
    """Test first, then by name; none of a classifier."""
    classifications: tuple[Classification, ...]
    """The same for a classifier; none of a segmenter."""
    sheet: Sheet | None
    """The newest examples of a system that makes images."""
    federation: FederationRecord | None = None
    """For a run that sites trained together."""
    comparison: FederationComparison | None = None
    """The federation beside pooled data and each site alone, where they were compared."""
    fingerprints: Mapping[str, Fingerprint] = field(default_factory=dict)
    """By site, the fingerprint of its data from before the first round."""
    simulation: tuple[SiteSettings, ...] = ()
    """The sites of a simulated federation; a case's site is then the one that it was assigned to."""

    @classmethod
    def of(cls, run: Run) -> Records:
        """Read the run's folder. Raises RunError naming the file and the field that cannot be used."""
        folder = run.folder
        config = run.config() if (folder / "config.json").exists() else None
        parts, classifies = _evaluated_parts(run), _classifies(config)
        description = run.find_record("run.json", RunRecord) or RunRecord()
        tracked = description.mlflow.run_id if description.mlflow is not None else None
        data = run.find_record("data.json", DataRecord)
        simulation = read_simulation(run)
        site_of = {patient: site.name for site in simulation for patient in site.patients or ()}
        return cls(
            name=run.name,
            description=description,
            config=config,
            history=_history(run),
            data=_data_at(site_of, data) if data is not None else None,
            split=run.split() if (folder / "split.json").exists() else None,
            evaluations=() if classifies else tuple(_evaluation(run, part, site_of) for part in parts),
            classifications=tuple(_classification(run, part) for part in parts) if classifies else (),
            sheet=newest_sheet(run, tracked) if shows_generated(config) else None,
            federation=run.federation(),
            comparison=run.find_record("comparison.json", FederationComparison),
            fingerprints=_fingerprints(run, config),
            simulation=simulation,
        )

    @property
    def classifies(self) -> bool:
        """Whether the run's system classifies whole images."""
        return _classifies(self.config)

    def patients_known(self, part: str) -> bool:
        """Whether n counts patients in this part; of another cohort than the run's it is assumed."""
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
    finished = run.find_record("history.json", tuple[Epoch, ...])
    if finished is not None:
        return finished
    return tuple(FolderCheckpoints(run.checkpoints).history())


def _data_at(site_of: Mapping[str, str], data: DataRecord) -> DataRecord:
    """Replace each case's site by the federation's, which may differ from the cohort's."""
    cases = (case.model_copy(update={"site": site_of.get(case.patient, case.site)}) for case in data.cases)
    return data.model_copy(update={"cases": tuple(cases)})


def _evaluated_parts(run: Run) -> list[str]:
    parts = (path.parent.name for path in run.evaluation("_").parent.glob("*/summary.json"))
    return sorted(parts, key=lambda part: (part != "test", part))


def _evaluation(run: Run, part: str, site_of: Mapping[str, str]) -> Evaluation:
    folder = run.evaluation(part)
    summary = run.read_record(f"evaluation/{part}/summary.json", Summary)
    cases = (replace(case, site=site_of.get(case.patient, case.site)) for case in read_cases(folder / "cases.csv"))
    examples = read_gallery(folder / "gallery.npz")
    return Evaluation(part, folder / "summary.json", summary, tuple(cases), examples)


def _classification(run: Run, part: str) -> Classification:
    summary = run.read_record(f"evaluation/{part}/summary.json", ClassSummary)
    return Classification(part, summary, read_images(run.evaluation(part) / "images.csv", summary.classes))


def _fingerprints(run: Run, config: RunConfig | None) -> dict[str, Fingerprint]:
    """The sites' fingerprints in fingerprint.json; none for a run in one place, or where none were requested."""
    file = run.folder / fingerprint_record.FILE
    if config is None or not file.exists():
        return {}
    try:
        return fingerprint_record.read_sites(run.read(file.name), config.data)
    except FederationError:
        raise RunError(f"{file}: is damaged; delete it, and the report omits it") from None


def read_simulation(run: Run) -> tuple[SiteSettings, ...]:
    """The sites of a simulation by name; empty for a deployment, and where the sites' folders were deleted.

    Raises ConfigError naming the file and the field that is wrong.
    """
    sites = (SiteSettings.load(file) for file in sorted(run.folder.glob(f"sites/*/{FILE}")))
    return tuple(sorted(sites, key=lambda site: site.name))
