import pytest

from ganseg_dist.config import RunConfig
from ganseg_dist.engine.trainer import StageData
from ganseg_dist.planning.prepare import Prepared


@pytest.fixture
def stage_data(prepared: Prepared, debug_config: RunConfig) -> StageData:
    """The phantom's slices, as the debug recipe's stages use them."""
    return prepared.open(debug_config)["cohort"]
