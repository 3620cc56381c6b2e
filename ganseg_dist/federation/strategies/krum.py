"""Multi-Krum: the mean of all but the f updates that lie farthest from their neighbours.

Blanchard et al., Machine learning with adversaries, NIPS 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, StrictInt

from ganseg_dist.federation.strategy import FlowerStrategy, StageState

if TYPE_CHECKING:
    import numpy.typing as npt

    from ganseg_dist.federation.shared_parameters import Arrays


class MultiKrum(FlowerStrategy):
    """All sites that are left count alike."""

    flower_class = "MultiKrum"
    year = 2017

    suspected_sites: Annotated[StrictInt, Field(ge=0)] = 1
    """f of krum, which needs 2 f + 3 sites and averages all but the f that lie farthest from their neighbours
    (Multi-Krum: Blanchard et al., Machine learning with adversaries, NIPS 2017)."""

    @property
    def details(self) -> str:
        return f"Multi-Krum, {self.suspected_sites} suspected"

    def least_answers(self) -> int:
        """Proven for n >= 2 f + 3 (the paper's Prop. 4.2)."""
        return 2 * self.suspected_sites + 3

    def options(self, answers: int) -> dict[str, Any]:
        """f, and how many to average: with only one, the model would ignore the other hospitals."""
        left = max(1, answers - self.suspected_sites)
        return {"num_malicious_nodes": self.suspected_sites, "num_nodes_to_select": left}

    def aggregate(
        self, sent: Arrays, updates: Mapping[str, Arrays], weights: Mapping[str, float], state: StageState
    ) -> Mapping[str, npt.NDArray[Any]]:
        """By the sites' changes in float64.

        Flower compares sites by ||a - b||^2 = ||a||^2 + ||b||^2 - 2 a.b. For whole float32 weights that differ by a
        thousandth of their norm, this cancels to noise, even below 0, and a reversed update goes unnoticed.
        """
        from ganseg_dist.federation.updates import change_of

        changes: Mapping[str, Any] = {site: change_of(arrays, sent) for site, arrays in updates.items()}
        merged = super().aggregate(sent, changes, weights, state)
        return {name: sent[name] + change for name, change in merged.items()}


STRATEGY = MultiKrum
