"""What a federation is worth: the same held-out patients asked of it, of each site alone, and of all data pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Split
from ganseg_dist.experiments.run import Outcome
from ganseg_dist.experiments.trials import Trial

FEDERATED = "federated"
POOLED = "pooled"


def federation_trials(config: RunConfig, split: Split, sites: Mapping[str, Sequence[str]]) -> list[Trial]:
    """The federation, the pooled data, and each site alone: as many epochs, the same seed, the same test patients.

    Args:
        sites: each site's patients, of every part.
    """
    alone = [
        Trial(
            f"alone-{site}",
            {"arm": f"{site} alone"},
            config,
            Split(_own(split.train, patients), _own(split.validation, patients), split.test),
        )
        for site, patients in sites.items()
    ]
    return [
        Trial(FEDERATED, {"arm": FEDERATED}, config, split),
        Trial(POOLED, {"arm": POOLED}, config, split),
        *alone,
    ]


def at_each_site(outcomes: Sequence[Outcome], sites: Mapping[str, Sequence[str]]) -> list[Outcome]:
    """Each outcome once for every site's test patients, labelled by whose they are."""
    return [
        Outcome({"tested at": site, **outcome.labels}, outcome.seconds, rows)
        for site, patients in sites.items()
        for outcome in outcomes
        if (rows := tuple(row for row in outcome.rows if row.patient in set(patients)))
    ]


def _own(part: Sequence[str], patients: Sequence[str]) -> tuple[str, ...]:
    mine = set(patients)
    return tuple(patient for patient in part if patient in mine)
