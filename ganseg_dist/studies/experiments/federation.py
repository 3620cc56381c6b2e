"""Compare a federation with each site alone and with all data pooled, on the same held-out patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ganseg_dist.atomic import write_csv
from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.cohort import Split
from ganseg_dist.federation.comparison import ALONE, FEDERATED, OWN, ComparedScore
from ganseg_dist.federation.strategy import config_at_sites, with_site_batch_size
from ganseg_dist.metrics.statistics import Interval
from ganseg_dist.names import LONGEST_PART, folder_names
from ganseg_dist.report.score_text import NOTHING
from ganseg_dist.studies.experiments.measures import MeanOf, Measure
from ganseg_dist.studies.experiments.table import Row, difference_text, differences, ends, interval_text, tabulate
from ganseg_dist.studies.trial import Trial, TrialResult

POOLED = "pooled"
TESTED_AT = "tested at"


def alone(site: str) -> str:
    """Arm of the model that a site trained on its data alone."""
    return f"{site} alone"


def federation_trials(config: RunConfig, split: Split, sites: Mapping[str, Sequence[str]]) -> list[Trial]:
    """The federation, the pooled data, and each site alone: the same epochs, seed and test patients.

    A site alone has the same batch size and the same steps per epoch as in the federation.
    """
    federated = with_site_batch_size(config, len(sites))
    at_site = override(config, {"train.batch_size": config_at_sites(federated).train.batch_size})
    site_splits = {site: split.of(patients) for site, patients in sites.items()}
    folders = folder_names(sites, longest=LONGEST_PART)
    return [
        Trial(FEDERATED, {"arm": FEDERATED}, federated, split),
        Trial(POOLED, {"arm": POOLED}, config, split),
        *(
            Trial(
                f"alone-{folders[site]}",
                {"arm": alone(site)},
                at_site,
                Split(site_split.train, site_split.validation, split.test),
            )
            for site, site_split in site_splits.items()
        ),
    ]


def with_mean_of_sites(results: Sequence[TrialResult]) -> list[TrialResult]:
    """Results in the table's order: pooled (the reference), federated, mean of the sites alone, each site alone."""
    pooled, federated, sites = _split_by_arm(results)
    repeated = [replace(result, values={"arm": ALONE, "site model": number}) for number, result in enumerate(sites)]
    return [pooled, federated, *repeated, *sites]


def tabulate_by_site(
    results: Sequence[TrialResult], sites: Mapping[str, Sequence[str]], measures: Sequence[Measure]
) -> list[Row]:
    """Rows on each site's test patients, if any: pooled, federated, the mean of the sites and the site alone.

    Only means over rows are shown: a site's few images may lack a class, which the other scores need.
    """
    means = [measure for measure in measures if isinstance(measure, MeanOf)]
    return tabulate(at_each_site(results, sites), means)


def at_each_site(results: Sequence[TrialResult], sites: Mapping[str, Sequence[str]]) -> list[TrialResult]:
    """Results restricted to each site's test patients and labelled by site; of the sites alone, only that site's."""
    at_sites = []
    for site, patients in sites.items():
        site_patients, other_arms = set(patients), {alone(other) for other in sites if other != site}
        for result in results:
            rows = tuple(row for row in result.rows if row.patient in site_patients)
            arm = result.values["arm"]
            if rows and arm not in other_arms:
                values = {TESTED_AT: site, **result.values, "arm": OWN if arm == alone(site) else arm}
                at_sites.append(replace(result, values=values, rows=rows))
    return at_sites


def compare(results: Sequence[TrialResult], by_site: Sequence[Row], measures: Sequence[Measure]) -> list[ComparedScore]:
    """One comparison per measure, whose numbers all results must have; `by_site` is of `tabulate_by_site`."""
    pooled, federated, sites = _split_by_arm(results)
    site_rows = [result.rows for result in sites]
    return [
        ComparedScore(
            score=measure.name,
            title=measure.title,
            federated=measure.interval([federated.rows]),
            pooled=measure.interval([pooled.rows]),
            alone=measure.interval(site_rows),
            less_pooled=measure.difference([federated.rows], [pooled.rows]),
            less_alone=measure.difference([federated.rows], site_rows),
            at_sites=_at_sites(by_site, measure.name),
        )
        for measure in measures
    ]


