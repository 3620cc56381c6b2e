"""Fields of a federation, on which hospitals and server agree in addition to the recipe."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, GetCoreSchemaHandler, create_model
from pydantic_core import CoreSchema

from ganseg_dist.config.fields import OPERATIONAL, Count, Fraction, Frozen, Positive
from ganseg_dist.config.privacy import PrivacyConfig
from ganseg_dist.errors import ConfigError
from ganseg_dist.registry import published_strategies, strategies

Encoding = Literal["fp32", "fp16", "int8", "topk"]
"""Encoding of the updates that sites send."""


class FederationConfig(Frozen):
    """How hospitals train together; only `ganseg federate` reads it.

    A config holds a subclass, which adds the hyperparameters of every registered strategy (`federation_class`).
    The reasons for the defaults are in docs/decisions/0007-what-stays-home.md.
    """

    rounds: Count | None = None
    """Rounds in all, which the stages share by their epochs, each at least one; none: a round an epoch."""
    strategy: str = "fedavg"
    """How the server makes one update of the sites' updates."""
    local: tuple[str, ...] | None = None
    """Networks that never leave a site; none named: those of the recipe's system, its discriminator. [] shares all."""
    personalised: tuple[str, ...] = ()
    """Networks that are averaged; each site continues with the mean of the average and its own."""
    norm_layers: Literal["shared", "local"] = "shared"
    """Scale and shift of the normalisation layers; local keeps each site's (FedBN)."""
    site_batch_size: Count | None = None
    """Examples of a site's step; none: train.batch_size divided among the sites with which the run begins, which gives
    as many steps as training on pooled data. The run's config records the number, which then stays."""
    weighting: Literal["slices", "cases"] = "slices"
    """Weight of a site's update: its number of slices or of cases."""
    largest_share: Fraction = 0.5
    """A site counts as no more than this share of all, or than an equal one where that is more."""
    quorum: Annotated[Fraction, OPERATIONAL] = 0.5
    """Share of the sites whose updates a round needs; with fewer the round is repeated."""
    deadline_seconds: Annotated[Positive, OPERATIONAL] = 3600.0
    """A round closes then, without the sites that have not answered."""
    firewall: bool = True
    """Leave out updates that are far too large, as a whole or in one tensor. Off only to demonstrate its effect."""
    largest_norm_ratio: Annotated[float, Field(gt=1)] = 5.0
    """An update larger than this times the median of all that were accepted is left out."""
    encoding: Encoding = "fp32"
    """How updates travel; all but fp32 add what they lost to the next update (error feedback)."""
    kept_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of an update's values that topk sends."""
    fingerprint: bool = True
    """Before the first round every site sends counts of its patients in coarse bins, so that the server can warn of
    data that do not fit together; never with privacy."""
    privacy: PrivacyConfig = PrivacyConfig()
    """Limits what the models reveal about any one hospital; off by default."""

    def of_other_packages(self) -> set[str]:
        """Hyperparameters of strategies that packages add and that this config does not use."""
        used = {self.strategy, *published_strategies()}
        known = {name for other in used for name in strategies()[other].model_fields}
        return {name for other in strategies().values() for name in other.model_fields} - known

    def __reduce__(self) -> tuple[Any, ...]:
        # The subclass is made in each process, and no module holds it by its name.
        return _of_fields, (self.model_dump(),)


@cache
def federation_class() -> type[FederationConfig]:
    """`FederationConfig` with the names of the registered strategies and the hyperparameters of each.

    Raises ConfigError for a strategy whose hyperparameter has the name of another field.
    """
    fields: dict[str, Any] = {}
    for name, strategy in strategies().items():
        for field, info in strategy.model_fields.items():
            known = FederationConfig.model_fields.get(field) or fields.get(field, (None, info))[1]
            if repr(known) != repr(info):
                raise ConfigError(f"the strategy {name}: federation.{field} is another field already; rename it")
            fields[field] = (info.annotation, info)
    fields["strategy"] = (Literal[tuple(strategies())], FederationConfig.model_fields["strategy"])
    return create_model("FederationConfig", __base__=FederationConfig, **fields)


def _of_fields(fields: dict[str, Any]) -> FederationConfig:
    return federation_class().model_validate(fields)


class _OfRegisteredStrategies:
    """Validates a field as `federation_class`."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler.generate_schema(federation_class())


AnyFederationConfig = Annotated[FederationConfig, _OfRegisteredStrategies()]
