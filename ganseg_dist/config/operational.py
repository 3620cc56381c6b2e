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


def fixed_change(old: RunConfig, new: RunConfig) -> str | None:
    """The first field that changes the result and differs, with both values, and the operational ones that differ too.

    None where a run of the old config may resume by the new one.
    """
    changed, operational = changed_fields(old, new), operational_fields(old) | operational_fields(new)
    fixed = [name for name in changed if name not in operational]
    if not fixed:
        return None
    free = [f"{change}, which may change" for change in operational_changes(old, new)]
    return "; ".join([f"{_change(old, new, fixed[0])}, which changes the result", *free])


def operational_changes(old: RunConfig, new: RunConfig) -> tuple[str, ...]:
    """`train.threads was 1, is 2` for each operational field that differs."""
    operational = operational_fields(old) | operational_fields(new)
    return tuple(_change(old, new, name) for name in changed_fields(old, new) if name in operational)


def changed_fields(old: RunConfig, new: RunConfig) -> tuple[str, ...]:
    """Dotted names, sorted, of the fields that differ or that only one of the configs has."""
    before, after = old.flat(), new.flat()
    return tuple(
        name
        for name in sorted({*before, *after})
        if (name in before, before.get(name)) != (name in after, after.get(name))
    )


def _change(old: RunConfig, new: RunConfig, name: str) -> str:
    return f"{name} was {old.flat().get(name)}, is {new.flat().get(name)}"
