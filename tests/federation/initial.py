"""What an untrained federation sends."""

from ganseg_dist.config import RunConfig
from ganseg_dist.engine.trainer import prepare_state, seeded
from ganseg_dist.engine.world import World
from ganseg_dist.federation.shared_parameters import Arrays, SharedParameters
from ganseg_dist.systems import build_system


def initial_weights(config: RunConfig) -> Arrays:
    """The shared weights before the first round."""
    seeded(config)
    system = build_system(config)
    state = prepare_state(system, config, World())
    return SharedParameters.of(state, system, config, 0).take(state)
