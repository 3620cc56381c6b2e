"""Settles the data fields of a federation's config from what the sites have; the server itself has no data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.cohort import Case, Cohort, Source
from ganseg_dist.data.labels import BINARY, BINARY_REGIONS, BRATS, BRATS_REGIONS, LabelScheme
from ganseg_dist.data.slices import LESION_CLASSES
from ganseg_dist.errors import FederationError
from ganseg_dist.federation.site_info import SiteInfo
from ganseg_dist.planning.resolve import resolve

EVERYWHERE = Path("the federation")
"""In place of a cohort's folder in error messages."""

NO_FILE = Source(())


def compatible(config: RunConfig, sites: Iterable[SiteInfo]) -> tuple[list[SiteInfo], dict[str, str]]:
    """The sites that can train together, sorted by name, and what each other one lacks.

    The config decides where it names channels, regions or classes. Otherwise a site is left out that has nothing in
    common with the majority, so that what one site states cannot stop the others.

    Raises FederationError where no channel, or no region, is common to a majority.
    """
    kept = sorted(sites, key=lambda site: site.name)
    reasons: dict[str, str] = {}
    segments = config.system.task == "segmentation"
    for lacking in (_lacking_modalities, _lacking_masks if segments else _lacking_classes, _lacking_regions):
        found = lacking(config, kept)
        reasons |= found
        kept = [site for site in kept if site.name not in found]
    return kept, reasons


def agree(config: RunConfig, sites: Iterable[SiteInfo]) -> RunConfig:
    """The config by which compatible sites train, resolved as `resolve` would for one cohort of all their cases.

    Channels and regions are those that every site has, in a cohort's order; classes are those of any site, as a site
    may lack one. Fields that the config names stay as they are.

    Raises ConfigError or DataError, as `resolve` does, for what all sites together lack.
    """
    joined = list(sites)
    with_masks = [site for site in joined if site.regions]
    classes = frozenset() if config.system.task == "segmentation" else frozenset().union(*map(_classes, joined))
    return resolve(
        config,
        _cohort(
            frozenset.intersection(*(frozenset(site.modalities) for site in joined)),
            frozenset.intersection(*(frozenset(site.regions) for site in with_masks)) if with_masks else frozenset(),
            classes,
        ),
    )


def agreed_scheme(config: RunConfig, sites: Iterable[SiteInfo]) -> tuple[LabelScheme, int]:
    """The label scheme of the model's masks, and the number of sites whose scheme differs from it.

    The sites' scheme of the agreed config's regions if all sites have it; otherwise the canonical one, which prefers no
    site.
    """
    regions = config.data.regions or ()
    schemes = [site.labels.of_regions(regions) for site in sites if set(regions) <= set(site.regions)]
    if schemes and all(scheme == schemes[0] for scheme in schemes):
        return schemes[0], 0
    canonical = BINARY if regions == BINARY_REGIONS else BRATS.of_regions(regions)
    return canonical, sum(scheme != canonical for scheme in schemes)


def agree_again(config: RunConfig, earlier: RunConfig) -> RunConfig:
    """The config, now requested, with which a run resumes: what was agreed on and fixed when it began, whichever sites
    joined since.

    Raises ConfigError where the request names a channel, region or class outside the agreement.
    """
    data = earlier.data
    fixed = {"federation.site_batch_size": config.federation.site_batch_size or earlier.federation.site_batch_size}
    return resolve(
        override(config, fixed),
        _cohort(*(frozenset(names or ()) for names in (data.modalities, data.regions, data.classes))),
    )


def _lacking_modalities(config: RunConfig, sites: Sequence[SiteInfo]) -> dict[str, str]:
    return _lacking("modalities", {site.name: site.modalities for site in sites}, config.data.modalities)


def _lacking_regions(config: RunConfig, sites: Sequence[SiteInfo]) -> dict[str, str]:
    return _lacking("regions", {site.name: site.regions for site in sites if site.regions}, config.data.regions)


def _lacking(field: str, by_site: Mapping[str, tuple[str, ...]], requested: Sequence[str] | None) -> dict[str, str]:
    """What each site lacks that is requested or, if all sites have no name in common, the name that most have.

    Raises FederationError naming a site without it where these are half of the sites or fewer.
    """
    if requested is not None:
        missing = {site: [name for name in requested if name not in names] for site, names in by_site.items()}
        return {
            site: f"has no {', '.join(names)}, which data.{field} names; it has {_listed(by_site[site])}"
            for site, names in missing.items()
            if names
        }
    if not by_site or frozenset.intersection(*map(frozenset, by_site.values())):
        return {}
    sites_with = Counter(name for names in by_site.values() for name in set(names))
    if not sites_with:
        return dict.fromkeys(by_site, f"has no {field}; look at its data")
    usual, number = max(sites_with.items(), key=lambda counted: (counted[1], counted[0]))
    reasons = {
        site: f"has {_listed(names)} and no {usual}, which {number} of {len(by_site)} sites have"
        for site, names in by_site.items()
        if usual not in names
    }
    if 2 * number <= len(by_site):
        site, reason = next(iter(reasons.items()))
        raise FederationError(f"{site}: {reason}; no {field} are left that all have; leave it out")
    return reasons


def _lacking_masks(config: RunConfig, sites: Sequence[SiteInfo]) -> dict[str, str]:
    return {site.name: f"has no masks, which {config.recipe} trains on" for site in sites if not site.regions}


def _lacking_classes(config: RunConfig, sites: Sequence[SiteInfo]) -> dict[str, str]:
    """Why sites have nothing to train on, or share no class with the config or the other sites: their labels then mean
    something else.
    """
    by_site = {site.name: _classes(site) for site in sites}
    requested, reasons = config.data.classes, {}
    for site, classes in by_site.items():
        others = [other_classes for other, other_classes in by_site.items() if other != site]
        wanted = frozenset(requested) if requested is not None else frozenset().union(*others)
        if not classes:
            reasons[site] = "has neither classes nor masks to train on"
        elif not classes & wanted and (requested is not None or others):
            among = "data.classes" if requested is not None else "the other sites' classes"
            reasons[site] = (
                f"has {_listed(classes)}, none of them among {among} {_listed(wanted)}; name its classes as the others "
                "do"
            )
    return reasons


def _classes(site: SiteInfo) -> frozenset[str]:
    return frozenset(site.classes or (LESION_CLASSES if site.regions else ()))


def _cohort(modalities: frozenset[str], regions: frozenset[str], classes: frozenset[str]) -> Cohort:
    """A cohort without images that has these channels, regions and classes: one case for each class."""
    images = dict.fromkeys(modalities, NO_FILE)
    mask = NO_FILE if regions else None
    scheme = BRATS.of_regions([region for region in BRATS_REGIONS if region in regions])
    cases = (
        Case(name or "", name or "", "", images, mask, scheme=scheme, class_name=name)
        for name in sorted(classes) or (None,)
    )
    return Cohort(EVERYWHERE, "", tuple(cases))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
