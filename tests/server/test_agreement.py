import json
from pathlib import Path

import numpy as np
import pytest

from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.cohort import Case, Cohort, Source
from ganseg_dist.data.labels import BINARY, BRATS_2023, LabelScheme
from ganseg_dist.data.labels import BRATS as TISSUES
from ganseg_dist.data.slices import LESION_CLASSES
from ganseg_dist.errors import ConfigError, DataError, FederationError
from ganseg_dist.federation.site_info import SiteInfo
from ganseg_dist.planning.resolve import resolve
from ganseg_dist.systems import recipe
from server.agreement import agree, agree_again, agreed_scheme, compatible

SEGMENTS = recipe("ganet_seg_debug")
CLASSIFIES = recipe("dl_gan_cnn_debug")
FOUR = ("t1", "t1ce", "t2", "flair")
BRATS = ("wt", "tc", "et")


def site(name: str, modalities=FOUR, regions=BRATS, classes=(), labels=None) -> SiteInfo:
    labels = TISSUES.of_regions(tuple(regions)) if labels is None else labels
    return SiteInfo(name, 10, 10, 100, tuple(modalities), tuple(regions), tuple(classes), labels)


def cohort_of(images=FOUR, regions=BRATS, classes=(None,)) -> Cohort:
    nothing = Source((Path("somewhere"),))
    cases = (
        Case(f"c{i}", f"p{i}", "a", dict.fromkeys(images, nothing), nothing if regions else None,
             scheme=TISSUES.of_regions(tuple(regions)), class_name=name)
        for i, name in enumerate(classes)
    )  # fmt: skip
    return Cohort(Path("somewhere"), "manifest", tuple(cases))


def test_agree_intersects_modalities_and_regions_in_cohort_order():
    sites = [site("b", ("flair", "swi", "t1"), ("wt",)), site("a", ("swi", "t2", "t1", "flair"))]
    for instruction in (sites, sites[::-1]):
        agreed = agree(SEGMENTS, instruction).data
        assert agreed.modalities == ("t1", "flair", "swi")
        assert agreed.regions == ("wt",)
        assert agreed.classes is None


@pytest.mark.parametrize(
    ("config", "cohort"),
    [
        (SEGMENTS, cohort_of()),
        (recipe("gan_osmosis_debug"), cohort_of(("t2", "flair"), ("wt",))),
        (CLASSIFIES, cohort_of(classes=("notumor", "glioma"), regions=())),
        (CLASSIFIES, cohort_of(classes=("glioma", "meningioma", "healthy"), regions=())),
        (CLASSIFIES, cohort_of(("flair",), ("wt",))),
        (override(SEGMENTS, {"system.reading": "paper"}), cohort_of()),
        (override(SEGMENTS, {"data.modalities": ["flair", "t1"], "data.regions": ["tc", "wt"]}), cohort_of()),
    ],
)
def test_agree_with_one_site_equals_resolve(config: RunConfig, cohort: Cohort):
    classes = cohort.classes or (LESION_CLASSES if cohort.regions else ())
    alone = site("a", cohort.modalities, cohort.regions, classes if config.system.task == "classification" else ())
    assert agree(config, [alone]) == resolve(config, cohort)


def test_agree_is_idempotent():
    sites = [site("a"), site("b", ("t1", "t2"))]
    agreed = agree(SEGMENTS, sites)
    assert agree(agreed, sites) == agreed


@pytest.mark.parametrize(
    ("changes", "lacking", "reason"),
    [
        ({"data.modalities": ["t1", "flair"]}, site("b", ("t1", "t2")), "has no flair, which data.modalities names"),
        ({"data.regions": ["wt", "et"]}, site("b", regions=("wt",)), "has no et, which data.regions names"),
        ({}, site("b", ("swi",)), "has swi and no t2, which 2 of 3 sites have"),
        ({}, site("b", regions=()), "has no masks, which ganet_seg_debug trains on"),
        ({}, site("b", ()), "has nothing and no t2"),
    ],
)
def test_compatible_leaves_out_site_that_lacks_what_the_others_have(changes, lacking, reason):
    config, sites = override(SEGMENTS, changes), [site("c"), lacking, site("a")]
    kept, reasons = compatible(config, sites)
    assert [each.name for each in kept] == ["a", "c"]
    assert list(reasons) == ["b"]
    assert reasons["b"].startswith(reason)
    assert reasons["b"].isprintable()
    assert agree(config, kept).data.modalities == tuple(changes.get("data.modalities", FOUR))


def test_compatible_keeps_sites_that_share_some_names():
    sites = [site("a"), site("b", ("t1", "swi"), ("wt",))]
    assert compatible(SEGMENTS, sites) == (sites, {})


