from pathlib import Path

import pytest

from ganseg_dist.config import RunConfig, override
from ganseg_dist.runners.plan import Prepared
from tests.contract import members

SHORT = {
    "train.batch_size": 16,
    "train.ema": 0.8,
    "train.epochs": 3,
    "data.blank_rate": 0.2,
}
"""Six steps an epoch or so, every phase, and everything that a checkpoint may hold."""


@pytest.fixture(scope="session")
def config(debug_config: RunConfig) -> RunConfig:
    return override(debug_config, SHORT)


@pytest.fixture(scope="session")
def undisturbed(config: RunConfig, prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a local run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert members.ended(members.train, folder, config, prepared) == 0
    return folder
