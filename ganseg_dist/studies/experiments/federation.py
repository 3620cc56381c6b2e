"""What a federation is worth: the same held-out patients asked of it, of each site alone, and of all data pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ganseg_dist.atomic import write_csv
from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.cohort import Split
from ganseg_dist.federation.at_sites import config_at_sites
from ganseg_dist.metrics.registry import score_called
from ganseg_dist.metrics.statistics import Interval, PairedComparison
from ganseg_dist.names import LONGEST_PART, folder_names
from ganseg_dist.studies.experiments.measures import MeanOf, Measure
from ganseg_dist.studies.experiments.run import Outcome
from ganseg_dist.studies.experiments.table import (
    NOTHING,
    Row,
    difference_shown,
    ends,
    shown,
    tabulate,
    test_results,
)
from ganseg_dist.studies.experiments.trials import Trial

POOLED = "pooled"
FEDERATED = "federated"
ALONE = "mean of the sites alone"
OWN = "the site alone"
"""What a site's model is called on its own test patients."""
TESTED_AT = "tested at"


def alone(site: str) -> str:
    """What the model is called that a site trained of its own data."""
    return f"{site} alone"


def federation_trials(config: RunConfig, split: Split, sites: Mapping[str, Sequence[str]]) -> list[Trial]:
    """The federation, the pooled data, and each site alone: as many epochs, the same seed, the same test patients.

    A site alone takes the steps that it takes in the federation: of as many examples, and as many an epoch.

    Args:
        sites: each site's patients, of every part.
    """
    at_site = override(config, {"train.batch_size": config_at_sites(config, len(sites)).train.batch_size})
    homes = {site: split.of(patients) for site, patients in sites.items()}
    folders = folder_names(sites, longest=LONGEST_PART)
    return [
        Trial(FEDERATED, {"arm": FEDERATED}, config, split),
        Trial(POOLED, {"arm": POOLED}, config, split),
        *(
            Trial(f"alone-{folders[site]}", {"arm": alone(site)}, at_site, Split(own.train, own.validation, split.test))
            for site, own in homes.items()
        ),
    ]


def with_mean_of_sites(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Pooled, which the others are held against, federated, the mean of the sites alone, and each of them."""
    pooled, federated, sites = _parted(outcomes)
    repeated = [
        Outcome({"arm": ALONE, "site model": number}, outcome.seconds, outcome.rows, outcome.patients_known)
        for number, outcome in enumerate(sites)
    ]
    return [pooled, federated, *repeated, *sites]


def tabulate_by_site(
    outcomes: Sequence[Outcome], sites: Mapping[str, Sequence[str]], measures: Sequence[Measure]
) -> list[Row]:
    """Pooled, federated, the sites' mean and its own on each site's test patients; no row of a site without any.

    Only means over rows: a site's few images may lack a class, without which a set of them has no other score.
    """
    means = [measure for measure in measures if isinstance(measure, MeanOf)]
    return tabulate(at_each_site(outcomes, sites), means)


def at_each_site(outcomes: Sequence[Outcome], sites: Mapping[str, Sequence[str]]) -> list[Outcome]:
    """Outcomes once for every site's test patients, labelled by whose they are; of the sites alone, its own."""
    found = []
    for site, patients in sites.items():
        own, others = set(patients), {alone(other) for other in sites if other != site}
        for outcome in outcomes:
            rows = tuple(row for row in outcome.rows if row.patient in own)
            arm = outcome.labels["arm"]
            if rows and arm not in others:
                labels = {TESTED_AT: site, **outcome.labels, "arm": OWN if arm == alone(site) else arm}
                found.append(Outcome(labels, outcome.seconds, rows, outcome.patients_known))
    return found


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the federation is worth in one score."""

    score: str
    title: str
    """The score in words."""
    federated: Interval
    pooled: Interval
    alone: Interval
    """Mean of the sites alone."""
    less_pooled: PairedComparison
    """Federated less pooled, over the same patients."""
    less_alone: PairedComparison
    """Federated less the mean of the sites alone: of each patient, the mean over the sites' models."""
    at_sites: Mapping[str, Mapping[str, Interval]]
    """By site, whose test patients they are, and arm; empty where the score is not a mean over them."""

    @property
    def percent_of_pooled(self) -> float | None:
        """100 federated / pooled; None where pooled has nothing, and of a score that is better small."""
        if score_called(self.score).mode != "max" or not self.pooled.mean:
            return None
        return 100 * self.federated.mean / self.pooled.mean

    @property
    def worst_site(self) -> str | None:
        """Where the federated model does worst; None where fewer than two sites were asked."""
        if len(self.at_sites) < 2:
            return None
        worst = max if score_called(self.score).mode == "min" else min
        return worst(self.at_sites, key=lambda site: self.at_sites[site][FEDERATED].mean)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"percent_of_pooled": self.percent_of_pooled, "worst_site": self.worst_site}


