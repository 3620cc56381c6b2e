import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganseg_dist.names import (
    DEVICE,
    LONGEST,
    SAFE,
    ArrayName,
    LabelName,
    NodeName,
    RunName,
    SiteName,
    folder_name,
    folder_names,
    is_name,
)  # fmt: skip

PATHLIKE = st.text(alphabet=string.ascii_letters + string.digits + "./\\-_: \0\nÜß北é%#?*'\"", max_size=120)


@pytest.mark.parametrize(
    "name",
    ["site_1", "BraTS20_Training_001", "TCGA-02", "_a", "St.-Mary", "a.b-c", "ward--7", "x" * LONGEST, "conrad", "9"],
)
def test_folder_name_keeps_safe_name(name):
    assert folder_name(name) == name
    assert folder_names([name, "another"])[name] == name


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("Spital Ü", "Spital-U"),
        ("Spital U\u0308", "Spital-U"),
        ("St. Mary/Ward 3", "St.-Mary-Ward-3"),
        ("../../../../x", "x"),
        ("/etc/passwd", "etc-passwd"),
        ("C:\\Users\\anna", "C-Users-anna"),
        ("Gießen", "Giessen"),
        ("Łódź", "Lodz"),
        (".hidden", "hidden"),
        ("-rf", "rf"),
        ("a.", "a"),
        ("a\nb\0c", "a-b-c"),
        ("CON", "name-CON"),
        ("nul.txt", "name-nul.txt"),
        ("COM1", "name-COM1"),
    ],
)
def test_folder_name_transliterates_unsafe_name(name, called):
    assert folder_name(name) == called


@pytest.mark.parametrize("name", ["", ".", "..", "/", "北京医院", " ", "\u202e", "\ud800", "---"])
def test_folder_name_is_digest_without_plain_letters(name):
    assert re.fullmatch(r"name-[0-9a-f]{8}", folder_name(name))


def test_folder_name_truncates_long_name_with_digest():
    long, longer = "a" * 200, "a" * 201
    assert len(folder_name(long)) == LONGEST
    assert folder_name(long)[:91] == "a" * 91
    assert folder_name(long) != folder_name(longer)
    ward = "Universitätsklinikum der Stadt am Fluss, Haus 7"
    assert folder_name(ward, longest=40) == "Universitatsklinikum-der-Stadt-8b364040"


def test_folder_names_separate_colliding_names():
    called = folder_names(["Spital Ü", "Spital-U", "spital u"])
    assert called["Spital-U"] == "Spital-U"
    assert re.fullmatch(r"Spital-U-[0-9a-f]{8}", called["Spital Ü"])
    assert re.fullmatch(r"spital-u-[0-9a-f]{8}", called["spital u"])


def test_folder_names_separate_names_that_differ_in_case():
    called = folder_names(["ward", "Ward", "WARD"])
    assert called["WARD"] == "WARD"
    assert len({name.lower() for name in called.values()}) == 3


def test_folder_names_do_not_depend_on_unrelated_names_and_order():
    assert folder_names(["Spital Ü", "north", "St. Mary/Ward 3"])["Spital Ü"] == folder_names(["Spital Ü"])["Spital Ü"]
    some = ["Spital Ü", "Spital U", "north"]
    assert folder_names(some) == folder_names(reversed(some))


def test_folder_names_avoid_taken_names():
    called = folder_names(["Manifest.csv", "glioma"], taken=["manifest.csv"])
    assert re.fullmatch(r"Manifest.csv-[0-9a-f]{8}", called["Manifest.csv"])
    assert called["glioma"] == "glioma"


def test_folder_names_separate_deliberate_collisions():
    """Whoever knows the digest can name another hospital just so."""
    met, names = "Spital Ü", ["Spital Ü", "Spital-U"]
    for _ in range(5):
        names.append(folder_names(names)[met])
    assert len(set(folder_names(names).values())) == len(names)


@given(st.lists(PATHLIKE, max_size=12, unique=True))
def test_folder_names_are_safe_and_distinct(names):
    called = folder_names(names)
    assert list(called) == names
    assert len({name.lower() for name in called.values()}) == len(names)
    for name in called.values():
        assert SAFE.fullmatch(name)
        assert not DEVICE.fullmatch(name)
        assert len(name) <= LONGEST


@pytest.mark.parametrize(
    ("kind", "valid", "invalid"),
    [
        (RunName, ["a", "2026-trial.1_b", "a" * 100], ["", ".a", "-a", "a/b", "a b", "a" * 101, "a\n", "ä", 3]),
        (SiteName, ["Spital Ü", "北", "a" * 60], ["", " a", "a ", "a\nb", "\u202ea", "a" * 61]),
        (NodeName, ["ward_3-b"], ["", "a.b", "a" * 41, "a\n"]),
        (LabelName, ["non-enhancing tumour", "a" * 80], ["", "a\tb", "a" * 81]),
        (ArrayName, ["critic/conv.0.weight"], ["/etc/passwd", "~a", "../a", "a\\b", "a\0", ""]),
    ],
)
def test_is_name_accepts_valid_names_of_each_kind(kind, valid, invalid):
    assert all(is_name(name, kind) for name in valid)
    assert not [name for name in invalid if is_name(name, kind)]
