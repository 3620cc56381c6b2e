"""A hospital's folder: its settings and policy (site.json), and its data prepared for a federation.

`python -m clients.node HOME` checks whether its site.json can be used.
"""

from __future__ import annotations

import datetime
import hashlib
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from clients.training import Site
from ganseg_dist.atomic import private_folder, write_json
from ganseg_dist.config import RunConfig
from ganseg_dist.config.fields import Count, Frozen
from ganseg_dist.config.privacy import PrivacyDemand
from ganseg_dist.data.cohort import Cohort, Split, split_as_configured
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.record import DataRecord
from ganseg_dist.data.slices import LESION_CLASSES
from ganseg_dist.data.store import PreparedCase, case_damage
from ganseg_dist.digests import Damaged, read_sealed, sealed
from ganseg_dist.engine.world import World
from ganseg_dist.errors import ConfigError, DataError, FederationError, GansegError
from ganseg_dist.federation import egress_manifest
from ganseg_dist.federation.fingerprint import is_exchanged
from ganseg_dist.federation.fingerprint.histograms import Fingerprint
from ganseg_dist.federation.fingerprint.measure import fingerprint
from ganseg_dist.federation.fingerprint.record import release
from ganseg_dist.federation.privacy import check_privacy_demand, spent_before
from ganseg_dist.federation.protocol import RoundInstruction
from ganseg_dist.federation.schedule import rounds_of
from ganseg_dist.federation.shared_parameters import Arrays
from ganseg_dist.federation.site_info import Origin, SiteInfo
from ganseg_dist.files import open_regular, read_text
from ganseg_dist.names import SiteName
from ganseg_dist.planning.preflight import Preflight, labelled, preflight, usable_cohort
from ganseg_dist.planning.prepare import Prepared, by_part, prepare_cohort
from ganseg_dist.planning.run_folder import data_record, write_records
from ganseg_dist.printable import printable
from ganseg_dist.records import Problem, first_problem, no_such_field
from ganseg_dist.runs import RequestRecord, Run

COMMAND = "flwr run"
"""Recorded as the command of a site's run: the arguments of the site's own process hold a secret of Flower's."""


class SiteSettings(Frozen):
    """site.json, which the hospital writes and which never leaves it."""

    name: SiteName
    """The name under which the other sites know it; it leaves the hospital."""
    data: Path
    """Path of its images, as `ganseg check` takes it."""
    layout: str | None = None
    """The layout of its images; None: it is recognised."""
    labels: str | None = None
    """The scheme of its masks' values, as `ganseg check --labels` takes it; None: the layout's."""
    minimum_patients: Count = 3
    """With fewer usable patients it takes no part."""
    gpu: bool = False
    """Whether it trains on a GPU."""
    patients: tuple[str, ...] | None = None
    """Set for a simulated hospital: its patients among all those in the folder."""
    split: Mapping[str, tuple[str, ...]] | None = None
    """Its patients by train, validation and test; None: sampled by the run's seed and fractions."""
    minimum_group: Count = 5
    """Every number that it discloses of its data covers at least so many patients; a site with fewer discloses none."""
    privacy: PrivacyDemand | None = None
    """The privacy that it demands of a federation; None: it demands none."""


