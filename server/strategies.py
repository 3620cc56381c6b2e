"""How one model is made of the sites' models: Flower's strategies, given what the firewall let through."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from flwr.app import Message, MessageType
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, FedTrimmedAvg, FedYogi, MultiKrum

from ganseg_dist.config import RunConfig
from ganseg_dist.config.federation import FederationConfig
from ganseg_dist.errors import ConfigError, FederationError
from ganseg_dist.federation.exchange import Arrays
from ganseg_dist.runners.messages import telling

MOMENTS = ("m_t", "v_t")
"""What FedAdam and FedYogi carry from round to round."""


def refuse_unfit(config: RunConfig, sites: int) -> None:
    """Raises ConfigError for a strategy that this many sites, or this recipe, cannot carry."""
    federation = config.federation
    needed = {
        "krum": 2 * federation.suspected_sites + 3,
        "fedmedian": 3,
        "trimmed": 3,
    }.get(federation.strategy, 1)
    if sites < needed:
        why = f" for federation.suspected_sites={federation.suspected_sites}" if federation.strategy == "krum" else ""
        raise ConfigError(
            f"federation.strategy: {federation.strategy} needs {needed} sites{why} and there are {sites}; "
            "take fedavg, whose firewall needs no majority"
        )
    if federation.strategy == "trimmed" and int(federation.trimmed_share * sites) == 0:
        raise ConfigError(
            f"federation.trimmed_share: {federation.trimmed_share:g} of {sites} sites is none, so that nothing is "
            f"trimmed; raise it to {1 / sites:.2g} or more"
        )
    if federation.strategy in ("fedadam", "fedyogi") and config.train.ema is not None:
        raise ConfigError(
            f"federation.strategy: {federation.strategy} moves the weights and not their running averages, which "
            f"{config.recipe} keeps; add train.ema=none, or take another strategy"
        )


class Aggregator:
    """One strategy over the rounds of a stage."""

    def __init__(self, config: FederationConfig) -> None:
        self.config = config
        self.begin()

    def begin(self) -> None:
        """A new stage: other tensors, no moments."""
        self.rounds = 0
        self.strategy = _strategy(self.config)

    def merge(self, sent: Arrays, updates: Mapping[str, Arrays], weights: Mapping[str, float]) -> Arrays:
        """One model of the sites' models.

        Args:
            sent: what the round began with.
            updates: each site's tensors, all under the same names.
            weights: each site's share; they sum to 1.
        """
        replies = [
            Message(
                telling(arrays, {"num-examples": weights[site]}),
                dst_node_id=0,
                message_type=MessageType.TRAIN,
            )
            for site, arrays in updates.items()
        ]
        if isinstance(self.strategy, FedAdam | FedYogi):
            self.strategy.current_arrays = dict(sent)
        if isinstance(self.strategy, MultiKrum):  # of one hospital's model alone the others would learn nothing
            self.strategy.num_nodes_to_select = max(1, len(updates) - self.config.suspected_sites)
        merged, _ = self.strategy.aggregate_train(self.rounds, replies)
        if merged is None:
            raise FederationError("round: no update to aggregate")
        self.rounds += 1
        return {name: merged[name].numpy().astype(np.float32, copy=False) for name in sent}

    def tensors(self) -> dict[str, npt.NDArray[np.float32]]:
        """The moments, for a checkpoint."""
        moments = {kind: getattr(self.strategy, kind, None) or {} for kind in MOMENTS}
        return {
            f"{kind}.{name}": np.asarray(value, np.float32)
            for kind, of in moments.items()
            for name, value in of.items()
        }

    def restore(self, rounds: int, tensors: Arrays) -> None:
        """The inverse of `tensors`, with the rounds of the stage that are done."""
        self.rounds = rounds
        for kind in MOMENTS:
            under = {name.removeprefix(f"{kind}."): value for name, value in tensors.items() if name.startswith(kind)}
            if under:
                setattr(self.strategy, kind, under)


def _strategy(config: FederationConfig) -> FedAvg:
    eta, betas = config.server_learning_rate, config.server_betas
    match config.strategy:
        case "fedavg" | "fedprox":  # what fedprox adds, the sites do (train.proximal_weight)
            return FedAvg()
        case "fedadam":
            return FedAdam(eta=eta, beta_1=betas[0], beta_2=betas[1])
        case "fedyogi":
            return FedYogi(eta=eta, beta_1=betas[0], beta_2=betas[1])
        case "fedmedian":
            return FedMedian()
        case "trimmed":
            return FedTrimmedAvg(beta=config.trimmed_share)
        case "krum":
            return MultiKrum(num_malicious_nodes=config.suspected_sites, num_nodes_to_select=1)
