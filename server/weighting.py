"""The share of each site's update in the average."""

from __future__ import annotations

import math
from collections.abc import Mapping


def site_weights(examples: Mapping[str, float], largest_share: float) -> dict[str, float]:
    """Shares in proportion to the examples, none above the largest; they sum to 1, and one site's is 1.0.

    With n sites of e_i > 0 examples and the cap c = max(largest_share, 1/n), as below 1/n no shares sum to 1:

        w_i = min(c, lambda e_i),   lambda such that sum_i w_i = 1

    so what is cut from one site goes to those below the cap in proportion to their examples (water-filling). In the
    order of falling e_i, each site takes its proportion of what remains for it and the smaller ones, or c if that is
    less: the first site that is not cut determines lambda.

    The order in which sites answered changes no bit of the result.

    Args:
        examples: count by site, at least one site, each above 0.
        largest_share: in (0, 1].
    """
    cap = max(largest_share, 1 / len(examples))
    ordered = sorted(examples, key=lambda site: (-examples[site], site))
    shares: dict[str, float] = {}
    remaining = 1.0
    for place, site in enumerate(ordered):
        proportion = examples[site] / math.fsum(examples[other] for other in ordered[place:])
        shares[site] = min(cap, remaining * proportion)
        remaining -= shares[site]
    return {site: shares[site] for site in examples}