@dataclass(frozen=True, slots=True)
class SiteNode:
    """A hospital's folder: site.json, the state of each federation, and the egress manifest."""

    folder: Path

    @property
    def settings(self) -> SiteSettings:
        """Raises ConfigError naming the field of site.json that is wrong."""
        file = self.folder / "site.json"
        try:
            return SiteSettings.model_validate_json(read_text(file))
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read ({error.strerror}); docs/federation.md shows one") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{file}: is no text; docs/federation.md shows one") from None
        except ValidationError as error:
            raise ConfigError(f"{file}: {_first_problem(error)}") from None

    def check(self) -> Cohort:
        """The cohort that site.json names, listed but not opened: what can be checked before a server sends a config.

        Raises ConfigError naming the field, and DataError for data that cannot be read.
        """
        settings = self.settings
        self.make_private()
        try:
            return read_cohort(settings.data, settings.layout, settings.labels)
        except OSError as error:
            raise DataError(f"{settings.data}: cannot be read ({error.strerror}); correct its permissions") from None

    def make_private(self) -> None:
        """Close the folder to all but its owner, under any umask: its content comes from patients' images.

        Raises ConfigError where others may enter it and this process may not change its mode.
        """
        try:
            private_folder(self.folder)
        except OSError as error:
            raise ConfigError(
                f"{self.folder}: others may enter it, and it cannot be made its owner's alone ({error.strerror}); "
                f"chmod 700 it as its owner, and run the node as its owner"
            ) from None

    @property
    def manifest(self) -> Path:
        """Path of the egress manifest."""
        return self.folder / "egress.jsonl"

    def join(self, run: str, config: RunConfig) -> SiteInfo:
        """Check the data as `ganseg check` does, prepare them, and return their counts.

        Fields that the config leaves open are taken from the data, and the names in others must exist there.

        Raises FederationError when it promises less privacy than site.json demands, and DataError when a case would
        spoil training or there are fewer patients than the site allows.
        """
        settings = self.settings
        self._check_privacy_demand(run, config)
        cohort, found = self._checked(config)
        if len(cohort.patients) < settings.minimum_patients:
            raise DataError(
                f"{settings.data}: {len(cohort.patients)} patients can be trained on and the site's minimum_patients "
                f"is {settings.minimum_patients}; lower it in site.json or take no part"
            )
        _check_cohort(cohort, config)
        slices = 0
        if config.data.modalities is not None:  # agreed: the data are prepared before the first round
            ready = self._prepare_data(config, cohort, found)
            slices = len(Prepared(ready["cohort"]).open(config)["cohort"].train)
        classes = cohort.classes or (LESION_CLASSES if cohort.regions else ())
        return SiteInfo(
            settings.name, len(cohort.patients), len(cohort.cases), slices, cohort.modalities, cohort.regions,
            classes if config.system.task == "classification" else (), cohort.scheme, _origin(cohort),
        )  # fmt: skip

    def fingerprint(self, config: RunConfig) -> Fingerprint:
        """The site's disclosed histograms of the data that it trains on.

        It is measured anew only for another minimum_group in site.json.

        Raises FederationError where the config has none disclosed, and RunError where the stored one is damaged.
        """
        if not is_exchanged(config):
            raise FederationError("instruction: requests a fingerprint, which this config does not have disclosed")
        minimum = self.settings.minimum_group

        def measure() -> Fingerprint:
            cohort, _ = self._checked(config)
            cases = {case.id: case for case in cohort.cases}
            folders = (Path(folder) for part in self.prepare(config).cohort.values() for folder in part)
            prepared = map(PreparedCase.open, folders)
            return fingerprint(((cases[case.id], case) for case in prepared), config.data, minimum)

        return release(self._file(f"fingerprint-of-{minimum}", config), config.data, measure)

    def prepare(self, config: RunConfig) -> Prepared:
        """The site's slices as this run sees them; cases that the store already holds are reused."""
        return Prepared(self._prepared_data(config)["cohort"])

    def site(self, run: str, config: RunConfig) -> Site:
        """The site's end of one federation."""
        self._check_privacy_demand(run, config)
        device = torch.device("cuda" if self.settings.gpu else "cpu")
        return Site(self.folder / "runs" / run, self.prepare(config), World(device=device))

    def finish(self, instruction: RoundInstruction, received: Arrays) -> None:
        """After the last round, make the federation's folder that of a finished run, which `ganseg evaluate` takes."""
        config, settings = instruction.settings, self.settings
        site = self.site(instruction.run, config)
        ready = self._prepared_data(config)
        data = DataRecord.model_validate(ready["data"])
        site.finish(instruction, received, data)
        started, now = self._started(instruction.run), datetime.datetime.now(datetime.UTC)
        facts = {
            "status": "finished",
            "created": started.isoformat(timespec="seconds"),
            "seconds": (now - started).total_seconds(),
            "command": COMMAND,
            "federated": True,
            "request": RequestRecord(
                data=str(settings.data.absolute()), layout=settings.layout, labels=settings.labels
            ),
            "workers": 1,
            "device": site.world.device.type,
        }
        write_records(Run(site.folder), config, ready["split"], data, facts)

    def _check_privacy_demand(self, run: str, config: RunConfig) -> None:
        """Raises FederationError for a federation that promises less than site.json demands."""
        demanded = self.settings.privacy
        if demanded is not None:
            others = [folder / "privacy" for folder in (self.folder / "runs").glob("*") if folder.name != run]
            check_privacy_demand(demanded, config.federation.privacy, rounds_of(config), spent_before(others))

    def _started(self, run: str) -> datetime.datetime:
        """When the first message of this run left the site; now, if the manifest holds none or cannot be read."""
        with suppress(OSError, ValueError), open_regular(self.manifest) as lines:
            for entry in map(egress_manifest.read, lines):
                if entry.run == run:
                    return datetime.datetime.fromisoformat(entry.time)
        return datetime.datetime.now(datetime.UTC)

    def _prepared_data(self, config: RunConfig) -> dict[str, Any]:
        """The stored result of `_prepare_data`, if all its cases are intact; otherwise a new one."""
        with suppress(Damaged):  # which covers a missing file
            ready = read_sealed(self._file("ready", config))
            folders = [Path(folder) for part in ready["cohort"].values() for folder in part]
            if all(case_damage(folder) is None for folder in folders):
                return ready
        return self._prepare_data(config, *self._checked(config))

    def _prepare_data(self, config: RunConfig, cohort: Cohort, found: Preflight) -> dict[str, Any]:
        """The folders of prepared cases by part and, for the run's records, the split and the data's fingerprint."""
        split = self._split(cohort, config)
        used = cohort.of_patients((*split.train, *split.validation))
        ready = {
            "cohort": by_part(cohort, split, prepare_cohort(found, used, config.data)),
            "split": split.to_dict(),
            "data": data_record(cohort, found).model_dump(),
        }
        write_json(self._file("ready", config), sealed(ready))
        return ready

    def _file(self, kind: str, config: RunConfig) -> Path:
        """A file shared by all federations with the same data settings and seed."""
        digest = hashlib.sha256(f"{config.data.model_dump_json()}{config.seed}".encode()).hexdigest()[:16]
        return self.folder / f"{kind}-{digest}.json"

    def _checked(self, config: RunConfig) -> tuple[Cohort, Preflight]:
        settings = self.settings
        cohort = read_cohort(settings.data, settings.layout, settings.labels)
        if settings.patients is not None:
            case_ids = {case.id for case in cohort.of_patients(settings.patients)}
            cohort = cohort.without(case.id for case in cohort.cases if case.id not in case_ids)
        found = preflight(cohort, config)
        # A site may lack classes: others may have them.
        found = replace(found, findings=tuple(finding for finding in found.findings if finding.check != "one-class"))
        return labelled(usable_cohort(found, exclude_bad=False), config), found

    def _split(self, cohort: Cohort, config: RunConfig) -> Split:
        given = self.settings.split
        return split_as_configured(cohort, config) if given is None else Split.from_dict(given)


