"""Which runs have a generator of whole images."""

from __future__ import annotations

from ganseg_dist.config import RunConfig
from ganseg_dist.errors import RunError
from ganseg_dist.registry import systems_with


def check_generator(config: RunConfig) -> None:
    """Raises RunError, naming the field to set, when a run of this config has no generator of whole images."""
    system = config.system
    if system.generates_from is None:
        others = systems_with("generates_from")
        raise RunError(
            f"{system.title}: its generator {system.generator_makes}; train {' or '.join(others)} to have images"
        )
    if system.without_generator is not None:
        raise RunError(f"{system.title}: has no generator, as {system.without_generator}")
