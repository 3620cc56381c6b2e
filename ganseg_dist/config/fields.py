"""The types that config fields share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictInt

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
Count = Annotated[StrictInt, Field(ge=1)]
"""Strict, as every integer in the config: lax validation accepts true as 1."""
Widths = Annotated[tuple[Count, ...], Field(min_length=2, max_length=6)]


class Operational:
    """Marks a field that decides how a run is carried out and neither its weights and scores nor what leaves a site.

    `config.operational` says what follows from it. An unmarked field counts as one that changes the result.
    """


OPERATIONAL = Operational()
"""As in `threads: Annotated[Count, OPERATIONAL] = 1`."""


class Frozen(BaseModel):
    """A validated, immutable node of the config tree; unknown fields raise an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
