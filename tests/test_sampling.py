import pytest

from ganseg_dist.sampling import evenly_spaced


@pytest.mark.parametrize(
    ("count", "most", "places"),
    [(0, 4, []), (1, 4, [0]), (3, 4, [0, 1, 2]), (9, 3, [0, 4, 8]), (10, 3, [0, 4, 9])],
)
def test_evenly_spaced_places_include_the_first_and_last_and_none_twice(count, most, places):
    assert evenly_spaced(count, most).tolist() == places
