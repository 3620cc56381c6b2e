"""The mean of the sites' models (McMahan et al., Communication-efficient learning, AISTATS 2017)."""

from __future__ import annotations

from typing import ClassVar

from ganseg_dist.federation.strategy import FlowerStrategy


class FedAvg(FlowerStrategy):
    """Each site counts by its share."""

    flower_class = "FedAvg"
    year = 2017
    needs_only_mean = True
    searched: ClassVar = {}


STRATEGY = FedAvg
