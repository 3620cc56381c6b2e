"""What has left a site, by its egress manifest: the count that its budget and its limits go by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from ganseg_dist.errors import RunError
from ganseg_dist.federation import egress_manifest
from ganseg_dist.federation.egress_manifest import Entry
from ganseg_dist.federation.privacy import LEDGER, released_rounds, squared_mu
from ganseg_dist.files import open_regular


@dataclass(frozen=True, slots=True)
class Sent:
    """Counts of an egress manifest's messages."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By run and round: every message, errors included."""
    updates: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    """By run and round, the digests of the updates (`Content.arrays_digest`): several where it was repeated."""
    scored: set[str] = field(default_factory=set)
    """Runs to which a score was sent."""
    private: dict[str, dict[int, float]] = field(default_factory=dict)
    """By run and round, the noise multiplier of an update to which the site added noise."""
    began: dict[str, str] = field(default_factory=dict)
    """By run, when its first message left: the entry's time, in ISO 8601."""

    @classmethod
    def read(cls, manifest: Path) -> Sent:
        """The counts of a manifest, which may be missing. Raises RunError where its chain of lines is broken."""
        sent = cls()
        if not manifest.exists():
            return sent
        with open_regular(manifest) as lines:
            verdict = egress_manifest.verify(lines, sent._add)
        faults = [fault for fault in verdict.faults if fault.kind != "unfinished"]
        if faults:
            raise RunError(
                f"{manifest}: line {faults[0].line}: {faults[0].problem}; what has left is unknown, and nothing is "
                f"sent: see ganseg audit {manifest}, and restore it from a backup"
            )
        return sent

    def _add(self, entry: Entry) -> None:
        self.answers[entry.run, entry.round] += 1
        self.began.setdefault(entry.run, entry.time)
        if entry.kind == "evaluate":
            self.scored.add(entry.run)
        if entry.kind == "train":
            self.updates.setdefault(entry.run, {}).setdefault(entry.round, set()).add(entry.arrays_digest)
            if entry.noise_multiplier is not None:
                self.private.setdefault(entry.run, {})[entry.round] = entry.noise_multiplier

    @property
    def runs(self) -> set[str]:
        """Those to which an update or a score was sent."""
        return self.scored | self.updates.keys()

    def spent_elsewhere(self, runs: Path, run: str) -> float:
        """mu^2 of the releases of all other runs, whether this manifest or a run's ledger records them.

        Raises RunError where a ledger contradicts the manifest, as one of them was replaced by an earlier copy, and
        where this run's ledger is gone: its noise must not be drawn again.
        """
        ledgers = {folder.name: released_rounds(folder / "privacy") for folder in runs.glob("*") if folder.is_dir()}
        for name in {*ledgers, *self.private}:
            _check_agreement(runs / name / "privacy", ledgers.get(name, {}), self.private.get(name, {}))
        if self.private.get(run) and not ledgers.get(run):
            raise RunError(
                f"{runs / run / 'privacy' / LEDGER}: is missing, and round {max(self.private[run])} of it has left; "
                "restore it, or take part under another run name"
            )
        others = {*ledgers, *self.private} - {run}
        rounds = [{**self.private.get(name, {}), **ledgers.get(name, {})} for name in others]
        return squared_mu(chain.from_iterable(of_run.values() for of_run in rounds))


def _check_agreement(folder: Path, ledger: Mapping[int, float], sent: Mapping[int, float]) -> None:
    """A release is stored, then recorded, then sent: only the newest one of a ledger may not be in the manifest yet.

    A folder that was deleted whole is no contradiction: the manifest still counts its releases.
    """
    file = folder / LEDGER
    unrecorded, unsent = sent.keys() - ledger.keys(), sorted(ledger.keys() - sent.keys())
    if ledger and unrecorded:
        raise RunError(
            f"{file}: lacks round {min(unrecorded)}, which left by egress.jsonl; restore the newest ledger, or take "
            "part under another run name"
        )
    if len(unsent) > 1 or (unsent and unsent[0] != max(ledger)):
        raise RunError(
            f"{file}: has round {unsent[0]}, which egress.jsonl lacks; what has left is unknown, and nothing is sent: "
            "restore the newest egress.jsonl"
        )
