"""Which weights travel between sites and server, by name: the policy that both ends enforce."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ganseg_dist.config import RunConfig
from ganseg_dist.engine.state import State
from ganseg_dist.errors import ConfigError, FederationError
from ganseg_dist.federation.protocol import Layout, check_arrays
from ganseg_dist.systems.base import System

Arrays = Mapping[str, npt.NDArray[np.float32]]
"""Weights by name, such as networks.segmenter.head.weight; ema.segmenter.head.weight is its moving average."""

NORMS = (nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d, nn.BatchNorm2d)


def local_networks(system: System, config: RunConfig) -> frozenset[str]:
    """Networks that never leave a site.

    Raises ConfigError for a network that the system does not have, and when no network is shared.
    """
    federation = config.federation
    for field, names in (("local", federation.local or ()), ("personalised", federation.personalised)):
        unknown = [name for name in names if name not in system.networks]
        if unknown:
            known = ", ".join(system.networks)
            raise ConfigError(f"federation.{field}: {unknown[0]} is no network of {config.recipe}; it has {known}")
    names = config.system.local_networks if federation.local is None else federation.local
    local = frozenset(names) & system.networks.keys()
    if local == system.networks.keys():
        raise ConfigError("federation.local: holds every network, so that nothing is trained together; share one")
    return local


@dataclass(frozen=True, slots=True)
class SharedParameters:
    """Names and shapes of the tensors that travel while a stage trains."""

    shapes: Mapping[str, tuple[int, ...]]
    """By name, in the order of the networks."""
    personalised: frozenset[str]
    """Names of the tensors that a site averages with its own."""

    @classmethod
    def of(cls, state: State, system: System, config: RunConfig, stage: int) -> SharedParameters:
        """The shared tensors of the networks that this stage or an earlier one trains. Networks of later stages still
        have their initial weights, which are equal everywhere.
        """
        trained = {name for earlier in system.stages[: stage + 1] for name in earlier.networks}
        trained -= local_networks(system, config)
        norms_stay = config.federation.norm_layers == "local"
        norm_parameters = {name: _of_norms(network) for name, network in system.networks.items() if norms_stay}
        shapes: dict[str, tuple[int, ...]] = {}
        personalised = set()
        for name, tensor in _tensors(state).items():
            _, network, parameter = name.split(".", 2)
            if network not in trained or parameter in norm_parameters.get(network, ()):
                continue
            shapes[name] = tuple(tensor.shape)
            if network in config.federation.personalised:
                personalised.add(name)
        return cls(shapes, frozenset(personalised))

    def trained(self, system: System, stage: int) -> SharedParameters:
        """The tensors that this stage trains, which a site sends back."""
        networks = system.stages[stage].networks
        shapes = {name: shape for name, shape in self.shapes.items() if name.split(".")[1] in networks}
        return SharedParameters(shapes, self.personalised & shapes.keys())

    def check(self, arrays: Arrays) -> None:
        """Raises FederationError unless these are the agreed tensors, all of them finite."""
        expected: Layout = {name: (np.float32, shape) for name, shape in self.shapes.items()}
        check_arrays(arrays, expected, "version, recipe and policy")
        for name in self.shapes:
            if not np.isfinite(arrays[name]).all():
                raise FederationError(f"{name}: holds values that are not finite")

    def take(self, state: State) -> dict[str, npt.NDArray[np.float32]]:
        """Copies of these tensors from a state."""
        tensors = _tensors(state)
        return {name: tensors[name].detach().cpu().numpy().copy() for name in self.shapes}

    def put(self, arrays: Arrays, state: State, *, mix: bool = False) -> None:
        """Overwrite a state's tensors by these arrays; with `mix`, personalised ones by the mean of both."""
        tensors = _tensors(state)
        with torch.no_grad():
            for name in self.shapes:
                # A copy: what was received is a read-only view of a message.
                received = torch.from_numpy(np.array(arrays[name])).to(tensors[name].device)
                tensors[name].copy_((received + tensors[name]) / 2 if mix and name in self.personalised else received)


def _tensors(state: State) -> dict[str, torch.Tensor]:
    """Every tensor of a state by its name in messages."""
    parts = {"networks": dict(state.networks), "ema": {name: a.module for name, a in state.ema.items()}}
    return {
        f"{part}.{name}.{key}": tensor
        for part, networks in parts.items()
        for name, network in networks.items()
        for key, tensor in network.state_dict().items()
    }


def _of_norms(network: nn.Module) -> set[str]:
    """Names of the parameters of a network's normalisation layers."""
    return {
        f"{place}.{name}" if place else name
        for place, module in network.named_modules()
        if isinstance(module, NORMS)
        for name, _ in module.named_parameters(recurse=False)
    }
