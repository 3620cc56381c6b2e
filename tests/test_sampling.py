import pytest

from ganseg_dist.sampling import evenly_spaced


@pytest.mark.parametrize(
    ("count", "most", "places"),
    [(0, 4, []), (1, 4, [0]), (3, 4, [0, 1, 2]), (9, 3, [0, 4, 8]), (10, 3, [0, 4, 9])],
)
def test_evenly_spaced_includes_ends_without_duplicates(count, most, places):
    assert evenly_spaced(count, most).tolist() == places