def _first_problem(error: ValidationError) -> str:
    """The field and its problem; for an unknown field, the known name closest to it."""
    problem = Problem.first(error)
    if problem.kind == "extra_forbidden":
        parents = problem.place[:-1]
        known = PrivacyDemand.model_fields if parents else SiteSettings.model_fields
        names = [".".join([*parents, name]) for name in known]
        return no_such_field(problem.field, names, f"the fields are {', '.join(names)}")
    return f"{problem.field}: is missing" if problem.kind == "missing" else first_problem(error, "file")


def _origin(cohort: Cohort) -> Origin:
    return "phantom" if cohort.phantom else "synthetic" if cohort.synthetic else "patients"


def _check_cohort(cohort: Cohort, config: RunConfig) -> None:
    """Raises ConfigError for channels or regions that the federation requests and the site does not have."""
    for field, requested, available in (
        ("modalities", config.data.modalities, cohort.modalities),
        ("regions", config.data.regions, cohort.regions),
    ):
        missing = [name for name in requested or () if name not in available]
        if missing:
            raise ConfigError(
                f"{cohort.root}: has no {missing[0]}, which the federation's data.{field} names; it has "
                f"{', '.join(available) or 'none'}; add the files, or take no part"
            )


def main() -> None:
    """Print in one line whether a node can start with the given folder."""
    node = SiteNode(Path(sys.argv[1]))
    try:
        cohort = node.check()
    except GansegError as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)
    print(printable(f"{node.settings.name}: {len(cohort.patients)} patients in {cohort.root} ({cohort.layout})"))


if __name__ == "__main__":
    main()
