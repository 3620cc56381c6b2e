"""A hospital's folder: what it says of itself, what it allows, and its data made ready for a federation.

`python -m clients.node HOME` says whether its site.json can be used.
"""

from __future__ import annotations

import datetime
import hashlib
import json
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
from ganseg_dist.data.slices import LESION_CLASSES
from ganseg_dist.data.store import PreparedCase, case_damage
from ganseg_dist.digests import Damaged, read_sealed, sealed
from ganseg_dist.engine.world import World
from ganseg_dist.errors import ConfigError, DataError, FederationError, GansegError, RunError
from ganseg_dist.federation import manifest
from ganseg_dist.federation.fingerprint import Fingerprint, axes
from ganseg_dist.federation.measure import fingerprint
from ganseg_dist.federation.privacy import check_privacy_demand, keeps_numbers_home, spent_before
from ganseg_dist.federation.round_instruction import RoundInstruction
from ganseg_dist.federation.schedule import rounds_of
from ganseg_dist.federation.shared_parameters import Arrays
from ganseg_dist.federation.site_info import Origin, SiteInfo, SiteName
from ganseg_dist.files import open_regular, read_text
from ganseg_dist.planning.plan import Prepared, by_part, write_records
from ganseg_dist.planning.plan import fingerprint as learnt_from
from ganseg_dist.planning.prepare import Preflight, labelled, preflight, prepare_cohort, usable_cohort
from ganseg_dist.printable import printable
from ganseg_dist.runs import Run
from ganseg_dist.suggestion import suggestion

COMMAND = "flwr run"
"""What a site's run says it was started by: the server's. Its own process's words hold a secret of Flower's."""


class SiteSettings(Frozen):
    """site.json, which a hospital writes and nobody else reads."""

    name: SiteName
    """What the other sites may call it; it leaves the hospital."""
    data: Path
    """Its images, as `ganseg check` takes them."""
    layout: str | None = None
    """The layout of its images; none: recognised."""
    labels: str | None = None
    """The scheme of its masks' values, as `ganseg check --labels` takes it; none: as names have it."""
    minimum_patients: Count = 3
    """With fewer that can be trained on it takes no part."""
    gpu: bool = False
    """Whether it trains on a GPU."""
    patients: tuple[str, ...] | None = None
    """Its patients, where others' are in the same folder: a simulated hospital."""
    split: Mapping[str, tuple[str, ...]] | None = None
    """Its patients by train, validation and test; none: drawn from the run's seed and fractions."""
    minimum_group: Count = 5
    """No number that it tells of its data stands for fewer patients; above its patients it tells nothing."""
    privacy: PrivacyDemand | None = None
    """What it asks of a federation; none: it takes part without."""


