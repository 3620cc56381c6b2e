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

WHOLE = "wt"
"""The region of which every other is a part: no site can train without it."""
SHOWN = 3
"""Classes that a line about a site names: it may state many."""


def compatible(config: RunConfig, sites: Iterable[SiteInfo]) -> tuple[list[SiteInfo], dict[str, str]]:
    """The sites that can train together, sorted by name, and what each other one lacks.

    The config decides where it names channels, regions or classes. Otherwise a site is left out that has nothing in
    common with the majority, so that what one site states cannot stop the others. Masks without the whole tumour
    (`wt`), which every other region is a part of, are no masks to train on.

    Raises FederationError where no channel is common to a majority, or several are to different majorities.
    """
    kept = sorted(sites, key=lambda site: site.name)
    reasons: dict[str, str] = {}
    segments = config.system.task == "segmentation"
    of_labels = _lacking_masks if segments else _lacking_classes
    for lacking in (_lacking_modalities, _lacking_whole, of_labels, _lacking_regions):
        found = lacking(config, kept)
        reasons |= found
        kept = [site for site in kept if site.name not in found]
    return kept, reasons


def unsuited(config: RunConfig, site: SiteInfo) -> str | None:
    """What a site lacks of an agreed config, which names every field; None for one that can train by it."""
    return compatible(config, [site])[1].get(site.name)


def agree(config: RunConfig, sites: Iterable[SiteInfo]) -> RunConfig:
    """The config by which compatible sites train, resolved as `resolve` would for one cohort of all their cases.

    Channels and regions are those that every site has, in a cohort's order. Classes are those that two sites have, as
    a site may lack one, and of one or two sites all. Fields that the config names stay as they are.

    Raises ConfigError or DataError, as `resolve` does, for what all sites together lack.
    """
    joined = list(sites)
    with_masks = [site for site in joined if site.regions]
    classes = frozenset() if config.system.task == "segmentation" else _common_classes(config, joined)
    if len(classes) < 2 and left_out_classes(config, joined):
        raise FederationError("federation: fewer than two classes are at two sites; name data.classes in the config")
    return resolve(
        config,
        _cohort(
            frozenset.intersection(*(frozenset(site.modalities) for site in joined)),
            frozenset.intersection(*(frozenset(site.regions) for site in with_masks)) if with_masks else frozenset(),
            classes,
        ),
    )


def left_out_classes(config: RunConfig, sites: Iterable[SiteInfo]) -> dict[str, str]:
    """By site, a text about the classes that `agree` leaves out because no other site has them."""
    joined = list(sites)
    if config.system.task == "segmentation" or config.data.classes is not None:
        return {}
    common = _common_classes(config, joined)
    alone = {site.name: sorted(_classes(site) - common) for site in joined}
    return {
        site: f"its images of {_shortened(names)} are not used, as no other site has any; data.classes can name them"
        for site, names in alone.items()
        if names
    }


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

    Raises FederationError where these are half of the sites or fewer, or where other sites lack another name that as
    many have: an alphabet must not decide who takes part.
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
    number = max(sites_with.values())
    most = sorted(name for name, count in sites_with.items() if count == number)
    lacking = {frozenset(site for site, names in by_site.items() if name not in names) for name in most}
    if 2 * number <= len(by_site) or len(lacking) > 1:
        raise FederationError(
            f"federation: no {field} are left that all sites have, and no majority decides: {_shortened(most)} are "
            f"each at {number} of {len(by_site)} sites; name data.{field} in the config, which leaves out sites without"
        )
    usual = most[-1]
    return {
        site: f"has {_listed(names)} and no {usual}, which {number} of {len(by_site)} sites have"
        for site, names in by_site.items()
        if usual not in names
    }


def _lacking_whole(config: RunConfig, sites: Sequence[SiteInfo]) -> dict[str, str]:
    return {
        site.name: f"has {_listed(site.regions)} and no wt, of which they are parts; label it too"
        for site in sites
        if site.regions and WHOLE not in site.regions
    }


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


def _common_classes(config: RunConfig, sites: Sequence[SiteInfo]) -> frozenset[str]:
    """Classes that the config names or that two sites have; all of two sites or fewer, of which neither is a majority.

    What one site invents would otherwise be a class of everybody's model.
    """
    sites_with = Counter(name for site in sites for name in _classes(site))
    named = frozenset(config.data.classes or ())
    return frozenset(name for name, count in sites_with.items() if count > 1 or len(sites) <= 2 or name in named)


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


def _shortened(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