def comparison_table(comparisons: Sequence[ComparedScore]) -> tuple[list[str], list[list[str]]]:
    """Header and cells for a terminal: a line per comparison, a column per score."""
    rows = {
        f"{FEDERATED} less {POOLED}": lambda comparison: difference_text(comparison.less_pooled, comparison.score),
        f"{FEDERATED} less the {ALONE}": lambda comparison: difference_text(comparison.less_alone, comparison.score),
        f"{FEDERATED} in % of {POOLED}": lambda comparison: _percent_text(comparison.percent_of_pooled),
        f"{FEDERATED}, at the site where it is worst": _worst_site_text,
    }
    cells = [[label, *map(cell, comparisons)] for label, cell in rows.items()]
    return ["", *(comparison.title for comparison in comparisons)], cells


def comparison_metrics(comparisons: Sequence[ComparedScore]) -> dict[str, float]:
    """Metrics for MLflow, named as `wt/dice/federated less pooled`."""
    metrics: dict[str, float] = {}
    for comparison in comparisons:
        metrics |= {
            f"{comparison.score}/{FEDERATED} less {POOLED}": comparison.less_pooled.difference.mean,
            f"{comparison.score}/{FEDERATED} less {ALONE}": comparison.less_alone.difference.mean,
        }
        if comparison.percent_of_pooled is not None:
            metrics[f"{comparison.score}/percent of {POOLED}"] = comparison.percent_of_pooled
        if comparison.worst_site is not None:
            worst = comparison.at_sites[comparison.worst_site][FEDERATED]
            metrics[f"{comparison.score}/{FEDERATED} at the worst site"] = worst.mean
    return metrics


def save_comparison(file: Path, comparisons: Sequence[ComparedScore]) -> Path:
    """Write comparison.csv, a line per score; returns the path. Raises GansegError when it cannot be written."""
    write_csv(file, [_csv_row(comparison) for comparison in comparisons])
    return file


def _split_by_arm(results: Sequence[TrialResult]) -> tuple[TrialResult, TrialResult, list[TrialResult]]:
    by_arm = {result.values["arm"]: result for result in results}
    pooled, federated = by_arm.pop(POOLED), by_arm.pop(FEDERATED)
    return pooled, federated, list(by_arm.values())


def _at_sites(by_site: Sequence[Row], score: str) -> dict[str, dict[str, Interval]]:
    intervals: dict[str, dict[str, Interval]] = {}
    for row in by_site:
        if score in row.scores:
            intervals.setdefault(row.labels[TESTED_AT], {})[row.labels["arm"]] = row.scores[score]
    return intervals


def _worst_site_text(comparison: ComparedScore) -> str:
    site = comparison.worst_site
    if site is None:
        return NOTHING
    interval = comparison.at_sites[site][FEDERATED]
    return f"{site}: {interval_text(interval, comparison.score)}, n = {interval.n}"


def _percent_text(share: float | None) -> str:
    return NOTHING if share is None else f"{share:.1f}%"


def _csv_row(comparison: ComparedScore) -> dict[str, Any]:
    row: dict[str, Any] = {"score": comparison.score, "n": comparison.federated.n}
    for name in ("federated", "pooled", "alone"):
        row |= ends(getattr(comparison, name), f"{name}_")
    for name in ("less_pooled", "less_alone"):
        row |= differences(getattr(comparison, name), f"{name}_")
    row |= {"percent_of_pooled": comparison.percent_of_pooled, "worst_site": comparison.worst_site}
    worst = comparison.at_sites.get(comparison.worst_site or "", {}).get(FEDERATED)
    if worst is None:
        return row | dict.fromkeys(("worst_mean", "worst_low", "worst_high", "worst_n"))
    return row | ends(worst, "worst_") | {"worst_n": worst.n}
