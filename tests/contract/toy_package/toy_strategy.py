"""A third-party strategy: the mean of the sites' models, damped towards the weights sent."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ganseg_dist.federation.strategy import Strategy


class ToyMean(Strategy):
    """A damped mean, in NumPy alone."""

    year = 2024

    toy_damping: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of the sent weights in the new ones."""

    def least_answers(self):
        return 2

    def aggregate(self, sent, updates, weights, state):
        state.tensors = {"rounds": sent[next(iter(sent))].ravel()[:1]}
        return {
            name: self.toy_damping * values
            + (1 - self.toy_damping) * sum(weights[site] * arrays[name] for site, arrays in updates.items())
            for name, values in sent.items()
        }
