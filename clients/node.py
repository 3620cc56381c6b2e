"""A hospital's folder: its settings and policy (site.toml), and its data prepared for a federation."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from clients.limits import check_disk
from clients.membership import Membership
from clients.sent import Sent
from clients.split import SiteSplit
from clients.training import Site
from ganseg_dist.atomic import private_folder, write_json
from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Cohort, Split
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.record import DataRecord
from ganseg_dist.data.slices import LESION_CLASSES
from ganseg_dist.data.store import PreparedCase, case_damage
from ganseg_dist.digests import Damaged, damage_as, read_sealed, sealed
from ganseg_dist.engine.world import World
from ganseg_dist.errors import ConfigError, DataError, FederationError, PolicyError, RunError
from ganseg_dist.federation.egress_manifest import Content
from ganseg_dist.federation.fingerprint import is_exchanged
from ganseg_dist.federation.fingerprint.histograms import Fingerprint
from ganseg_dist.federation.fingerprint.measure import fingerprint
from ganseg_dist.federation.fingerprint.record import release
from ganseg_dist.federation.policy import Rule, SitePolicy, check_names, check_policy, rules
from ganseg_dist.federation.privacy import Allowance, withholds_scores
from ganseg_dist.federation.protocol import COMMAND, FINGERPRINT, FINISH, RoundInstruction, kind_of
from ganseg_dist.federation.shared_parameters import Arrays
from ganseg_dist.federation.site_info import Origin, SiteInfo
from ganseg_dist.federation.site_settings import FILE, SiteSettings
from ganseg_dist.planning.preflight import Preflight, labelled, preflight, usable_cohort
from ganseg_dist.planning.prepare import Prepared, by_part, prepare_cohort
from ganseg_dist.planning.resolve import resolve
from ganseg_dist.planning.run_folder import data_record, write_records
from ganseg_dist.plural import counted
from ganseg_dist.runs import RequestRecord, Run

FINISHED = "finished.json"
"""In a run's folder: the digest of the last weights, of which its model was written."""


