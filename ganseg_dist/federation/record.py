"""What a run keeps of its federation, federation.json: who took part in each round, with what weight and result."""

from __future__ import annotations

from itertools import accumulate

from pydantic import BaseModel, ConfigDict, Field


class Kept(BaseModel):
    """A node of federation.json; what a newer version adds is let through."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class SiteRound(Kept):
    """What one site's update was in one round."""

    examples: float
    """That it counts by: slices or cases, as the federation weighs."""
    weight: float
    """Its share of the round, in [0, 1]."""
    losses: dict[str, float] = Field(default_factory=dict)
    """By `stage/phase/term`."""
    scores: dict[str, float] = Field(default_factory=dict)
    """Of the round's new weights on the site's validation cases; empty where it did not say."""


class RoundRecord(Kept):
    """One exchange."""

    round: int
    stage: str
    first: int
    """Epoch of the stage at which it began."""
    until: int
    """Epoch of the stage before which it ended."""
    scores: dict[str, float] = Field(default_factory=dict)
    """Means over the sites' validation cases."""
    sites: dict[str, SiteRound]
    """Those whose updates were taken, by name."""
    bytes_out: int = 0
    """Of tensors, from the server to all sites."""
    bytes_in: int = 0
    epsilon: float | None = None
    """Spent by the end of the round, at the config's delta; none: nothing is promised."""


class LeftOut(Kept):
    """An update that was not taken, and why."""

    site: str
    round: int
    reason: str


class SiteCounts(Kept):
    """What a site said that it has."""

    patients: int
    cases: int | None = None
    slices: int | None = None
    """That it trains on."""


class FederationRecord(Kept):
    """federation.json."""

    rounds: tuple[RoundRecord, ...]
    quarantined: tuple[LeftOut, ...] = ()
    sites: dict[str, SiteCounts] = Field(default_factory=dict)
    """What the sites said as they joined; empty where it was not kept."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every site that joined, answered or was left out, in name order."""
        named = {*self.sites, *(left.site for left in self.quarantined)}
        return tuple(sorted(named.union(*(record.sites for record in self.rounds))))

    @property
    def epochs_done(self) -> tuple[int, ...]:
        """By the end of each round, over all stages: the steps at which the run's own curves have their points."""
        return tuple(accumulate(record.until - record.first for record in self.rounds))

    def of_site(self, name: str) -> dict[int, SiteRound]:
        """A site's part of each round that took its update, by the round's number."""
        return {record.round: record.sites[name] for record in self.rounds if name in record.sites}

    def left_out(self, name: str) -> tuple[LeftOut, ...]:
        """A site's updates that were not taken."""
        return tuple(left for left in self.quarantined if left.site == name)

    @property
    def epsilon(self) -> float | None:
        """Spent in all; none: nothing is promised."""
        return next((record.epsilon for record in reversed(self.rounds) if record.epsilon is not None), None)

    @property
    def bytes_moved(self) -> int:
        """Of tensors, both ways, over all rounds; what is handed out after the last round is not in it."""
        return sum(record.bytes_out + record.bytes_in for record in self.rounds)
