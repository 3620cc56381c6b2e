"""Which fields of a config may change when a run is resumed: those that decide how it is carried out.

`fields.OPERATIONAL` marks them where they are declared; every other field counts as one that changes the result.
"""

from __future__ import annotations

from ganseg_dist.config.fields import OPERATIONAL, Frozen
from ganseg_dist.config.tree import RunConfig, override


def operational_fields(config: Frozen, prefix: str = "") -> dict[str, object]:
    """The defaults of the operational fields, by dotted name."""
    defaults: dict[str, object] = {}
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Frozen):
            defaults |= operational_fields(value, f"{prefix}{name}.")
        elif OPERATIONAL in info.metadata:
            defaults[f"{prefix}{name}"] = info.default
    return defaults


def result_config(config: RunConfig) -> RunConfig:
    """The config with operational fields at their defaults: configs that agree in it give the same weights and scores.

    Of `train.threads` up to the last bit (its docstring), and of `federation.quorum` and `federation.deadline_seconds`
    as long as the same sites answer in time.
    """
    return override(config, operational_fields(config))


def changed_fields(old: RunConfig, new: RunConfig) -> tuple[str, ...]:
    """Dotted names, sorted, of the fields that differ or that only one of the configs has."""
    before, after = old.flat(), new.flat()
    return tuple(
        name
        for name in sorted({*before, *after})
        if (name in before, before.get(name)) != (name in after, after.get(name))
    )