@dataclass(frozen=True, slots=True)
class SiteNode:
    """A hospital's folder: site.toml, the split, the state of each federation, and the egress manifest."""

    folder: Path

    @property
    def settings(self) -> SiteSettings:
        """Raises ConfigError naming the field of site.toml that is wrong."""
        return SiteSettings.load(self.folder / FILE)

    def check(self) -> tuple[Cohort, Split]:
        """The cohort that site.toml names, listed but not opened, and its split: all that needs no federation's config.

        Raises ConfigError naming the field, and DataError for data that cannot be read.
        """
        return self._listed(self.settings)

    def _listed(self, settings: SiteSettings) -> tuple[Cohort, Split]:
        self.make_private()
        try:
            cohort = _cohort(settings)
        except OSError as error:
            raise DataError(f"{settings.data}: cannot be read ({error.strerror}); correct its permissions") from None
        return cohort, SiteSplit(self.folder).preview(cohort, settings.policy, settings.split)

    def policy_rules(self, config: RunConfig) -> Iterator[Rule]:
        """The policy's answers to a federation of this config."""
        settings = self.settings
        policy, (cohort, split) = settings.policy, self._listed(settings)
        yield from rules(policy, resolve(config, cohort), self._spent_elsewhere("", self._sent()))
        patients = len(split.validation)
        withheld = withholds_scores(config) or patients < policy.minimum_group
        group = f"{counted(patients, 'validation patient')}, and policy.minimum_group is {policy.minimum_group}"
        yield Rule("scores", f"{'withheld' if withheld else 'leave'}: {group}", True)

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

    def join(self, instruction: RoundInstruction) -> SiteInfo:
        """Check the config against the policy and the data as `ganseg check` does, prepare them, return their counts.

        Fields that the config leaves open are taken from the data, and the names in others must exist there.

        Raises PolicyError for a federation that requests what the policy denies, RunError for a folder that was
        restored from a backup, and DataError when a case would spoil training or there are fewer patients than the
        policy permits.
        """
        settings, config, sent = self.settings, instruction.settings, self._sent()
        check_names(config)
        _check_received(instruction, settings.name, sent)
        agreed = _is_resolved(config)
        if agreed:  # before it decides what is read
            self._check_policy(settings.policy, instruction.run, config, sent)
        cohort, found = _checked(settings, config)
        if not agreed:
            with suppress(ConfigError, DataError):  # a site may lack a class; once agreed, the policy judges again
                self._check_policy(settings.policy, instruction.run, resolve(config, cohort), sent)
        if len(cohort.patients) < settings.policy.minimum_patients:
            raise DataError(
                f"{settings.data}: {len(cohort.patients)} patients can be trained on, and policy.minimum_patients is "
                f"{settings.policy.minimum_patients}; lower it in site.toml or take no part"
            )
        _check_cohort(cohort, config)
        slices = 0
        if agreed:  # the data are prepared before the first round
            ready = self._prepare_data(settings, config, cohort, found)
            self._membership(settings.policy, instruction.run, sent).join(instruction.run, config)
            slices = len(Prepared(ready["cohort"]).open(config)["cohort"].train)
        classes = cohort.classes or (LESION_CLASSES if cohort.regions else ())
        return SiteInfo(
            settings.name, len(cohort.patients), len(cohort.cases), slices, cohort.modalities, cohort.regions,
            classes if config.system.task == "classification" else (), cohort.scheme, _origin(cohort),
        )  # fmt: skip

    def fingerprint(self, instruction: RoundInstruction) -> Fingerprint:
        """The site's disclosed histograms of the data that it trains on.

        It is measured anew only for another minimum_group in site.toml.

        Raises FederationError where the config has none disclosed, and RunError where the stored one is damaged.
        """
        settings = self.settings
        config = self._agreed_config(FINGERPRINT, settings.policy, instruction, self._sent())
        if not is_exchanged(config):
            raise FederationError("instruction: requests a fingerprint, which this config does not have disclosed")
        minimum = settings.policy.minimum_group

        def measure() -> Fingerprint:
            cohort, _ = _checked(settings, config)
            cases = {case.id: case for case in cohort.cases}
            ready = self._prepared_data(settings, config)
            folders = (Path(folder) for part in ready["cohort"].values() for folder in part)
            prepared = map(PreparedCase.open, folders)
            return fingerprint(((cases[case.id], case) for case in prepared), config.data, minimum)

        return release(self._file(f"fingerprint-of-{minimum}", config), config.data, measure)

    def prepare(self, config: RunConfig) -> Prepared:
        """The site's slices as this run sees them; cases that the store already holds are reused."""
        return Prepared(self._prepared_data(self.settings, config)["cohort"])

    def site(self, kind: str, instruction: RoundInstruction) -> Site:
        """The site's end of one federation, for an instruction of this kind that its policy and agreement permit."""
        return self._site(kind, instruction, self.settings, self._sent())[0]

    def _site(
        self, kind: str, instruction: RoundInstruction, settings: SiteSettings, sent: Sent
    ) -> tuple[Site, dict[str, Any]]:
        """The site's end, and its `_prepared_data`."""
        policy = settings.policy
        config = self._agreed_config(kind, policy, instruction, sent)
        demand = policy.privacy
        allowance = Allowance(demand, self._spent_elsewhere(instruction.run, sent)) if demand is not None else None
        ready = self._prepared_data(settings, config)
        world = World(device=torch.device("cuda" if settings.gpu else "cpu"))
        return Site(self._run_folder(instruction.run), Prepared(ready["cohort"]), policy, world, allowance), ready

    def finish(self, instruction: RoundInstruction, received: Arrays) -> None:
        """After the last round, make the federation's folder that of a finished run, which `ganseg evaluate` takes."""
        settings, sent = self.settings, self._sent()
        site, ready = self._site(FINISH, instruction, settings, sent)
        weights = Content.of(kind_of(FINISH), instruction.run, instruction.round, received, {}).arrays_digest
        if (site.folder / FINISHED).exists():
            _check_finished(site.folder / FINISHED, weights)
            return
        data = DataRecord.model_validate(ready["data"])
        site.finish(instruction, received, data)
        now = datetime.datetime.now(datetime.UTC)
        began = datetime.datetime.fromisoformat(sent.began.get(instruction.run, now.isoformat()))
        facts = {
            "status": "finished",
            "created": began.isoformat(timespec="seconds"),
            "seconds": (now - began).total_seconds(),
            "command": COMMAND,
            "federated": True,
            "request": RequestRecord(
                data=str(settings.data.absolute()), layout=settings.layout, labels=settings.labels
            ),
            "workers": 1,
            "device": site.world.device.type,
        }
        write_records(Run(site.folder), instruction.settings, ready["split"], data, facts)
        write_json(site.folder / FINISHED, sealed({"weights": weights}))

    def _agreed_config(self, kind: str, policy: SitePolicy, instruction: RoundInstruction, sent: Sent) -> RunConfig:
        """The instruction's config, if the policy and what the site agreed to permit the instruction."""
        config = instruction.settings
        self._check_policy(policy, instruction.run, config, sent)
        self._membership(policy, instruction.run, sent).check(kind, instruction)
        return config

    def _check_policy(self, policy: SitePolicy, run: str, config: RunConfig, sent: Sent) -> None:
        """Raises PolicyError for what the policy denies, before anything of the config is built."""
        check_policy(policy, config, self._spent_elsewhere(run, sent))
        check_disk(self.folder, policy.disk_gib)
        if run not in sent.runs and len(sent.runs) >= policy.runs:
            raise PolicyError(
                f"instruction: {run} would be run {len(sent.runs) + 1} that this site takes part in, and the policy "
                f"permits {policy.runs} (policy.runs)"
            )

    def _sent(self) -> Sent:
        return Sent.read(self.manifest)

    def _spent_elsewhere(self, run: str, sent: Sent) -> float:
        return sent.spent_elsewhere(self.folder / "runs", run)

    def _membership(self, policy: SitePolicy, run: str, sent: Sent) -> Membership:
        return Membership(self._run_folder(run), policy, sent)

    def _run_folder(self, run: str) -> Path:
        return self.folder / "runs" / run

    def _prepared_data(self, settings: SiteSettings, config: RunConfig) -> dict[str, Any]:
        """The stored result of `_prepare_data`, if all its cases are intact; otherwise a new one."""
        with suppress(Damaged):  # which covers a missing file
            ready = read_sealed(self._file("ready", config))
            folders = [Path(folder) for part in ready["cohort"].values() for folder in part]
            if all(case_damage(folder) is None for folder in folders):
                return ready
        return self._prepare_data(settings, config, *_checked(settings, config))

    def _prepare_data(
        self, settings: SiteSettings, config: RunConfig, cohort: Cohort, found: Preflight
    ) -> dict[str, Any]:
        """The folders of prepared cases by part and, for the run's records, the split and the data's fingerprint.

        The split is the permanent one of all the site's patients, restricted to those that this config can use.
        """
        split = SiteSplit(self.folder).of(found.cohort, settings.policy, settings.split).of(cohort.patients)
        used = cohort.of_patients((*split.train, *split.validation))
        ready = {
            "cohort": by_part(cohort, split, prepare_cohort(found, used, config.data)),
            "split": split.to_dict(),
            "data": data_record(cohort, found).model_dump(),
        }
        write_json(self._file("ready", config), sealed(ready))
        return ready

    def _file(self, kind: str, config: RunConfig) -> Path:
        """A file shared by all federations with the same data settings; the split is the site's own."""
        data = config.data.model_copy(update={"validation_fraction": 0.0, "test_fraction": 0.0})
        digest = hashlib.sha256(data.model_dump_json().encode()).hexdigest()[:16]
        return self.folder / f"{kind}-{digest}.json"


