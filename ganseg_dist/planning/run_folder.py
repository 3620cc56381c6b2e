"""A run's folder before training: which run a plan begins or resumes, and the records it starts with."""

from __future__ import annotations

import logging
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ganseg_dist import __version__
from ganseg_dist.atomic import write_text
from ganseg_dist.config import RunConfig
from ganseg_dist.config.operational import fixed_change, operational_changes
from ganseg_dist.data.cohort import Cohort, Split, split_as_configured
from ganseg_dist.data.record import CaseRecord, DataRecord
from ganseg_dist.errors import RunError
from ganseg_dist.planning.preflight import Preflight
from ganseg_dist.runs import Run, training_run

logger = logging.getLogger(__name__)


def planned_run(
    name: str, config: RunConfig, data: DataRecord, cohort: Cohort, split: Split | None = None
) -> tuple[Run, Split]:
    """The run that this name, config and data would start, resume or have finished; nothing is written.

    Without a given split, as an experiment gives one, patients are drawn from the config's seed and fractions.

    Raises RunError when the name belongs to another config (operational fields may differ), other data or an
    experiment, and DataError when there are too few patients to split.
    """
    run = training_run(name)
    if not (run.folder / "run.json").exists():
        return run, split or split_as_configured(cohort, config)
    if (change := fixed_change(run.config(), config)) is not None:
        raise RunError(f"{name}: was started with another config ({change}); choose another --run-name")
    stored = run.data()
    if _cases(stored) != _cases(data):
        raise RunError(f"{name}: was started on other data; choose another --run-name")
    if stored.labels != data.labels:
        raise RunError(f"{name}: was started on masks with other labels; choose another --run-name")
    if split is not None and run.split() != split:
        raise RunError(f"{name}: was started with another split; choose another --run-name")
    return run, run.split()


def open_run(
    name: str,
    config: RunConfig,
    data: DataRecord,
    cohort: Cohort,
    *,
    split: Split | None = None,
    **facts: Any,
) -> tuple[Run, Split]:
    """The planned run, its folder made where it is new. Raises as `planned_run` does."""
    run, split = planned_run(name, config, data, cohort, split)
    if (run.folder / "run.json").exists():
        return run, split
    status = {
        "status": "started",
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seconds": 0.0,
        "command": command_line(),
    }
    write_records(run, config, split.to_dict(), data, status | facts)
    return run, split


def update_config(run: Run, config: RunConfig) -> None:
    """Record the config by which a run resumes, whose operational fields may be others than before.

    Call it while the run is locked: another process may be training it.
    """
    changes = operational_changes(run.config(), config)
    if changes:
        logger.warning("%s: resumes with another config (%s); it changes no result", run.name, "; ".join(changes))
        write_text(run.folder / "config.json", config.to_json())


def write_records(
    run: Run, config: RunConfig, split: Mapping[str, Any], data: DataRecord, facts: Mapping[str, Any]
) -> None:
    """Write the records of a run's folder; run.json last, because a folder that has it is a run."""
    write_text(run.folder / "config.json", config.to_json())
    run.write("split.json", dict(split))
    run.write("data.json", data)
    run.describe(name=run.name, recipe=config.recipe, version=__version__, commit=code_version(), **facts)


def data_record(cohort: Cohort, found: Preflight, healthy: DataRecord | None = None) -> DataRecord:
    """The training data of a run of this cohort, with the cohort of healthy subjects that it uses besides."""
    excluded = {case.id for case in found.cohort.cases} - {case.id for case in cohort.cases}
    return DataRecord(
        root=str(cohort.root),
        layout=cohort.layout,
        phantom=cohort.phantom,
        synthetic=cohort.synthetic,
        modalities=tuple(cohort.modalities),
        regions=tuple(cohort.regions),
        channels=_channels(cohort),
        labels=cohort.scheme,
        otherwise_labelled=sum(scheme != cohort.scheme for scheme in cohort.schemes),
        cases=tuple(
            CaseRecord(id=case.id, patient=case.patient, site=case.site, content=found.contents[case.id])
            for case in cohort.cases
        ),
        excluded=tuple(finding for finding in found.findings if finding.case in excluded),
        healthy=healthy,
    )


def _cases(data: DataRecord) -> list[tuple[CaseRecord, ...]]:
    return [data.cases, data.healthy.cases if data.healthy else ()]


def _channels(cohort: Cohort) -> tuple[str, ...]:
    """Modalities in the order of their channels, where a case's files hold several; else none."""
    first = cohort.cases[0].images
    if len({source.files for source in first.values()}) > 1 or any(source.channel is None for source in first.values()):
        return ()
    return tuple(sorted(first, key=lambda name: first[name].channel or 0))


def command_line() -> str:
    """This process's command line, to be rerun."""
    return shlex.join(["ganseg", *sys.argv[1:]])


def code_version() -> str | None:
    """The commit of a source checkout, with + when files differ from it; none for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
