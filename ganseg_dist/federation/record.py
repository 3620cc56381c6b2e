"""federation.json, a run's record of its federation: each round's sites, with their weights and results."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from pydantic import Field

from ganseg_dist.federation.public_key import KeyFingerprint
from ganseg_dist.federation.versions import Versions
from ganseg_dist.records import Record


class SiteRound(Record):
    """One site's update in one round."""

    examples: float
    """Slices or cases, by `federation.weighting`."""
    weight: float
    """Its share of the round, in [0, 1]."""
    losses: dict[str, float] = Field(default_factory=dict)
    """By `stage/phase/term`."""
    scores: dict[str, float] = Field(default_factory=dict)
    """Of the round's new weights on the site's validation cases; empty if it sent none."""
    seconds: float | None = None
    """From the request to the update."""


class RoundRecord(Record):
    """One round of training and aggregation."""

    round: int
    stage: str
    first: int
    """First epoch of the stage that it trained."""
    until: int
    """Epoch of the stage before which it ended."""
    started: str | None = None
    """ISO 8601, UTC."""
    seconds: float | None = None
    """From its start to the scores of its new weights."""
    scores: dict[str, float] = Field(default_factory=dict)
    """Means over the sites' validation cases."""
    sites: dict[str, SiteRound]
    """Sites whose updates were accepted, by name."""
    unanswered: tuple[str, ...] = ()
    """Sites that were to train and had not answered when the others' updates were averaged."""
    bytes_out: int = 0
    """Bytes of tensors from the server to all sites."""
    bytes_in: int = 0
    epsilon: float | None = None
    """Spent by the end of the round; None, like `delta`, without `federation.privacy`."""
    delta: float | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A site's message that was not accepted, and why."""

    site: str
    round: int
    reason: str
    """One line, written by the server: no name, number or value that the site chose, for they could carry data; shapes
    and the size of the change excepted."""
    kind: Literal["train", "evaluate", "fingerprint"] = "train"
    """Of message; `train` is an update of weights."""


class SiteCounts(Record):
    """The counts that a site stated when it joined, and the key by which the server knew it."""

    patients: int
    cases: int | None = None
    slices: int | None = None
    """Number of slices that it trains on."""
    key: KeyFingerprint | None = None
    """None in a simulation."""
    revoked: bool = False
    """Whether its key was revoked while it took part."""
    versions: Versions | None = None
    """What it runs."""


class FederationRecord(Record):
    """The content of federation.json."""

    rounds: tuple[RoundRecord, ...]
    quarantined: tuple[LeftOut, ...] = ()
    sites: dict[str, SiteCounts] = Field(default_factory=dict)
    """By name; empty in files without it."""
    server: Versions | None = None
    """What the server runs."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every site that joined, answered or was left out, in name order."""
        named = {*self.sites, *(update.site for update in self.quarantined)}
        return tuple(sorted(named.union(*(record.sites for record in self.rounds))))

    @property
    def epochs_done(self) -> tuple[int, ...]:
        """Epochs by the end of each round, over all stages: the steps of the run's curves."""
        return tuple(accumulate(record.until - record.first for record in self.rounds))

    def of_site(self, name: str) -> dict[int, SiteRound]:
        """A site's part of each round that accepted its update, by the round's number."""
        return {record.round: record.sites[name] for record in self.rounds if name in record.sites}

    def left_out(self, name: str) -> tuple[LeftOut, ...]:
        """A site's updates that were not accepted."""
        return tuple(left for left in self.quarantined if left.site == name and left.kind == "train")

    @property
    def epsilon(self) -> float | None:
        """Spent in all; None without `federation.privacy`."""
        return next((record.epsilon for record in reversed(self.rounds) if record.epsilon is not None), None)

    @property
    def bytes_moved(self) -> int:
        """Bytes of tensors, both ways, over all rounds; without the weights sent after the last round."""
        return sum(record.bytes_out + record.bytes_in for record in self.rounds)
