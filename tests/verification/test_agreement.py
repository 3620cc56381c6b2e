"""What `make verify` compares, on a few of each; sections whose packages are not installed are skipped."""

import pytest

from verification.agreement import SECTIONS, compared

NEEDS = {"Masks": ("medpy", "surface_distance", "monai"), "Losses": ("monai",), "Accountants": ("dp_accounting.pld",)}
SLOW = ("Accountants",)  # tests/federation/test_accountant.py compares with closed forms in the quick suite


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "section",
    [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in SECTIONS],
)
def test_section_agrees_with_other_packages(section):
    for package in NEEDS.get(section, ()):
        pytest.importorskip(package, reason="comes with pip install 'ganseg-dist[verify]', as make verify does it")
    rows = list(SECTIONS[section](6))
    assert rows
    assert [row for row in rows if not row.holds] == []
    assert all(row.n >= 4 for row in rows)


def test_compared_fails_beyond_bound_and_for_nan():
    assert compared("a", "b", [(1.0, 1.0), (2.0, 2.0 + 1e-13)], 1e-12).holds
    assert not compared("a", "b", [(1.0, 1.0), (2.0, 2.1)], 1e-12).holds
    assert not compared("a", "b", [(1.0, float("nan"))], 1e-12).holds
