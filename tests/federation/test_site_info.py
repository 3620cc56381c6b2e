"""What a site states when it joins, as the server reads it."""

import json

import numpy as np
import pytest

from ganseg_dist.data.labels import SCHEMES, UNSTATED, LabelScheme
from ganseg_dist.errors import FederationError
from ganseg_dist.federation.site_info import LONGEST_DESCRIPTION, SiteInfo, preflight_layout

INFO = SiteInfo("north", 10, 12, 100, ("flair", "t1"), ("wt", "tc", "et"), ("no lesion", "lesion"), SCHEMES["brats"])


def read(**changes) -> SiteInfo:
    stated = json.loads(INFO.description().tobytes()) | changes
    return SiteInfo.read(INFO.counts(), np.frombuffer(json.dumps(stated).encode(), np.uint8))


def test_site_info_round_trips():
    assert read() == INFO
    assert set(INFO.counts()) == set(preflight_layout().numbers)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_site_info_accepts_known_schemes(scheme):
    info = SiteInfo("north", 1, 1, 0, ("t1",), tuple(scheme.regions), (), scheme)
    assert SiteInfo.read(info.counts(), info.description()) == info


def test_largest_site_info_fits_its_message():
    words = tuple(f"{number:040}" for number in range(64))
    scheme = LabelScheme({"background": 0} | {f"{number:020}": number + 1 for number in range(60)}, {})
    info = SiteInfo("n" * 60, 1, 1, 1, words, (), words, scheme)
    assert info.description().nbytes < LONGEST_DESCRIPTION


@pytest.mark.parametrize(
    "word",
    ["", " t1", "t1 ", ".t1", "..", "../t1", "t1\n", "a\x1b[2J", "<b>", "$x$", "[a](b)", "`a`", "a|b", "a,b", "x" * 41],
)
def test_site_info_rejects_words_that_are_no_names(word):
    for field in ("modalities", "classes"):
        with pytest.raises(FederationError, match="its answer is not one of this version"):
            read(**{field: [word]})


@pytest.mark.parametrize("word", ["t1", "T1 post", "grade 2+", "no-lesion", "-", "müde", "x" * 40, "v1.2"])
def test_site_info_accepts_words_of_data(word):
    assert read(classes=[word]).classes == (word,)


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ["a", "a"]},
        {"modalities": [str(number) for number in range(65)]},
        {"regions": ["cavity"]},
        {"labels": {"labels": {"background": 0, "a": 1, "b": 1}, "regions": {}, "nested": True, "ignore": None}},
        {"labels": UNSTATED.to_json()},
        {"patients": 3},
        {"name": "x\nfinished: /all/good"},
        {"name": "\u202e north"},
        {"origin": "elsewhere"},
    ],
    ids=["a word twice", "too many words", "a region of no labels", "a value twice", "no labels", "a count in the text",
         "a second line", "reversed", "another origin"],
)  # fmt: skip
def test_site_info_rejects_contradictions(changes):
    with pytest.raises(FederationError) as caught:
        read(**changes)
    assert str(caught.value).isprintable()
    assert "finished" not in str(caught.value)


def test_site_info_rejects_more_patients_than_cases():
    with pytest.raises(FederationError):
        SiteInfo.read(INFO.counts() | {"patients": 13}, INFO.description())
