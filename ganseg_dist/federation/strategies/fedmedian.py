"""The median of every weight (Yin et al., Byzantine-robust distributed learning, ICML 2018)."""

from __future__ import annotations

from ganseg_dist.federation.strategy import FlowerStrategy


class FedMedian(FlowerStrategy):
    """All sites count alike."""

    flower_class = "FedMedian"
    year = 2018

    def least_answers(self) -> int:
        """Three, as the median of two is their mean."""
        return 3


STRATEGY = FedMedian
