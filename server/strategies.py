"""Aggregates the sites' models into one: Flower's strategies, applied to the updates that the firewall accepts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Message, MessageType
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, FedTrimmedAvg, FedYogi, MultiKrum

from ganseg_dist.config import RunConfig
from ganseg_dist.config.federation import FederationConfig
from ganseg_dist.errors import ConfigError, FederationError
from ganseg_dist.federation.flower import pack_reply
from ganseg_dist.federation.shared_parameters import Arrays

MOMENTS = ("m_t", "v_t")
"""Attributes of FedAdam and FedYogi that last from round to round."""


def least_answers(federation: FederationConfig) -> int:
    """The fewest answers with which a round's strategy bounds a site's influence: with fewer, one liar decides.

    Krum is proven for n >= 2 f + 3 (Blanchard et al., Machine learning with adversaries, NeurIPS 2017, Prop. 4.2). The
    median of two is their mean. A trimmed mean leaves out floor(share n) at either end, which must be at least one.
    """
    match federation.strategy:
        case "krum":
            return 2 * federation.suspected_sites + 3
        case "fedmedian":
            return 3
        case "trimmed" if federation.trimmed_share > 0:
            fewest = max(3, math.ceil(1 / federation.trimmed_share))
            return fewest if int(federation.trimmed_share * fewest) else fewest + 1  # as Flower rounds
    return 1


def validate_setup(config: RunConfig, sites: int) -> None:
    """Raises ConfigError for a strategy that does not work with this many sites or with this recipe."""
    federation = config.federation
    if federation.strategy == "trimmed" and not federation.trimmed_share:
        raise ConfigError("federation.trimmed_share: 0 trims nothing; raise it, or take fedavg")
    needed = least_answers(federation)
    if sites < needed:
        why = {
            "krum": f" for federation.suspected_sites={federation.suspected_sites}",
            "trimmed": f" for federation.trimmed_share={federation.trimmed_share:g}",
        }.get(federation.strategy, "")
        raise ConfigError(
            f"federation.strategy: {federation.strategy} needs {needed} sites{why} and there are {sites}; "
            "take fedavg, whose firewall needs no majority"
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
        """Start a new stage, with other tensors and without moments."""
        self.rounds = 0
        self.strategy = _strategy(self.config)

    def merge(self, sent: Arrays, updates: Mapping[str, Arrays], weights: Mapping[str, float]) -> Arrays:
        """The aggregate of the sites' models, as float32.

        Args:
            sent: the weights that the round began with.
            updates: each site's tensors, all under the same names.
            weights: each site's share; they sum to 1.
        """
        inputs: Mapping[str, Mapping[str, npt.NDArray[Any]]] = updates
        if isinstance(self.strategy, MultiKrum):
            inputs = {site: _changes(arrays, sent) for site, arrays in updates.items()}
            # With only one model selected, nothing of the other hospitals' would be learnt.
            self.strategy.num_nodes_to_select = max(1, len(updates) - self.config.suspected_sites)
        replies = [
            Message(
                pack_reply(arrays, {"num-examples": weights[site]}),
                dst_node_id=0,
                message_type=MessageType.TRAIN,
            )
            for site, arrays in inputs.items()
        ]
        if isinstance(self.strategy, FedAdam | FedYogi):
            self.strategy.current_arrays = dict(sent)
        merged, _ = self.strategy.aggregate_train(self.rounds, replies)
        if merged is None:
            raise FederationError("round: no update to aggregate")
        self.rounds += 1
        arrays = {name: merged[name].numpy() for name in sent}
        if isinstance(self.strategy, MultiKrum):
            arrays = {name: sent[name] + change for name, change in arrays.items()}
        return {name: values.astype(np.float32, copy=False) for name, values in arrays.items()}

    def tensors(self) -> dict[str, npt.NDArray[np.float32]]:
        """The moments, for a checkpoint."""
        moments = {kind: getattr(self.strategy, kind, None) or {} for kind in MOMENTS}
        return {
            f"{kind}.{name}": np.asarray(value, np.float32)
            for kind, values in moments.items()
            for name, value in values.items()
        }

    def restore(self, rounds: int, tensors: Arrays) -> None:
        """The inverse of `tensors`, after `rounds` completed rounds of the stage."""
        self.rounds = rounds
        for kind in MOMENTS:
            moments = {name.removeprefix(f"{kind}."): value for name, value in tensors.items() if name.startswith(kind)}
            if moments:
                setattr(self.strategy, kind, moments)


def _changes(arrays: Arrays, sent: Arrays) -> dict[str, npt.NDArray[np.float64]]:
    """A site's change of each tensor, in float64.

    Flower's Krum compares sites by ||a - b||^2 = ||a||^2 + ||b||^2 - 2 a.b. For whole float32 weights that differ by a
    thousandth of their norm, this cancels to noise, even below 0, and a site with a reversed update goes unnoticed.
    """
    return {name: values.astype(np.float64) - sent[name] for name, values in arrays.items()}


def _strategy(config: FederationConfig) -> FedAvg:
    """Flower's strategy for this config.

    Its FedAdam takes eta sqrt(1 - beta_2^t) / (1 - beta_1^t) in round t, Adam's correction of the moments' bias, where
    Algorithm 2 of Reddi et al. (Adaptive federated optimization, ICLR 2021) and FedYogi take eta: with betas of 0.9 and
    0.99 less than half of it in the tenth round.
    """
    eta, betas = config.server_learning_rate, config.server_betas
    match config.strategy:
        case "fedavg" | "fedprox":  # the sites add the proximal term (train.proximal_weight)
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
