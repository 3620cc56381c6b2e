"""One step: the gradient of a phase's weighted terms, averaged over the ranks, and the update of its networks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from ganseg_dist.config import RunConfig
from ganseg_dist.data.batch import Batch
from ganseg_dist.engine.patient_privacy import PatientPrivacy
from ganseg_dist.engine.state import State
from ganseg_dist.engine.world import World
from ganseg_dist.errors import TrainingDiverged
from ganseg_dist.systems.base import Phase, System


def train_step(
    system: System,
    phase: Phase,
    batch: Batch,
    config: RunConfig,
    state: State,
    world: World,
    privacy: PatientPrivacy | None = None,
) -> dict[str, Tensor]:
    """One update of the phase's networks.

    With `privacy` the batch's patients have their gradients clipped one by one, summed and noised; see PatientPrivacy.

    Returns what to log, each a scalar by `phase/name`: the terms before weighting, and the weights where they are
    balanced.
    """
    backpropagate = partial(_backpropagate, system, phase, config=config, state=state, world=world)
    if privacy is None:
        logged = backpropagate(batch)
    else:
        parameters = [p for name in phase.trains for p in state.networks[name].parameters()]
        logged = privacy.gradients(batch, parameters, backpropagate)
    for name in phase.trains:
        # Part of the loss, mu/2 |w - w_sent|^2 (FedProx), and so before the gradient is averaged and clipped.
        state.add_proximal_gradient(name, config.train.proximal_weight)
        # A parameter that no term reached has no gradient, and Adam leaves it where it is.
        parameters = [p for p in state.networks[name].parameters() if p.grad is not None]
        world.average([p.grad for p in parameters if p.grad is not None])
        # After averaging, so that the norm is the global batch's and not one rank's: any number of workers clips alike.
        # By network, so that a discriminator's large gradient does not shrink its generator's.
        if config.train.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, config.train.clip_norm)
        state.optimizers[name].step()
        # To None, not to 0: in a later phase that does not reach a parameter, momentum would still move it.
        state.optimizers[name].zero_grad(set_to_none=True)
        if name in state.ema:
            state.ema[name].update_parameters(state.networks[name])
    return logged


def _backpropagate(
    system: System, phase: Phase, batch: Batch, *, config: RunConfig, state: State, world: World
) -> dict[str, Tensor]:
    """Add the gradient of sum_i w_i L_i, with the phase's terms L_i, to the networks that it trains."""
    # Frozen here and not once a stage: in a GAN each phase trains what the phase before it held still.
    train_only(state.networks, phase.trains)
    with precision(config, world):
        # A term of weight 0 is off: it is not logged either, and has no gradient to balance the others by.
        terms = {name: term for name, term in system.losses(phase.name, batch).items() if phase.weights[name]}
        weights = {name: phase.weights[name] for name in terms}
        logged = {f"{phase.name}/{name}": term.detach() for name, term in terms.items()}
        balance = state.balances.get(phase.name)
        if balance is not None:
            # Gradient norms need a backward pass a term, so they are kept for some steps.
            if not balance.norms or state.position.step % config.train.balance_every == 0:
                balance.read(terms, state.networks, world)
            weights = balance.weights(weights)
            logged |= {f"{phase.name}/weight_{name}": torch.tensor(weight) for name, weight in weights.items()}
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    # Outside autocast: a backward pass runs each operation in the type of its forward pass by itself.
    total.backward()
    return logged


def train_only(networks: Mapping[str, nn.Module], names: tuple[str, ...]) -> None:
    """Train these networks; freeze the others, through which gradients still pass to their inputs."""
    for name, network in networks.items():
        trains = name in names
        network.train(trains)
        network.requires_grad_(trains)


def precision(config: RunConfig, world: World) -> torch.autocast:
    """bf16 autocast where the config sets it, and by default on a GPU."""
    wanted = config.train.precision
    enabled = wanted == "bf16" or (wanted == "auto" and world.device.type == "cuda")
    return torch.autocast(world.device.type, dtype=torch.bfloat16, enabled=enabled)


class StepLog:
    """Per-step values by name, kept on the device so that no step waits for a copy to the CPU."""

    def __init__(self, first_step: int) -> None:
        self.first_step = first_step
        self.records: dict[str, dict[int, Tensor]] = {}
        self.values: dict[str, list[float]] = {}

    def add(self, index: int, values: Mapping[str, Tensor]) -> None:
        """The values of one phase's step at this batch."""
        for name, value in values.items():
            self.records.setdefault(name, {})[index] = value

    def close(self, stage: str, epoch: int, world: World) -> dict[str, float]:
        """Average over the ranks, fill `values`, and return each name's mean over the epoch.

        Raises TrainingDiverged naming the first term that is not finite.
        """
        means: dict[str, float] = {}
        length = 1 + max((max(steps) for steps in self.records.values()), default=-1)
        for name, steps in self.records.items():
            values = torch.stack([value.float().to(world.device) for value in steps.values()])
            world.average([values])
            series = [math.nan] * length
            for index, value in zip(steps, values.tolist(), strict=True):
                series[index] = value
                if not math.isfinite(value):
                    raise TrainingDiverged(
                        f"stage {stage}, epoch {epoch}: the loss {name} became {value}; "
                        "lower train.learning_rate or that term's weight"
                    )
            self.values[name] = series
            means[name] = values.mean().item()
        return means