def _cohort(settings: SiteSettings) -> Cohort:
    """The site's patients, all that site.toml names."""
    cohort = read_cohort(settings.data, settings.layout, settings.labels)
    if settings.patients is None:
        return cohort
    case_ids = {case.id for case in cohort.of_patients(settings.patients)}
    return cohort.without(case.id for case in cohort.cases if case.id not in case_ids)


def _checked(settings: SiteSettings, config: RunConfig) -> tuple[Cohort, Preflight]:
    """The cohort that this config can use, and the preflight of all patients."""
    found = preflight(_cohort(settings), config)
    # A site may lack classes: others may have them.
    found = replace(found, findings=tuple(finding for finding in found.findings if finding.check != "one-class"))
    return labelled(usable_cohort(found, exclude_bad=False), config), found


def _is_resolved(config: RunConfig) -> bool:
    """Whether the server has settled the fields that depend on the data, after the sites stated what they have."""
    data, classifies = config.data, config.system.task == "classification"
    return data.modalities is not None and (data.classes if classifies else data.regions) is not None


def _check_received(instruction: RoundInstruction, name: str, sent: Sent) -> None:
    """Raises RunError where the server has an update of this site that its manifest lacks."""
    if name in instruction.received:
        round, digest = instruction.received[name]
        if digest not in sent.updates.get(instruction.run, {}).get(round, ()):
            raise RunError(
                f"egress.jsonl: lacks round {round} of {instruction.run}, which the server received; this folder was "
                "restored from a backup: restore a newer one, or take part under another run name"
            )


def _check_finished(file: Path, weights: str) -> None:
    """Raises FederationError where a finished run would get other weights: its model may be in use, and calibrated."""
    with damage_as(RunError, "delete it, and the run's model is written anew"):
        if read_sealed(file)["weights"] != weights:
            raise FederationError(
                f"{file.parent.name}: is finished here, and the server sends other last weights; to take them, delete "
                f"{file}"
            )


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
