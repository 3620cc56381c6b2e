"""What `make verify` compares, on a few of each; packages of the extra `verify` are asked where they are installed."""

import pytest

from verification.agreement import SECTIONS, compared

NEEDS = {"Masks": ("medpy", "surface_distance", "monai"), "Losses": ("monai",), "Accountants": ("dp_accounting.pld",)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("section", SECTIONS)
def test_two_packages_compute_the_same_number(section):
    for package in NEEDS.get(section, ()):
        pytest.importorskip(package, reason="comes with pip install 'ganseg-dist[verify]', as make verify does it")
    rows = list(SECTIONS[section](6))
    assert rows
    assert [row for row in rows if not row.holds] == []
    assert all(row.n >= 4 for row in rows)


def test_a_difference_beyond_rounding_is_a_disagreement():
    assert compared("a", "b", [(1.0, 1.0), (2.0, 2.0 + 1e-13)], 1e-12).holds
    assert not compared("a", "b", [(1.0, 1.0), (2.0, 2.1)], 1e-12).holds
    assert not compared("a", "b", [(1.0, float("nan"))], 1e-12).holds
