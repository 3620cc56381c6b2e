"""Adam on the server, with the mean change as gradient (Reddi et al., Adaptive federated optimization, ICLR 2021).

Flower takes eta sqrt(1 - beta_2^t) / (1 - beta_1^t) in round t, Adam's correction of the moments' bias, where the
paper's Algorithm 2 and FedYogi take eta: with betas of 0.9 and 0.99 less than half of it in the tenth round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ganseg_dist.config.fields import BelowOne, Positive
from ganseg_dist.federation.strategy import FlowerStrategy, StageState

if TYPE_CHECKING:
    import numpy.typing as npt

    from ganseg_dist.federation.shared_parameters import Arrays

MOMENTS = ("m_t", "v_t")
"""Attributes of Flower's strategy that last from round to round."""


class AdaptiveServer(FlowerStrategy):
    """An optimizer on the server, whose moments last for a stage."""

    year = 2021
    needs_only_mean = True
    updates_ema = False
    searched: ClassVar = {"server_learning_rate": (1e-3, 1e-1)}  # within a decade of the default

    server_learning_rate: Positive = 0.01
    """eta of fedadam and fedyogi."""
    server_betas: tuple[BelowOne, BelowOne] = (0.9, 0.99)
    """Decays of fedadam and fedyogi."""

    @property
    def details(self) -> str:
        betas = " and ".join(f"{beta:g}" for beta in self.server_betas)
        return f"learning rate {self.server_learning_rate:g}, betas {betas}"

    def options(self, answers: int) -> dict[str, Any]:
        beta_1, beta_2 = self.server_betas
        return {"eta": self.server_learning_rate, "beta_1": beta_1, "beta_2": beta_2}

    def aggregate(
        self, sent: Arrays, updates: Mapping[str, Arrays], weights: Mapping[str, float], state: StageState
    ) -> Mapping[str, npt.NDArray[Any]]:
        """A step from the sent weights; the moments are kept in the stage's state."""
        from ganseg_dist.federation.flower import aggregate_with

        flower = self.flower(len(updates))
        flower.current_arrays = dict(sent)
        for kind in MOMENTS:
            prefix = f"{kind}."
            kept = {name.removeprefix(prefix): t for name, t in state.tensors.items() if name.startswith(prefix)}
            setattr(flower, kind, kept or None)
        merged = aggregate_with(flower, updates, weights, state.rounds)
        state.tensors = {f"{kind}.{name}": t for kind in MOMENTS for name, t in getattr(flower, kind).items()}
        return merged


class FedAdam(AdaptiveServer):
    """Adam's second moment."""

    flower_class = "FedAdam"


STRATEGY = FedAdam
