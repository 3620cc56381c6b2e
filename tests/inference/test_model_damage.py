"""A model folder with damaged files or non-finite weights is rejected."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from ganseg_dist.atomic import write_json
from ganseg_dist.digests import read_sealed, sealed
from ganseg_dist.errors import RunError
from ganseg_dist.files import sha256
from ganseg_dist.inference.model_folder import (
    Thresholds,
    load_model,
    read_thresholds,
    weights_digest,
    write_model,
    write_thresholds,
)
from tests.inference.untrained import model_folder

TENSOR = "segmenter.decoder.0.0.weight"


@pytest.fixture
def folder(tmp_path):
    thresholds = Thresholds({"wt": 0.4}, realism=0.25, calibrated_on=3)
    return model_folder(tmp_path / "model", ("t1",), ("wt",), thresholds=thresholds)


def error_of(function, *arguments) -> str:
    with pytest.raises(RunError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def weights_with(weights, value):
    tensors = load_file(weights)
    tensors[TENSOR].view(-1)[7] = value
    return tensors


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_load_model_names_non_finite_weight(folder, value):
    file = folder / "networks.safetensors"
    save_file(weights_with(file, value), file)
    described = read_sealed(folder / "model.json") | {"weights": sha256(file)}
    write_json(folder / "model.json", sealed(described))
    assert error_of(load_model, folder) == (
        f"{file}: {TENSOR} holds NaN or infinity; train the model again with a lower train.learning_rate"
    )


def test_write_model_names_non_finite_weight_and_keeps_earlier_model(folder):
    weights = folder.with_suffix(".untrained")
    save_file(weights_with(weights, math.nan), weights)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    model = load_model(folder)
    with pytest.raises(RunError) as caught:
        write_model(folder, model.config, weights, model.scheme, card="", facts={}, thresholds=Thresholds())
    assert str(caught.value) == (
        f"{weights}: {TENSOR} holds NaN or infinity; training diverged: lower train.learning_rate and train again"
    )
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["networks.safetensors", "model.json", "config.json", "thresholds.json"])
@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "gone"])
def test_load_model_names_damaged_file(folder, name, damage):
    file = folder / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 2
    file.unlink()
    if damage != "gone":
        file.write_bytes({"bit": bytes(content), "cut": content[:-20], "empty": b""}[damage])
    assert error_of(load_model, folder).startswith(f"{file}: is {'missing' if damage == 'gone' else 'damaged'}")


def test_load_model_detects_changed_digit_in_json(folder):
    for name, was, becomes in (("thresholds.json", "0.4", "0.6"), ("config.json", '"spacing_mm": ', '"spacing_mm": 1')):
        file = folder / name
        whole = file.read_text()
        assert was in whole
        file.write_text(whole.replace(was, becomes, 1))
        assert error_of(load_model, folder).startswith(f"{file}: is damaged (its digest differs)")
        file.write_text(whole)
    load_model(folder)


@pytest.mark.parametrize(
    "changes",
    [{"regions": {"wt": math.nan}}, {"regions": {"wt": 1.5}}, {"regions": {"wt": "half"}}, {"realism": math.inf},
     {"realism": "low"}, {"realism": 10**400}, {"realism": [0.5]}, {"calibrated_on": -1},
     {"regions": None}, {"colour": 1}],
)  # fmt: skip
def test_read_thresholds_rejects_values_that_are_no_probabilities(folder, changes):
    file = folder / "thresholds.json"
    file.write_text(json.dumps(sealed(read_sealed(file) | changes)))
    assert error_of(read_thresholds, folder).startswith(f"{file}: holds no thresholds in [0, 1]; ")


def test_write_thresholds_round_trips(folder):
    assert read_thresholds(folder) == Thresholds({"wt": 0.4}, realism=0.25, calibrated_on=3)
    write_thresholds(folder, Thresholds({"wt": 0.75}))
    assert read_thresholds(folder) == load_model(folder).thresholds == Thresholds({"wt": 0.75})


def test_weights_digest_is_sha256_of_weights_file(folder):
    assert weights_digest(folder) == sha256(folder / "networks.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in load_file(folder / "networks.safetensors").values())


@pytest.mark.parametrize("field", ["channels", "absent"])
@pytest.mark.parametrize("value", [5, True, "t1", [None], [["t1"]], {"t1": 0}])
def test_load_model_rejects_names_of_other_type(folder, field, value):
    """The digest of model.json does not protect against its author."""
    write_json(folder / "model.json", sealed(read_sealed(folder / "model.json") | {field: value}))
    assert error_of(load_model, folder).startswith(f"{folder / 'model.json'}: {field}: is no list of names; ")


def test_load_model_names_non_finite_float8_weight(folder):
    file = folder / "networks.safetensors"
    tensors = weights_with(file, math.nan)
    tensors[TENSOR] = tensors[TENSOR].to(torch.float8_e4m3fn)
    save_file(tensors, file)
    write_json(folder / "model.json", sealed(read_sealed(folder / "model.json") | {"weights": sha256(file)}))
    assert f"{file}: {TENSOR} holds NaN or infinity" in error_of(load_model, folder)
