"""A hospital's folder: what it says of itself, what it allows, and its data made ready for a federation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field, ValidationError

from clients.site import Site
from ganseg_dist.atomic import write_json
from ganseg_dist.config import RunConfig
from ganseg_dist.config.fields import Count, Frozen
from ganseg_dist.config.privacy import PrivacyDemand
from ganseg_dist.data.cohort import Cohort, Split, split_by_patient
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.engine.world import World
from ganseg_dist.errors import ConfigError, DataError
from ganseg_dist.federation.joining import SITE_NAME, Joining
from ganseg_dist.federation.privacy import refuse_less_than, spent_before
from ganseg_dist.federation.schedule import schedule
from ganseg_dist.runners.plan import Prepared, by_part
from ganseg_dist.runners.prepare import Preflight, labelled, preflight, prepare_cohort, usable_cohort
from ganseg_dist.runners.resolve import resolve
from ganseg_dist.systems import build_system


class SiteSettings(Frozen):
    """site.json, which a hospital writes and nobody else reads."""

    name: str = Field(pattern=SITE_NAME)
    """What the other sites may call it; it leaves the hospital."""
    data: Path
    """Its images, as `ganseg check` takes them."""
    layout: str | None = None
    """The layout of its images; none: recognised."""
    minimum_patients: Count = 3
    """With fewer that can be trained on it takes no part."""
    gpu: bool = False
    """Whether it trains on a GPU."""
    patients: tuple[str, ...] | None = None
    """Its patients, where others' are in the same folder: a simulated hospital."""
    split: Mapping[str, tuple[str, ...]] | None = None
    """Its patients by train, validation and test; none: drawn from the run's seed and fractions."""
    privacy: PrivacyDemand | None = None
    """What it asks of a federation; none: it takes part without."""


@dataclass(frozen=True, slots=True)
class Home:
    """A hospital's folder: site.json, the state of each federation, the manifest of what left it."""

    folder: Path

    @property
    def settings(self) -> SiteSettings:
        """Raises ConfigError naming the field of site.json that is wrong."""
        file = self.folder / "site.json"
        try:
            return SiteSettings.model_validate_json(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read ({error.strerror}); docs/federation.md shows one") from None
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"]) or "file"
            raise ConfigError(f"{file}: {field}: {problem['msg']}") from None

    @property
    def manifest(self) -> Path:
        """What left the hospital."""
        return self.folder / "egress.jsonl"

    def join(self, run: str, config: RunConfig) -> Joining:
        """Check the data as `ganseg check` does, make them ready, and say how many there are.

        Args:
            run: the federation's name.
            config: of the federation; what it leaves to the data is answered, what it names must be there.

        Raises FederationError when it promises less privacy than site.json asks, and DataError when a case would spoil
        training or there are fewer patients than the site allows.
        """
        settings = self.settings
        self._refuse_less(run, config)
        cohort, found = self._checked(config)
        if len(cohort.patients) < settings.minimum_patients:
            raise DataError(
                f"{settings.data}: {len(cohort.patients)} patients can be trained on and the site's minimum_patients "
                f"is {settings.minimum_patients}; lower it in site.json or take no part"
            )
        resolved = resolve(config, cohort)
        slices = 0
        if config.data.modalities is not None:  # agreed: the data are made ready before the first round
            slices = len(self._prepared(config, cohort, found).open(resolved)["cohort"].train)
        return Joining(
            settings.name, len(cohort.patients), len(cohort.cases), slices,
            cohort.modalities, cohort.regions, resolved.data.classes or (),
        )  # fmt: skip

    def prepare(self, config: RunConfig) -> Prepared:
        """The site's slices as this run sees them, from the store where they are there already."""
        file = self._prepared_file(config)
        if file.exists():
            return Prepared(json.loads(file.read_text())["cohort"])
        return self._prepared(config, *self._checked(config))

    def site(self, run: str, config: RunConfig) -> Site:
        """The site in one federation."""
        self._refuse_less(run, config)
        device = torch.device("cuda" if self.settings.gpu else "cpu")
        return Site(self.folder / "runs" / run, self.prepare(config), World(device=device))

    def _refuse_less(self, run: str, config: RunConfig) -> None:
        """Raises FederationError for a federation that promises less than site.json asks."""
        demanded = self.settings.privacy
        if demanded is not None:
            others = [folder / "privacy" for folder in (self.folder / "runs").glob("*") if folder.name != run]
            rounds = len(schedule(build_system(config).stages, config.federation.rounds))
            refuse_less_than(demanded, config.federation.privacy, rounds, spent_before(others))

    def _prepared(self, config: RunConfig, cohort: Cohort, found: Preflight) -> Prepared:
        split = self._split(cohort, config)
        used = cohort.of_patients((*split.train, *split.validation))
        prepared = Prepared(by_part(cohort, split, prepare_cohort(found, used, config.data)))
        write_json(self._prepared_file(config), {"cohort": prepared.cohort})
        return prepared

    def _prepared_file(self, config: RunConfig) -> Path:
        digest = hashlib.sha256(f"{config.data.model_dump_json()}{config.seed}".encode()).hexdigest()[:16]
        return self.folder / f"prepared-{digest}.json"

    def _checked(self, config: RunConfig) -> tuple[Cohort, Preflight]:
        settings = self.settings
        cohort = read_cohort(settings.data, settings.layout)
        if settings.patients is not None:
            own = {case.id for case in cohort.of_patients(settings.patients)}
            cohort = cohort.without(case.id for case in cohort.cases if case.id not in own)
        found = preflight(cohort, config)
        return labelled(usable_cohort(found, exclude_bad=False), config), found

    def _split(self, cohort: Cohort, config: RunConfig) -> Split:
        given = self.settings.split
        if given is not None:
            return Split.from_dict(given)
        return split_by_patient(
            cohort, validation=config.data.validation_fraction, test=config.data.test_fraction, seed=config.seed
        )
