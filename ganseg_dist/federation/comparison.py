"""comparison.json: the federated model on held-out patients beside models of pooled data and of each site alone."""

from __future__ import annotations

from pydantic import computed_field

from ganseg_dist.metrics.registry import find_score
from ganseg_dist.metrics.statistics import Interval, PairedComparison
from ganseg_dist.records import Record

FEDERATED = "federated"
"""Arm of the federated model in `ComparedScore.at_sites`."""
ALONE = "mean of the sites alone"
OWN = "the site alone"
"""Arm of a site's model on that site's test patients."""


class ComparedScore(Record):
    """The federation against pooled and separate training in one score."""

    score: str
    title: str
    """The score's name in a table."""
    federated: Interval
    pooled: Interval
    alone: Interval
    """Mean of the sites alone."""
    less_pooled: PairedComparison
    """Federated less pooled, over the same patients."""
    less_alone: PairedComparison
    """Federated less the mean of the sites alone, which for each patient is the mean over the sites' models."""
    at_sites: dict[str, dict[str, Interval]]
    """By site of the test patients, then by arm; empty where the score is not a mean over rows."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def percent_of_pooled(self) -> float | None:
        """100 federated / pooled; None where pooled is 0, and for a score that is better small."""
        if find_score(self.score).mode != "max" or not self.pooled.mean:
            return None
        return 100 * self.federated.mean / self.pooled.mean

    @computed_field  # type: ignore[prop-decorator]
    @property
    def worst_site(self) -> str | None:
        """The site where the federated model is worst; None with fewer than two sites."""
        if len(self.at_sites) < 2:
            return None
        worst = max if find_score(self.score).mode == "min" else min
        return worst(self.at_sites, key=lambda site: self.at_sites[site][FEDERATED].mean)


class FederationComparison(Record):
    """comparison.json, which `ganseg federate` writes at its end."""

    patients_known: bool
    """False where n counts images, each of which counts as a patient."""
    scores: tuple[ComparedScore, ...]