def test_compatible_raises_where_no_majority_has_anything_in_common():
    with pytest.raises(FederationError, match=r"^a: has t1 and no t2, which 1 of 2 sites have; no modalities are left"):
        compatible(SEGMENTS, [site("b", ("t2",)), site("a", ("t1",))])


def test_agree_unites_classes_with_negative_first():
    sites = [site("a", regions=(), classes=("glioma",)), site("b", regions=(), classes=("glioma", "no tumour"))]
    assert agree(CLASSIFIES, sites).data.classes == ("no tumour", "glioma")
    assert agree(CLASSIFIES, sites).data.regions is None


@pytest.mark.parametrize(
    ("other", "classes", "reason"),
    [
        (site("b", regions=(), classes=("cat", "dog")), None, "has cat, dog, none of them among"),
        (site("b", regions=("wt",)), None, "has lesion, no lesion, none of them among"),
        (site("b", regions=()), None, "has neither classes nor masks"),
        (site("b", regions=(), classes=("x", "y")), ["healthy", "glioma"], "has x, y, none of them among data.classes"),
    ],
)
def test_compatible_leaves_out_site_without_common_classes(other, classes, reason):
    named = site("c", regions=(), classes=("healthy", "glioma"))
    config = CLASSIFIES if classes is None else override(CLASSIFIES, {"data.classes": classes})
    kept, reasons = compatible(config, [named, site("a", regions=(), classes=("glioma",)), other])
    assert [each.name for each in kept] == ["a", "c"]
    assert list(reasons) == ["b"]
    assert reasons["b"].startswith(reason)


def test_agree_rejects_classes_missing_at_all_sites():
    named = [site("a", regions=(), classes=("healthy", "glioma"))]
    with pytest.raises(ConfigError, match=r"data.classes: metastasis is not in the federation"):
        agree(override(CLASSIFIES, {"data.classes": ["glioma", "metastasis"]}), named)
    with pytest.raises(DataError, match="the federation: has one class"):
        agree(CLASSIFIES, [site("a", regions=(), classes=("glioma",))])


@pytest.mark.parametrize(
    ("config", "sites"),
    [
        (SEGMENTS, [site("a"), site("b", ("t1", "flair"))]),
        (
            CLASSIFIES,
            [site("a", regions=(), classes=("glioma",)), site("b", regions=(), classes=("glioma", "no tumour"))],
        ),
    ],
)
def test_agree_again_keeps_agreed_config(config, sites):
    agreed = agree(config, sites)
    assert agree_again(config, agreed) == agreed
    assert agree_again(agreed, agreed) == agreed


def test_agree_again_rejects_field_outside_agreement():
    agreed = agree(SEGMENTS, [site("a", ("t1", "flair"))])
    with pytest.raises(ConfigError, match="t2 is not in"):
        agree_again(override(SEGMENTS, {"data.modalities": ["t2"]}), agreed)


def test_agreed_scheme_is_common_scheme():
    new = [site("a", labels=BRATS_2023), site("b", labels=BRATS_2023)]
    assert agreed_scheme(agree(SEGMENTS, new), new) == (BRATS_2023, 0)


def test_agreed_scheme_is_canonical_when_sites_differ():
    apart = [site("a", labels=BRATS_2023), site("b", labels=TISSUES), site("c", labels=BRATS_2023)]
    assert agreed_scheme(agree(SEGMENTS, apart), apart) == (TISSUES, 2)


def test_agreed_scheme_is_binary_for_single_lesion_sites_that_differ():
    apart = [site(name, regions=("wt",), labels=LabelScheme.of_lesion(name)) for name in ("stroke", "tumour")]
    assert agreed_scheme(agree(SEGMENTS, apart), apart) == (BINARY, 2)


def test_agreed_scheme_compares_labels_of_common_regions_only():
    some = [site("a", regions=("wt",), labels=TISSUES.of_regions(("wt",))), site("b", labels=BRATS_2023)]
    assert agreed_scheme(agree(SEGMENTS, some), some) == (TISSUES.of_regions(("wt",)), 0)


def test_agreed_scheme_has_no_regions_without_masks():
    named = [site("a", regions=(), classes=("glioma", "none"))]
    assert agreed_scheme(agree(CLASSIFIES, named), named)[0].regions == {}


def test_site_info_round_trips_and_rejects_region_without_labels():
    sent = site("a", labels=BRATS_2023)
    assert SiteInfo.read(sent.counts(), sent.description()) == sent
    description = json.loads(sent.description().tobytes()) | {"regions": ["wt", "vessel"]}
    with pytest.raises(FederationError, match="not one of this version"):
        SiteInfo.read(sent.counts(), np.frombuffer(json.dumps(description).encode(), np.uint8))
