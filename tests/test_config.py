import json
import subprocess
import sys

import pytest

from ganseg_dist.config import RunConfig, override, parse_assignments
from ganseg_dist.errors import ConfigError
from ganseg_dist.systems import recipe, recipes


def problem(changes) -> str:
    with pytest.raises(ConfigError) as caught:
        override(recipe("ganet_seg_debug"), changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_run_config_round_trips_through_json():
    config = override(recipe("ganet_seg"), {"data.modalities": ["t1", "flair"], "train.ema": 0.99})
    assert RunConfig.from_json(config.to_json()) == config


def test_override_replaces_named_fields_only():
    base = recipe("ganet_seg_debug")
    changed = override(base, {"train.epochs": 7, "data.augment.flip": 0.25})
    assert (changed.train.epochs, changed.data.augment.flip) == (7, 0.25)
    assert override(changed, {"train.epochs": base.train.epochs, "data.augment.flip": 0.5}) == base
    assert base.train.epochs == 3, "the base is untouched"


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("train.epochs", "7", 7),
        ("train.learning_rate", "1e-3", 1e-3),
        ("train.ema", "null", None),
        ("system.gan", "false", False),
        ("system.reading", "paper", "paper"),
        ("data.modalities", "t1,flair", ("t1", "flair")),
        ("data.modalities", '["t1"]', ("t1",)),
        ("system.widths", "[8,16]", (8, 16)),
        ("system.widths", "8,16", (8, 16)),
        ("train.betas", "0, .5", (0.0, 0.5)),
        ("train.weight_decay", "1", 1.0),
    ],
)
def test_override_parses_text_by_field_type(field, text, value):
    config = override(recipe("ganet_seg_debug"), {field: text})
    for name in field.split("."):
        config = getattr(config, name)
    assert config == value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.epoch": 3}, "train.epoch: no such field; did you mean train.epochs?"),
        ({"trian.epochs": 3}, "trian.epochs: no such field; did you mean train.epochs?"),
        ({"train.epochs.first": 3}, "train.epochs.first: no such field; did you mean train.epochs?"),
        ({"data": {"sise": 64}}, "data.sise: no such field; did you mean data.size?"),
        ({"system": {"name": "ganet_seg", "gann": 1}}, "system.gann: no such field; did you mean system.gan?"),
        ({"train.epochs": 0}, "train.epochs: Input should be greater than or equal to 1 (got 0)"),
        ({"train.epochs": "many"}, "train.epochs: Input should be a valid integer"),
        ({"train.learning_rate": -1.0}, "train.learning_rate: Input should be greater than 0 (got -1.0)"),
        ({"train.learning_rate": "NaN"}, "train.learning_rate: Input should be a finite number"),
        ({"data.size": 33}, "data.size: Input should be a multiple of 8 (got 33)"),
        ({"data.enhance": "loud"}, "data.enhance: Input should be 'off', 'corrected' or 'paper' (got 'loud')"),
        ({"system.widths": [8]}, "system.widths: Tuple should have at least 2 items"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0 (got -1)"),
        ({"train": 5}, "train: "),
        ({"data.validation_fraction": 0.5, "data.test_fraction": 0.5}, "data: validation_fraction + test_fraction"),
        ({"train.betas": [0.9, 1]}, "train.betas.1: Input should be less than 1 (got 1)"),
        ({"train.epochs": "true"}, "train.epochs: Input should be a valid integer (got True)"),
        ({"seed": True}, "seed: Input should be a valid integer (got True)"),
        ({"data.size": True}, "data.size: Input should be a valid integer (got True)"),
        ({"system.widths": [True, 8]}, "system.widths.0: Input should be a valid integer (got True)"),
        (
            {"data.size": 40, "system.widths": [4] * 5},
            "data.size: 40 is no multiple of 16, which the 5 widths of system.widths need",
        ),
        (
            {"data.size": 40, "system.generator_widths": [4] * 5},
            "data.size: 40 is no multiple of 16, which the 5 widths of system.generator_widths need",
        ),
        (
            {"data.size": 32, "system.discriminator_widths": [4] * 5},
            "data.size: 32 is below 64, which the 5 widths of system.discriminator_widths need",
        ),
        ({"system.holes.smallest_radius": 0.4}, "system.holes: smallest_radius must not exceed largest_radius"),
    ],
)
def test_override_error_names_field_value_and_remedy(changes, message):
    assert problem(changes).startswith(message)


def test_override_accepts_deepest_networks_that_fit():
    deepest = {"data.size": 32, "system.widths": [4] * 6, "system.discriminator_widths": [4] * 4}
    assert override(recipe("ganet_seg_debug"), deepest).data.size == 32


def test_parse_assignments_splits_at_first_equals_sign():
    assert parse_assignments(["train.epochs=5", "a.b = x=y"]) == {"train.epochs": "5", "a.b": "x=y"}
    for wrong in ("train.epochs", "=5"):
        with pytest.raises(ConfigError, match=f"--set {wrong}: expected FIELD=VALUE"):
            parse_assignments([wrong])


def test_run_config_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        recipe("ganet_seg").train.epochs = 3


def test_run_config_load_rejects_damaged_files(tmp_path):
    file = tmp_path / "config.json"
    with pytest.raises(ConfigError, match=r"config.json: cannot be read \(No such file"):
        RunConfig.load(file)
    tree = json.loads(recipe("ganet_seg").to_json())
    file.write_text(json.dumps({**tree, "colour": "blue"}))
    with pytest.raises(ConfigError, match=rf"^{file}: colour: no such field; take it out"):
        RunConfig.load(file)
    file.write_text("{")
    with pytest.raises(ConfigError, match=rf"^{file}: config: Invalid JSON"):
        RunConfig.load(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=rf"^{file}: "):
        RunConfig.load(file)


def test_recipe_suggests_close_name():
    assert all(make().recipe == name for name, make in recipes().items())
    with pytest.raises(ConfigError, match=r"ganet_segg: no such recipe; did you mean ganet_seg"):
        recipe("ganet_segg")
    with pytest.raises(ConfigError, match=r"nnunet: no such recipe; known recipes: dl_gan_cnn, "):
        recipe("nnunet")


def test_ganet_seg_recipe_has_values_of_paper():
    config = recipe("ganet_seg")
    assert config.system.widths == (64, 128, 256, 320)
    assert (config.train.batch_size, config.train.epochs, config.system.supervised_epochs) == (80, 30, None)
    assert (config.train.learning_rate, config.train.learning_rate_power) == (6e-5, 0.75)
    assert (config.train.betas, config.train.weight_decay) == ((0.9, 0.999), 1e-4)
    assert (config.system.discriminator_every, config.system.healthy_patience) == (5, 5)


def test_recipe_loads_without_torch_and_numpy():
    made = "import sys; from ganseg_dist.systems import recipe; recipe('ganet_seg')"
    code = f"{made}; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_override_parses_none_by_field_type():
    assert override(recipe("ganet_seg"), {"train.clip_norm": "none"}).train.clip_norm is None
    assert override(recipe("gan_detector"), {"system.augmentation": "none"}).system.augmentation == "none"


def test_override_error_shows_list_syntax():
    with pytest.raises(ConfigError, match=r'^data.modalities: is a list; write it as \["a", "b"\] \(got .t9.\)$'):
        override(recipe("ganet_seg"), {"data.modalities": "t9"})
