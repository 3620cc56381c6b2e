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
from server.agreement import agree, agree_again, agreed_scheme, compatible, left_out_classes, unsuited

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
        ({}, site("b", regions=("et",)), "has et and no wt, of which they are parts"),
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


@pytest.mark.parametrize(
    ("modalities", "most"),
    [
        ([("t1",), ("t2",)], "t1, t2 are each at 1 of 2"),
        ([("t1",), ("t1", "t2"), ("t1", "t2"), ("t2",)], "t1, t2 are each at 3 of 4"),
    ],
)
def test_compatible_raises_where_no_majority_decides(modalities, most):
    """The alphabet would choose t2, and leave out whoever lacks it."""
    sites = [site(name, has) for name, has in zip("abcd", modalities, strict=False)]
    with pytest.raises(FederationError, match=rf"{most} sites; name data\.modalities in the config"):
        compatible(SEGMENTS, sites)
    kept, reasons = compatible(override(SEGMENTS, {"data.modalities": ["t1"]}), sites)
    assert "a" in [each.name for each in kept]
    assert list(reasons) == [sites[-1].name]


def test_compatible_leaves_out_masks_without_whole_tumour_where_others_name_classes():
    named = [site(name, regions=(), classes=("healthy", "lesion", "no lesion")) for name in "ac"]
    kept, reasons = compatible(CLASSIFIES, [*named, site("b", regions=("et",))])
    assert [each.name for each in kept] == ["a", "c"]
    assert reasons["b"].startswith("has et and no wt")
    assert agree(CLASSIFIES, kept).data.regions is None


INVENTED = tuple(f"c{number:02}" for number in range(63))


def test_agree_ignores_classes_that_one_of_three_sites_states():
    honest = [site(name, regions=(), classes=("glioma", "no tumour")) for name in "ac"]
    sites, reasons = compatible(CLASSIFIES, [*honest, site("b", regions=(), classes=("glioma", *INVENTED))])
    assert reasons == {}
    assert agree(CLASSIFIES, sites).data.classes == ("no tumour", "glioma")
    (text,) = left_out_classes(CLASSIFIES, sites).items()
    assert text == (
        "b",
        "its images of c00, c01, c02 and 60 more are not used, as no other site has any; data.classes can name them",
    )
    named = override(CLASSIFIES, {"data.classes": ["no tumour", "glioma", "c07"]})
    assert agree(named, sites).data.classes == ("no tumour", "glioma", "c07")
    assert left_out_classes(named, sites) == {}


def test_agree_requires_configured_classes_where_no_two_sites_share_two():
    sites = [site(name, regions=(), classes=("glioma", f"of {name}")) for name in "abc"]
    with pytest.raises(FederationError, match=r"name data\.classes in the config"):
        agree(CLASSIFIES, sites)


def test_unsuited_names_what_a_late_site_lacks_of_the_agreement():
    agreed = agree(SEGMENTS, [site("a", ("t1", "flair")), site("b", ("t1", "flair"), ("wt", "tc"))])
    assert unsuited(agreed, site("c")) is None
    assert str(unsuited(agreed, site("c", ("t1",)))).startswith("has no flair")
    assert str(unsuited(agreed, site("c", regions=("wt",)))).startswith("has no tc")
    named = agree(CLASSIFIES, [site(name, regions=(), classes=("glioma", "no tumour")) for name in "ab"])
    assert unsuited(named, site("c", ("t1", "t1ce", "t2", "flair"), (), ("glioma",))) is None
    assert str(unsuited(named, site("c", regions=(), classes=("cat",)))).startswith("has cat")


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