def compare(outcomes: Sequence[Outcome], by_site: Sequence[Row], measures: Sequence[Measure]) -> list[Comparison]:
    """A comparison a measure.

    Args:
        outcomes: of the trials.
        by_site: as `tabulate_by_site` gives them, with the mean of the sites.
        measures: which all outcomes have the numbers for.
    """
    pooled, federated, sites = _parted(outcomes)
    apart = [outcome.rows for outcome in sites]
    return [
        Comparison(
            measure.name,
            measure.title,
            federated=measure.interval([federated.rows]),
            pooled=measure.interval([pooled.rows]),
            alone=measure.interval(apart),
            less_pooled=measure.difference([federated.rows], [pooled.rows]),
            less_alone=measure.difference([federated.rows], apart),
            at_sites=_at_sites(by_site, measure.name),
        )
        for measure in measures
    ]


def comparison_table(comparisons: Sequence[Comparison]) -> tuple[list[str], list[list[str]]]:
    """Header and cells for a terminal: a line a question, a column a score."""
    questions = {
        f"{FEDERATED} less {POOLED}": lambda of: difference_shown(of.less_pooled, of.score),
        f"{FEDERATED} less the {ALONE}": lambda of: difference_shown(of.less_alone, of.score),
        f"{FEDERATED} in % of {POOLED}": lambda of: _percent(of.percent_of_pooled),
        f"{FEDERATED}, at the site where it is worst": _worst_shown,
    }
    cells = [[question, *map(answer, comparisons)] for question, answer in questions.items()]
    return ["", *(comparison.title for comparison in comparisons)], cells


def comparison_metrics(comparisons: Sequence[Comparison]) -> dict[str, float]:
    """For MLflow: `wt/dice/federated less pooled` and the like."""
    told: dict[str, float] = {}
    for comparison in comparisons:
        told |= {
            f"{comparison.score}/{FEDERATED} less {POOLED}": comparison.less_pooled.difference.mean,
            f"{comparison.score}/{FEDERATED} less {ALONE}": comparison.less_alone.difference.mean,
        }
        if comparison.percent_of_pooled is not None:
            told[f"{comparison.score}/percent of {POOLED}"] = comparison.percent_of_pooled
        if comparison.worst_site is not None:
            worst = comparison.at_sites[comparison.worst_site][FEDERATED]
            told[f"{comparison.score}/{FEDERATED} at the worst site"] = worst.mean
    return told


def save_comparison(file: Path, comparisons: Sequence[Comparison]) -> Path:
    """comparison.csv, a line a score; returns the path. Raises GansegError when the disk refuses."""
    write_csv(file, [_flat(comparison) for comparison in comparisons])
    return file


def _parted(outcomes: Sequence[Outcome]) -> tuple[Outcome, Outcome, list[Outcome]]:
    """Pooled, federated, and those of the sites alone."""
    by_arm = {outcome.labels["arm"]: outcome for outcome in outcomes}
    pooled, federated = by_arm.pop(POOLED), by_arm.pop(FEDERATED)
    return pooled, federated, list(by_arm.values())


def _at_sites(by_site: Sequence[Row], score: str) -> dict[str, dict[str, Interval]]:
    found: dict[str, dict[str, Interval]] = {}
    for row in by_site:
        if score in row.scores:
            found.setdefault(row.labels[TESTED_AT], {})[row.labels["arm"]] = row.scores[score]
    return found


def _worst_shown(comparison: Comparison) -> str:
    site = comparison.worst_site
    if site is None:
        return NOTHING
    found = comparison.at_sites[site][FEDERATED]
    return f"{site}: {shown(found, comparison.score)}, n = {found.n}"


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{share:.1f}%"


def _flat(comparison: Comparison) -> dict[str, Any]:
    flat: dict[str, Any] = {"score": comparison.score, "n": comparison.federated.n}
    for name in ("federated", "pooled", "alone"):
        flat |= {f"{name}_{end}": value for end, value in ends(getattr(comparison, name)).items()}
    for name in ("less_pooled", "less_alone"):
        pair: PairedComparison = getattr(comparison, name)
        flat |= {f"{name}_{end}": value for end, value in ends(pair.difference).items()} | {
            f"{name}_{test}": value for test, value in test_results(pair).items()
        }
    flat |= {"percent_of_pooled": comparison.percent_of_pooled, "worst_site": comparison.worst_site}
    worst = comparison.at_sites.get(comparison.worst_site or "", {}).get(FEDERATED)
    told = {"mean": None, "low": None, "high": None} if worst is None else ends(worst)
    return flat | {f"worst_{end}": value for end, value in told.items()} | {"worst_n": worst.n if worst else None}
