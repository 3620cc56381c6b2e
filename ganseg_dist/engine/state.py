"""The state of training: the networks and what is carried from step to step beside their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ganseg_dist.config import RunConfig
from ganseg_dist.engine.balance import GradientBalance
from ganseg_dist.systems.base import System


@dataclass(frozen=True, slots=True)
class Epoch:
    """Losses and scores of one epoch: an entry of history.json."""

    stage: str
    epoch: int
    """Epoch of the stage, counted from 0."""
    step: int
    """Batches done by its end over all stages."""
    workers: int
    losses: Mapping[str, float]
    """Means over its steps, by `phase/term`; dynamic weights as `phase/weight_term`."""
    scores: Mapping[str, float]
    """Scores on the validation part."""


@dataclass(slots=True)
class Position:
    """The place in the run that training has reached; all of it is JSON."""

    stage: int = 0
    epoch: int = 0
    """Epochs of the stage that are done."""
    step: int = 0
    """Batches done over all stages."""
    best_score: float | None = None
    best_epoch: int | None = None
    stopped: bool = False
    """Whether the stage's stopping rule has ended it."""
    balances: dict[str, dict[str, float]] = field(default_factory=dict)
    """Running gradient norms by phase."""
    history: list[Epoch] = field(default_factory=list)


@dataclass(slots=True)
class State:
    """Networks, optimizers, averaged weights and position: what a checkpoint holds."""

    networks: Mapping[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    ema: dict[str, AveragedModel]
    """EMA copies by network; empty without `train.ema`."""
    balances: dict[str, GradientBalance]
    position: Position
    best: dict[str, Tensor]
    """Weights of the stage's best epoch, as `network.parameter`."""
    reference: dict[str, list[Tensor]] = field(default_factory=dict)
    """By network, the parameters that `train.proximal_weight` pulls towards; set by `fit`, not kept in checkpoints."""

    @classmethod
    def fresh(cls, system: System, config: RunConfig, device: torch.device) -> State:
        """One Adam a network, across its phases (GANet-Seg, Section 5.4)."""
        train = config.train
        fused = device.type == "cuda"
        optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(
                network.parameters(),
                lr=train.learning_rate,
                betas=train.betas,
                weight_decay=train.weight_decay,
                fused=fused,
            )
            for name, network in system.networks.items()
        }
        ema: dict[str, AveragedModel] = {}
        if train.ema is not None:
            follow = partial(_update_ema, decay=train.ema)
            ema = {name: AveragedModel(net, multi_avg_fn=follow) for name, net in system.networks.items()}
        balances = {
            phase.name: GradientBalance(phase.balance)
            for stage in system.stages
            for phase in stage.phases
            if phase.balance is not None
        }
        return cls(system.networks, optimizers, ema, balances, Position(), {})

    def validated_networks(self) -> Mapping[str, nn.Module]:
        """The networks that are validated and kept: the averaged ones where there are any."""
        return {name: self.ema[name].module if name in self.ema else net for name, net in self.networks.items()}

    def reset_reference(self, names: tuple[str, ...]) -> None:
        """Use these networks' current weights as w0 of the proximal term."""
        self.reference = {name: [p.detach().clone() for p in self.networks[name].parameters()] for name in names}

    def add_proximal_gradient(self, name: str, weight: float) -> None:
        """Add d/dw of weight / 2 * |w - w0|^2, which is weight * (w - w0), to the network's gradients."""
        for parameter, start in zip(self.networks[name].parameters(), self.reference.get(name, ()), strict=False):
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - start, alpha=weight)

    def remember_best(self, names: tuple[str, ...]) -> None:
        """Copy the validated weights of these networks as the stage's best."""
        validated = self.validated_networks()
        weights = flat_weights({name: validated[name] for name in names})
        self.best = {key: value.detach().cpu().clone() for key, value in weights.items()}

    def restore_best(self) -> None:
        """Load the remembered weights into networks and their moving averages."""
        for name, network in self.networks.items():
            if weights := weights_of(self.best, name):
                network.load_state_dict(weights)
                if name in self.ema:
                    self.ema[name].module.load_state_dict(weights)
        self.best = {}


def flat_weights(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The networks' tensors as `network.parameter`."""
    return {f"{name}.{key}": value for name, network in networks.items() for key, value in network.state_dict().items()}


def weights_of(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Those of one network, by their names in the network."""
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


@torch.no_grad()
def _update_ema(ema: list[Tensor], networks: list[Tensor], updates: Tensor, *, decay: float) -> None:
    """Exponential moving average: a <- d a + (1 - d) w, with d = min(decay, (1 + n) / (10 + n)) after n updates.

    A small d at first: with few steps an epoch, the initial weights would otherwise dominate for many epochs.
    """
    known = int(updates)
    share = 1 - min(decay, (1 + known) / (10 + known))
    torch._foreach_lerp_(ema, networks, share)
