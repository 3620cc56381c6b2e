"""What the sites of a federation decide of its config, on a server that has no data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Case, Cohort, Source
from ganseg_dist.data.labels import BINARY, BINARY_REGIONS, BRATS, BRATS_REGIONS, LabelScheme
from ganseg_dist.data.slices import LESION_CLASSES
from ganseg_dist.errors import FederationError
from ganseg_dist.federation.site_info import SiteInfo
from ganseg_dist.planning.resolve import resolve

EVERYWHERE = Path("the federation")
"""Where messages say that something is missing."""

NO_FILE = Source(())


def agree(config: RunConfig, sites: Iterable[SiteInfo]) -> RunConfig:
    """The config that all sites can train by, resolved as `resolve` does it for one cohort that held all of theirs.

    Channels and regions are those that every site has, in a cohort's order; classes are those of any site, as a class
    may well be missing at one. What the config names is not changed: each site must have all of its channels and
    regions and one of its classes.

    Args:
        config: of the run, with modalities, regions and classes named or left open.
        sites: what each site that said yes has.

    Raises FederationError naming the site and what it lacks; ConfigError or DataError, as `resolve` does, for what all
    of them together lack.
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
    """What the values of the model's masks mean, and how many sites mean otherwise by theirs.

    Where all sites agree on the labels of the config's regions, theirs; else the canonical ones, which are no site's
    rather than another's.

    Args:
        config: agreed on.
    """
    regions = config.data.regions or ()
    schemes = [site.labels.of_regions(regions) for site in sites if set(regions) <= set(site.regions)]
    if schemes and all(scheme == schemes[0] for scheme in schemes):
        return schemes[0], 0
    canonical = BINARY if regions == BINARY_REGIONS else BRATS.of_regions(regions)
    return canonical, sum(scheme != canonical for scheme in schemes)


def agree_again(config: RunConfig, earlier: RunConfig) -> RunConfig:
    """The config that a run goes on with, whoever has joined by now: what was agreed on when it began.

    Args:
        config: as it is asked for now.
        earlier: the run's own, in which nothing is open.

    Raises ConfigError where what is asked names what was not agreed on.
    """
    data = earlier.data
    return resolve(
        config, _cohort(*(frozenset(names or ()) for names in (data.modalities, data.regions, data.classes)))
    )


def _common(field: str, by_site: dict[str, tuple[str, ...]], asked: Sequence[str] | None) -> frozenset[str]:
    """What every site has. Raises FederationError naming the first that lacks what is asked, or what most others have
    where nothing is left.
    """
    for site, own in by_site.items():
        missing = [name for name in asked or () if name not in own]
        if missing:
            raise FederationError(
                f"{site}: has no {', '.join(missing)}, which data.{field} names; it has {_told(own)}; name what all "
                "sites have, or leave it out"
            )
    common = frozenset.intersection(*map(frozenset, by_site.values()))
    if not common:
        sites_with = Counter(name for own in by_site.values() for name in set(own))
        if not sites_with:
            raise FederationError(f"{next(iter(by_site))}: has no {field}; look at its data, or leave it out")
        usual, number = max(sites_with.items(), key=lambda counted: (counted[1], counted[0]))
        site = next(site for site, own in by_site.items() if usual not in own)
        raise FederationError(
            f"{site}: has {_told(by_site[site])} and no {usual}, which {number} of {len(by_site)} sites have; no "
            f"{field} are left that all have; leave it out"
        )
    return common


def _check_masks(sites: Iterable[SiteInfo], config: RunConfig) -> None:
    for site in sites:
        if not site.regions:
            raise FederationError(f"{site.name}: has no masks, which {config.recipe} learns from; leave it out")


def _classes(sites: Sequence[SiteInfo], asked: Sequence[str] | None) -> frozenset[str]:
    """What any site has. Raises FederationError naming a site that shares none with the config or the other sites: it
    tells apart something else.
    """
    by_site = {site.name: frozenset(site.classes or (LESION_CLASSES if site.regions else ())) for site in sites}
    for site, own in by_site.items():
        if not own:
            raise FederationError(f"{site}: has neither classes nor masks to learn from; leave it out")
        others = [theirs for other, theirs in by_site.items() if other != site]
        wanted = frozenset(asked) if asked is not None else frozenset().union(*others)
        if not own & wanted and (asked is not None or others):
            among = "data.classes" if asked is not None else "the other sites' classes"
            raise FederationError(
                f"{site}: has {_told(own)}, none of them among {among} {_told(wanted)}; name its classes as the others "
                "do, or leave it out"
            )
    return frozenset().union(*by_site.values())


def _cohort(modalities: frozenset[str], regions: frozenset[str], classes: frozenset[str]) -> Cohort:
    """One without images that has what the sites have together: a case a class."""
    images = dict.fromkeys(modalities, NO_FILE)
    mask = NO_FILE if regions else None
    scheme = BRATS.of_regions([region for region in BRATS_REGIONS if region in regions])
    cases = (
        Case(name or "", name or "", "", images, mask, scheme=scheme, class_name=name)
        for name in sorted(classes) or (None,)
    )
    return Cohort(EVERYWHERE, "", tuple(cases))


def _told(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
