"""A federation of two sites and three rounds, made by hand."""

from typing import Any

LEFT_OUT = {"site": "south", "round": 2, "reason": "the change's norm is 9 times the usual one, more than 5"}


def federation_json(**more: Any) -> dict[str, Any]:
    """federation.json: the first round is of another stage, and the second takes north alone."""
    return {
        "rounds": [
            _round(1, "healthy", 0, 2, {"north": (30, 0.75, 0.2), "south": (10, 0.25, 0.4)}, "hole_l1"),
            _round(2, "segment", 0, 3, {"north": (30, 1.0, 0.5)}, "dice_wt"),
            _round(3, "segment", 3, 4, {"north": (30, 0.75, 0.7), "south": (10, 0.25, 0.6)}, "dice_wt"),
        ],
        "quarantined": [LEFT_OUT],
        "sites": {name: {"patients": n, "cases": 2 * n, "slices": 9 * n} for name, n in (("north", 3), ("south", 1))},
        **more,
    }


def _round(
    number: int, stage: str, first: int, until: int, sites: dict[str, tuple[int, float, float]], score: str
) -> dict[str, Any]:
    scores = [value for _, _, value in sites.values()]
    return {
        "round": number,
        "stage": stage,
        "first": first,
        "until": until,
        "scores": {score: sum(scores) / len(scores)},
        "sites": {
            name: {
                "examples": examples,
                "weight": weight,
                "losses": {f"{stage}/phase/term": 1 / number},
                "scores": {score: value},
            }
            for name, (examples, weight, value) in sites.items()
        },
        "bytes_out": 2000,
        "bytes_in": 500 * len(sites),
    }
