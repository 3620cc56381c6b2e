"""Settles the data fields of a federation's config from what the sites have; the server itself has no data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
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


def agree(config: RunConfig, sites: Iterable[SiteInfo]) -> RunConfig:
    """The config by which all sites can train, resolved as `resolve` would for one cohort of all their cases.

    Channels and regions are those that every site has, in a cohort's order; classes are those of any site, as a site
    may lack one. Fields that the config names stay as they are: each site must have all named channels and regions
    and at least one of the classes.

    Raises FederationError naming the site and what it lacks; ConfigError or DataError, as `resolve` does, for what
    all sites together lack.
    """
    joined = sorted(sites, key=lambda site: site.name)
    if not joined:
        raise FederationError("federation: no site has joined, so nothing can be agreed on; start the sites")
    modalities = _common("modalities", {site.name: site.modalities for site in joined}, config.data.modalities)
    of_masks = {site.name: site.regions for site in joined if site.regions}
    classes: frozenset[str] = frozenset()
    if config.system.task == "segmentation":
        _check_masks(joined, config)
    else:
        classes = _classes(joined, config.data.classes)
    regions = _common("regions", of_masks, config.data.regions) if of_masks else frozenset()
    return resolve(config, _cohort(modalities, regions, classes))


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


def _common(field: str, by_site: dict[str, tuple[str, ...]], requested: Sequence[str] | None) -> frozenset[str]:
    """The names that every site has. Raises FederationError naming the first site that lacks a requested one or, if
    no name is common, one that lacks the most frequent.
    """
    for site, available in by_site.items():
        missing = [name for name in requested or () if name not in available]
        if missing:
            raise FederationError(
                f"{site}: has no {', '.join(missing)}, which data.{field} names; it has {_listed(available)}; name "
                "what all sites have, or leave it out"
            )
    common = frozenset.intersection(*map(frozenset, by_site.values()))
    if not common:
        sites_with = Counter(name for available in by_site.values() for name in set(available))
        if not sites_with:
            raise FederationError(f"{next(iter(by_site))}: has no {field}; look at its data, or leave it out")
        usual, number = max(sites_with.items(), key=lambda counted: (counted[1], counted[0]))
        site = next(site for site, available in by_site.items() if usual not in available)
        raise FederationError(
            f"{site}: has {_listed(by_site[site])} and no {usual}, which {number} of {len(by_site)} sites have; no "
            f"{field} are left that all have; leave it out"
        )
    return common


def _check_masks(sites: Iterable[SiteInfo], config: RunConfig) -> None:
    for site in sites:
        if not site.regions:
            raise FederationError(f"{site.name}: has no masks, which {config.recipe} trains on; leave it out")


def _classes(sites: Sequence[SiteInfo], requested: Sequence[str] | None) -> frozenset[str]:
    """The classes of all sites. Raises FederationError naming a site that shares none with the config or the other
    sites: its labels then mean something else.
    """
    by_site = {site.name: frozenset(site.classes or (LESION_CLASSES if site.regions else ())) for site in sites}
    for site, classes in by_site.items():
        if not classes:
            raise FederationError(f"{site}: has neither classes nor masks to train on; leave it out")
        others = [other_classes for other, other_classes in by_site.items() if other != site]
        wanted = frozenset(requested) if requested is not None else frozenset().union(*others)
        if not classes & wanted and (requested is not None or others):
            among = "data.classes" if requested is not None else "the other sites' classes"
            raise FederationError(
                f"{site}: has {_listed(classes)}, none of them among {among} {_listed(wanted)}; name its classes "
                "as the others do, or leave it out"
            )
    return frozenset().union(*by_site.values())


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
