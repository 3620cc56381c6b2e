"""Dynamic loss weights: running averages of each term's gradient norm (GANet-Seg, Eqs. 9-10)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ganseg_dist.engine.world import World
from ganseg_dist.systems.base import Balance

EPSILON = 1e-8


class GradientBalance:
    """The running gradient norms of one phase's terms, and the weights they give."""

    def __init__(self, rule: Balance) -> None:
        self.rule = rule
        self.norms: dict[str, float] = {}

    def read(self, terms: Mapping[str, Tensor], networks: Mapping[str, nn.Module], world: World) -> None:
        """Take each term's gradient at the shared parameter, average it over the ranks, update its running norm."""
        network, _, parameter = self.rule.parameter.partition(".")
        shared = networks[network].get_parameter(parameter)
        gradients = [
            torch.autograd.grad(term, shared, retain_graph=True, allow_unused=True)[0] for term in terms.values()
        ]
        known = [torch.zeros_like(shared) if gradient is None else gradient for gradient in gradients]
        world.average(known)
        decay = self.rule.decay
        for name, norm in zip(terms, torch.stack([gradient.norm() for gradient in known]).tolist(), strict=True):
            old = self.norms.get(name)
            self.norms[name] = norm if old is None else decay * old + (1 - decay) * norm

    def weights(self, base: Mapping[str, float]) -> dict[str, float]:
        """Each term's current weight: `base` scaled by the rule."""
        if self.rule.rule == "inverse":
            return {name: 1 / (self.norms[name] + EPSILON) for name in base}
        low, high = self.rule.clip
        reference = self.norms[self.rule.reference]
        return {
            name: weight
            if name == self.rule.reference
            else weight * min(max(reference / (self.norms[name] + EPSILON), low), high)
            for name, weight in base.items()
        }
