"""FedAvg whose sites stay near the round's first weights (Li et al., Federated optimization, MLSys 2020, Eq. 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ganseg_dist.config.fields import NonNegative
from ganseg_dist.federation.strategies.fedavg import FedAvg


class FedProx(FedAvg):
    """The sites add the proximal term to their losses, by `train.proximal_weight`."""

    year = 2020
    searched: ClassVar = {"proximal_weight": (1e-3, 1)}  # the decades in which the paper tunes it

    proximal_weight: NonNegative = 0.01
    """mu of fedprox: mu / 2 * |w - w_round|^2 is added to every loss."""

    @property
    def details(self) -> str:
        return f"mu {self.proximal_weight:g}"

    def site_fields(self) -> Mapping[str, object]:
        return {"train.proximal_weight": self.proximal_weight}


STRATEGY = FedProx
