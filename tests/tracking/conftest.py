import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ganseg_dist.config import override
from ganseg_dist.data.labels import BRATS
from ganseg_dist.inference.model_folder import Thresholds, write_model
from ganseg_dist.runs import Run, named_run
from ganseg_dist.systems import build_system, recipe
from tests.data.records import data_record

SMALL = {
    "data.modalities": ["t1", "flair"],
    "data.regions": ["wt"],
    "data.size": 32,
    "system.widths": [4, 8],
    "system.generator_widths": [4, 8],
    "system.discriminator_widths": [4, 8],
}


@pytest.fixture
def run(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A finished run's folder, with an untrained model."""
    monkeypatch.setenv("GANSEG_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = named_run("first")
    run.folder.mkdir(parents=True)
    shutil.copy(empty_store, tmp_path / "runs" / "mlflow.db")
    config = override(recipe("ganet_seg_debug"), SMALL)
    (run.folder / "config.json").write_text(config.to_json())
    run.write("split.json", {"train": ["p0"], "validation": ["p1"], "test": []})
    run.write("data.json", data_record(("p0", "ab"), ("p1", "cd")))
    run.write("run.json", {"version": "0.1.0", "commit": "0123456789ab+", "command": "ganseg train"})
    run.write("history.json", [{"epoch": 0}])
    scheme, weights = BRATS.of_regions(config.data.regions), untrained(config, tmp_path)
    write_model(run.model, config, weights, scheme, card="", facts={}, thresholds=Thresholds({"wt": 0.4}))
    return run


def untrained(config, folder: Path) -> Path:
    torch.manual_seed(0)
    networks = build_system(config).networks
    weights = {
        f"{name}.{key}": value for name, network in networks.items() for key, value in network.state_dict().items()
    }
    save_file(weights, folder / "weights.safetensors")
    return folder / "weights.safetensors"
