from pathlib import Path

import pytest

from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.cohort import Cohort
from ganseg_dist.planning.prepare import Prepared
from ganseg_dist.systems import recipe
from tests.contract import members
from tests.tiny import prepare, resolved

SHORT = {
    "train.batch_size": 16,
    "train.ema": 0.8,
    "train.epochs": 3,
    "data.blank_rate": 0.2,
}
"""Six steps an epoch or so, every phase, and everything that a checkpoint may hold."""

OTHER_SYSTEMS = {
    "gan_osmosis": {"system.joint_epochs": 2, "system.diversity_weight": 0.5},
    "dl_gan_cnn": {"system.features_epochs": 2},
    "gan_detector": {"system.synthesis_epochs": 2, "system.generator": "wgan_gp"},
}
"""GANet-Seg alone is tested where a property depends on the engine only."""


@pytest.fixture(scope="session")
def config(debug_config: RunConfig) -> RunConfig:
    return override(debug_config, SHORT)


@pytest.fixture(scope="session")
def undisturbed(config: RunConfig, prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted local run."""
    return trained(tmp_path_factory.mktemp("undisturbed"), config, prepared)


@pytest.fixture(scope="session", params=OTHER_SYSTEMS)
def other(
    request: pytest.FixtureRequest, cohort: Cohort, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunConfig, Prepared, Path]:
    """Each other system: its config, its slices, and the folder of a local run without interruption."""
    name = f"{request.param}_debug"
    config = resolved(recipe(name), cohort, SHORT | {"train.epochs": 2} | OTHER_SYSTEMS[request.param])
    prepared = prepare(cohort, config, store)
    return config, prepared, trained(tmp_path_factory.mktemp(name), config, prepared)


def trained(folder: Path, config: RunConfig, prepared: Prepared) -> Path:
    """A local run in this folder."""
    assert members.exit_code_of(members.train, folder, config, prepared) == 0
    return folder