@dataclass(frozen=True, slots=True)
class SiteNode:
    """A hospital's folder: site.json, the state of each federation, the manifest of what left it."""

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
        """The images that site.json names, found and not yet opened: what can be known before a server asks.

        Raises ConfigError naming the field, and DataError for data that cannot be read.
        """
        settings = self.settings
        self.make_private()
        try:
            return read_cohort(settings.data, settings.layout, settings.labels)
        except OSError as error:
            raise DataError(f"{settings.data}: cannot be read ({error.strerror}); mend its permissions") from None

    def make_private(self) -> None:
        """Nobody but its owner may enter it, whatever the umask is: all that it holds is made of patients' images.

        Raises ConfigError where others may, and it is not this process's to change.
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
        """What left the hospital."""
        return self.folder / "egress.jsonl"

    def join(self, run: str, config: RunConfig) -> SiteInfo:
        """Check the data as `ganseg check` does, make them ready, and say how many there are.

        Args:
            run: the federation's name.
            config: of the federation; what it leaves to the data is answered, what it names must be there.

        Raises FederationError when it promises less privacy than site.json asks, and DataError when a case would spoil
        training or there are fewer patients than the site allows.
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
        if config.data.modalities is not None:  # agreed: the data are made ready before the first round
            ready = self._made_ready(config, cohort, found)
            slices = len(Prepared(ready["cohort"]).open(config)["cohort"].train)
        classes = cohort.classes or (LESION_CLASSES if cohort.regions else ())
        return SiteInfo(
            settings.name, len(cohort.patients), len(cohort.cases), slices, cohort.modalities, cohort.regions,
            classes if config.system.task == "classification" else (), cohort.scheme, _origin(cohort),
        )  # fmt: skip

    def fingerprint(self, config: RunConfig) -> Fingerprint:
        """What it tells of the data that it trains on.

        Asked again it says the same, whatever was added since, unless site.json asks for larger groups by then.

        Raises FederationError where its numbers stay at home, and RunError where what it told is damaged.
        """
        if keeps_numbers_home(config):
            raise FederationError("instruction: asks for a fingerprint, which stays at home with privacy")
        minimum = self.settings.minimum_group
        file = self._file(f"fingerprint-of-{minimum}", config)
        if file.exists():
            try:
                return Fingerprint.from_json(json.dumps(read_sealed(file)), axes(config.data))
            except Damaged as damage:
                raise RunError(f"{damage}; restore what the site has told, or delete it to tell it anew") from None
        cohort, _ = self._checked(config)
        cases = {case.id: case for case in cohort.cases}
        opened = (PreparedCase.open(Path(folder)) for part in self.prepare(config).cohort.values() for folder in part)
        told = fingerprint(((cases[case.id], case) for case in opened), config.data, minimum)
        write_json(file, sealed(json.loads(told.to_json())))
        return told

    def prepare(self, config: RunConfig) -> Prepared:
        """The site's slices as this run sees them, from the store where they are there already."""
        return Prepared(self._ready(config)["cohort"])

    def site(self, run: str, config: RunConfig) -> Site:
        """The site in one federation."""
        self._check_privacy_demand(run, config)
        device = torch.device("cuda" if self.settings.gpu else "cpu")
        return Site(self.folder / "runs" / run, self.prepare(config), World(device=device))

    def finish(self, instruction: RoundInstruction, received: Arrays) -> None:
        """The federation is over: the site's folder of it becomes a run's, which `ganseg evaluate` takes."""
        config, settings = instruction.settings, self.settings
        site = self.site(instruction.run, config)
        ready = self._ready(config)
        site.finish(instruction, received, ready["data"])
        begun, now = self._begun(instruction.run), datetime.datetime.now(datetime.UTC)
        facts = {
            "status": "finished",
            "created": begun.isoformat(timespec="seconds"),
            "seconds": (now - begun).total_seconds(),
            "command": COMMAND,
            "federated": True,
            "request": {"data": str(settings.data.absolute()), "layout": settings.layout, "labels": settings.labels},
            "workers": 1,
            "device": site.world.device.type,
        }
        write_records(Run(site.folder), config, ready["split"], ready["data"], facts)

    def _check_privacy_demand(self, run: str, config: RunConfig) -> None:
        """Raises FederationError for a federation that promises less than site.json asks."""
        demanded = self.settings.privacy
        if demanded is not None:
            others = [folder / "privacy" for folder in (self.folder / "runs").glob("*") if folder.name != run]
            check_privacy_demand(demanded, config.federation.privacy, rounds_of(config), spent_before(others))

    def _begun(self, run: str) -> datetime.datetime:
        """When the first message of this run left; now, where the manifest cannot tell."""
        with suppress(OSError, ValueError), open_regular(self.manifest) as lines:
            for entry in map(manifest.read, lines):
                if entry.run == run:
                    return datetime.datetime.fromisoformat(entry.time)
        return datetime.datetime.now(datetime.UTC)

    def _ready(self, config: RunConfig) -> dict[str, Any]:
        """What `_made_ready` made, where all of it is still whole; else it is made now."""
        with suppress(Damaged):  # or not there yet
            ready = read_sealed(self._file("ready", config))
            folders = [Path(folder) for part in ready["cohort"].values() for folder in part]
            if all(case_damage(folder) is None for folder in folders):
                return ready
        return self._made_ready(config, *self._checked(config))

    def _made_ready(self, config: RunConfig, cohort: Cohort, found: Preflight) -> dict[str, Any]:
        """The folders of prepared cases by part, and for the run's records the split and what it learns from."""
        split = self._split(cohort, config)
        used = cohort.of_patients((*split.train, *split.validation))
        ready = {
            "cohort": by_part(cohort, split, prepare_cohort(found, used, config.data)),
            "split": split.to_dict(),
            "data": learnt_from(cohort, found) | {"healthy": None},
        }
        write_json(self._file("ready", config), sealed(ready))
        return ready

    def _file(self, kind: str, config: RunConfig) -> Path:
        """What is kept for all federations that see the data alike."""
        digest = hashlib.sha256(f"{config.data.model_dump_json()}{config.seed}".encode()).hexdigest()[:16]
        return self.folder / f"{kind}-{digest}.json"

    def _checked(self, config: RunConfig) -> tuple[Cohort, Preflight]:
        settings = self.settings
        cohort = read_cohort(settings.data, settings.layout, settings.labels)
        if settings.patients is not None:
            own = {case.id for case in cohort.of_patients(settings.patients)}
            cohort = cohort.without(case.id for case in cohort.cases if case.id not in own)
        found = preflight(cohort, config)
        # One class alone is no fault of a site's: others may have the others.
        found = replace(found, findings=tuple(finding for finding in found.findings if finding.check != "one-class"))
        return labelled(usable_cohort(found, exclude_bad=False), config), found

    def _split(self, cohort: Cohort, config: RunConfig) -> Split:
        given = self.settings.split
        return split_as_configured(cohort, config) if given is None else Split.from_dict(given)


def _first_problem(error: ValidationError) -> str:
    """The field, and what is wrong with it; of an unknown one, a known one that is close to it."""
    problem = error.errors()[0]
    *parents, last = [str(part) for part in problem["loc"]] or ["file"]
    field = ".".join([*parents, last])
    if problem["type"] == "extra_forbidden":
        known = PrivacyDemand.model_fields if parents else SiteSettings.model_fields
        names = [".".join([*parents, name]) for name in known]
        listed = f"the fields are {', '.join(names)}"
        return f"{field}: no such field; {suggestion(field, names, listed)}"
    return f"{field}: {'is missing' if problem['type'] == 'missing' else problem['msg']}"


def _origin(cohort: Cohort) -> Origin:
    return "phantom" if cohort.phantom else "synthetic" if cohort.synthetic else "patients"


def _check_cohort(cohort: Cohort, config: RunConfig) -> None:
    """Raises ConfigError for channels or regions that the federation names and the site does not have."""
    for field, named, own in (
        ("modalities", config.data.modalities, cohort.modalities),
        ("regions", config.data.regions, cohort.regions),
    ):
        missing = [name for name in named or () if name not in own]
        if missing:
            raise ConfigError(
                f"{cohort.root}: has no {missing[0]}, which the federation's data.{field} names; it has "
                f"{', '.join(own) or 'none'}; add the files, or take no part"
            )


def main() -> None:
    """Says in one line whether a node may start with the folder that it is given."""
    home = SiteNode(Path(sys.argv[1]))
    try:
        cohort = home.check()
    except GansegError as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)
    print(printable(f"{home.settings.name}: {len(cohort.patients)} patients in {cohort.root} ({cohort.layout})"))


if __name__ == "__main__":
    main()
