import json
import math
import shutil
from functools import partial

import pytest
import torch

from ganseg_dist.config import override
from ganseg_dist.digests import read_sealed, sealed
from ganseg_dist.engine.checkpoint import FORMAT, PARTS, FolderCheckpoints, load_checkpoint, save_checkpoint
from ganseg_dist.engine.loader import StageBatches
from ganseg_dist.engine.state import Epoch
from ganseg_dist.engine.step import train_step
from ganseg_dist.engine.trainer import prepare_state, seeded
from ganseg_dist.engine.world import World
from ganseg_dist.errors import RunError
from ganseg_dist.systems import build_system
from tests.modes import odd_modes


@pytest.fixture
def config(debug_config):
    return override(debug_config, {"train.ema": 0.9})


def fresh_state(config, seed=0):
    seeded(override(config, {"seed": seed}))
    system = build_system(config)
    return system, prepare_state(system, config, World())


def step_all_phases(system, state, config, prepared, steps=2):
    """A few steps of every phase: moments, averages and balances all hold something."""
    data = prepared.open(config)["cohort"]
    for stage in system.stages:
        batches = StageBatches(config, stage, data.train, system.sample, World()).epoch(0)
        for batch, _ in zip(batches, range(steps), strict=False):
            for phase in stage.phases:
                train_step(system, phase, batch, config, state, World())
            state.position.step += 1


@pytest.fixture
def trained(config, prepared):
    system, state = fresh_state(config)
    step_all_phases(system, state, config, prepared)
    state.remember_best(("segmenter",))
    state.position.best_score, state.position.best_epoch = 0.123456789012345, 3
    state.position.history.append(Epoch("segment", 0, step=4, workers=1, losses={"x": 0.1}, scores={}))
    return system, state


@pytest.fixture
def saved(trained, tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_checkpoint(folder, trained[1])
    return folder


def all_tensors(state):
    """All tensors of a state, by name."""
    tensors = {f"best.{name}": value for name, value in state.best.items()}
    for name, network in state.networks.items():
        tensors |= {f"networks.{name}.{key}": value for key, value in network.state_dict().items()}
        tensors |= {f"ema.{name}.{key}": value for key, value in state.ema[name].state_dict().items()}
        for index, moments in state.optimizers[name].state_dict()["state"].items():
            tensors |= {f"optimizers.{name}.{index}.{key}": value for key, value in moments.items()}
    return {name: value.clone() for name, value in tensors.items()}


def test_load_checkpoint_restores_each_tensor_and_number(trained, saved, config):
    _, state = trained
    _, other = fresh_state(config, seed=1)
    load_checkpoint(saved, other)
    before, after = all_tensors(state), all_tensors(other)
    assert before.keys() == after.keys()
    assert any(name.startswith("optimizers.generator") for name in before)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert other.position == state.position
    assert other.balances["adversarial"].norms == state.balances["adversarial"].norms != {}
    for name, optimizer in state.optimizers.items():
        group, other_group = (o.state_dict()["param_groups"][0] for o in (optimizer, other.optimizers[name]))
        assert {k: list(v) if k == "betas" else v for k, v in group.items()} == {
            k: list(v) if k == "betas" else v for k, v in other_group.items()
        }


def test_training_from_loaded_checkpoint_is_bitwise_equal(trained, saved, config, prepared):
    system, state = trained
    other_system, other = fresh_state(config, seed=1)
    load_checkpoint(saved, other)
    for each in ((system, state), (other_system, other)):
        step_all_phases(*each, config, prepared)
    before, after = all_tensors(state), all_tensors(other)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def test_load_checkpoint_restores_torch_generators(saved, config):
    _, state = fresh_state(config)
    load_checkpoint(saved, state)
    expected = torch.rand(3)
    torch.manual_seed(99)
    load_checkpoint(saved, state)
    assert torch.equal(torch.rand(3), expected)


def test_save_checkpoint_writes_safetensors_and_json_only(saved):
    assert sorted(file.name for file in saved.iterdir()) == sorted(
        [*(f"{part}.safetensors" for part in PARTS), "state.json"]
    )


REMEDY = "rerun the same command, or delete {} to do without it"


def load_error(folder, config) -> str:
    _, state = fresh_state(config)
    with pytest.raises(RunError) as caught:
        load_checkpoint(folder, state)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("part", PARTS)
def test_load_checkpoint_rejects_flipped_byte(saved, config, part):
    file = saved / f"{part}.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert load_error(saved, config).startswith(f"{file}: is damaged (its digest differs); rerun the same command")


@pytest.mark.parametrize("part", PARTS)
def test_load_checkpoint_names_missing_file(saved, config, part):
    file = saved / f"{part}.safetensors"
    file.unlink()
    assert load_error(saved, config).startswith(f"{file}: is missing; rerun the same command")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", None])
def test_load_checkpoint_names_damaged_state_json(saved, config, content):
    file = saved / "state.json"
    file.unlink() if content is None else file.write_bytes(content)
    problem = "is missing" if content is None else "is damaged (it is no JSON)"
    assert load_error(saved, config) == f"{file}: {problem}; {REMEDY.format(saved)}"


@pytest.mark.parametrize("content", ["[]", "null", "1", '"format"', "{}", '{"format": 1}'])
def test_load_checkpoint_rejects_json_of_no_checkpoint(saved, config, content):
    file = saved / "state.json"
    file.write_text(content)
    assert load_error(saved, config) == f"{file}: is damaged (its digest differs); {REMEDY.format(saved)}"


@pytest.mark.parametrize("part", ["position", "optimizers", "averaged", "digests", "digest"])
@pytest.mark.parametrize("change", ["removed", "emptied"])
def test_load_checkpoint_rejects_state_with_wrong_part(saved, config, part, change):
    file = saved / "state.json"
    described = json.loads(file.read_text())
    described.pop(part)
    file.write_text(json.dumps(described if change == "removed" else {**described, part: {}}))
    assert load_error(saved, config) == f"{file}: is damaged (its digest differs); {REMEDY.format(saved)}"


def test_load_checkpoint_restores_nan_loss(trained, tmp_path, config):
    _, state = trained
    state.position.history[0].losses["x"] = float("nan")
    save_at(tmp_path, state)
    _, other = fresh_state(config)
    load_checkpoint(FolderCheckpoints(tmp_path).latest(), other)
    assert math.isnan(other.position.history[0].losses["x"])


def test_load_checkpoint_names_other_format(saved, config):
    file = saved / "state.json"
    file.write_text(json.dumps(sealed({**read_sealed(file), "format": 99})))
    assert load_error(saved, config) == f"{file}: checkpoint format 99; this version reads {FORMAT}"
    assert FolderCheckpoints(saved.rename(saved.with_name("step-1")).parent).latest().name == "step-1"


@pytest.mark.parametrize(
    "changes", [{"system.widths": [4, 8, 16]}, {"system.widths": [4, 8]}, {"data.modalities": ["t1", "flair"]}]
)
def test_load_checkpoint_rejects_other_model(saved, config, changes):
    assert "holds another model than the config describes" in load_error(saved, override(config, changes))


def test_load_checkpoint_rejects_balances_of_other_arm(saved, config):
    assert "holds another model" in load_error(saved, override(config, {"system.gan": False}))


def save_at(folder, state, **changes):
    for field, value in changes.items():
        setattr(state.position, field, value)
    FolderCheckpoints(folder).save({}, lambda beside: save_checkpoint(beside, state))


def test_folder_checkpoints_keep_two_newest_ordered_by_step_and_stage(trained, tmp_path):
    _, state = trained
    found: list[tuple[int, int]] = []
    kept: list[str] = []
    for changes in ({"step": 9}, {"step": 10, "stage": 0}, {"step": 10, "stage": 1}, {"step": 100}):
        save_at(tmp_path, state, **changes)
        newest = FolderCheckpoints(tmp_path).latest()
        position = json.loads((newest / "state.json").read_text())["position"]
        found.append((position["step"], position["stage"]))
        kept = [*kept, newest.name][-2:]
        assert sorted(path.name for path in tmp_path.iterdir()) == kept
    assert found == [(9, 0), (10, 0), (10, 1), (100, 1)]


def test_folder_checkpoints_keep_older_when_write_fails(trained, tmp_path):
    _, state = trained
    save_at(tmp_path, state, step=1)

    def run_out_of_space(beside):
        (beside / "networks.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match=r"no checkpoint can be written \(.*No space left.*\); free space"):
        FolderCheckpoints(tmp_path).save({}, run_out_of_space)
    assert FolderCheckpoints(tmp_path).latest().name == "step-000000001-stage-0"
    save_at(tmp_path, state, step=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000001-stage-0", "step-000000002-stage-0"]


def test_folder_checkpoints_of_nonwriting_rank_save_nothing(tmp_path):
    FolderCheckpoints(tmp_path / "none", writes=False).save({}, shutil.rmtree)
    assert not (tmp_path / "none").exists()
    assert FolderCheckpoints(tmp_path / "none").latest() is None


def test_folder_checkpoints_apply_umask(umask, config, tmp_path):
    _, state = fresh_state(config)
    FolderCheckpoints(tmp_path / "checkpoints").save({}, partial(save_checkpoint, state=state))
    assert odd_modes(tmp_path, umask) == {}


def flip_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


DAMAGES = {
    "flipped": flip_bit,
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "empty": lambda file: file.write_bytes(b""),
    "gone": lambda file: file.unlink(),
}
FILES = [*(f"{part}.safetensors" for part in PARTS), "state.json", "beside.json"]


def save_with_extra_file(folder, state):
    """A checkpoint with a file of the caller's own, as a federation's server keeps there."""

    def write(beside):
        (beside / "beside.json").write_text("[1, 2, 3]")
        save_checkpoint(beside, state)

    FolderCheckpoints(folder).save({}, write)


@pytest.fixture(scope="module")
def two_checkpoints(debug_config, tmp_path_factory):
    """Checkpoints of steps 1 and 2; tests copy the folder."""
    folder = tmp_path_factory.mktemp("two")
    _, state = fresh_state(override(debug_config, {"system.gan": False}))
    for state.position.step in (1, 2):
        save_with_extra_file(folder, state)
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_folder_checkpoints_fall_back_from_damaged_newest_with_warning(two_checkpoints, tmp_path, name, damage):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two_checkpoints, folder)
    older, newest = FolderCheckpoints(folder).all()
    DAMAGES[damage](newest / name)
    warnings: list[str] = []
    for _ in range(2):  # the second time it is out of the way
        assert FolderCheckpoints(folder).latest(warnings.append) == older
        assert FolderCheckpoints(folder).newest() == older
    (warning,) = warnings
    assert warning.startswith(f"{newest / name}: is {'missing' if damage == 'gone' else 'damaged ('}")
    assert warning.endswith(f"; resuming from the checkpoint before it, {older.name}")


def test_folder_checkpoints_replace_damaged_newest_and_keep_two(two_checkpoints, tmp_path, debug_config):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two_checkpoints, folder)
    checkpoints = FolderCheckpoints(folder)
    older, newest = checkpoints.all()
    flip_bit(newest / "rng.safetensors")
    assert checkpoints.latest() == older
    _, state = fresh_state(override(debug_config, {"system.gan": False}))
    state.position.step = 2
    save_with_extra_file(folder, state)
    assert checkpoints.latest() == newest
    assert sorted(folder.iterdir()) == [older, newest], "the damaged one is still there"
    state.position.step = 3
    save_with_extra_file(folder, state)
    assert len(checkpoints.all()) == 2
    assert older not in checkpoints.all()


def test_folder_checkpoints_raise_when_none_is_intact(two_checkpoints, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two_checkpoints, folder)
    older, newest = FolderCheckpoints(folder).all()
    flip_bit(older / "networks.safetensors")
    flip_bit(newest / "best.safetensors")
    with pytest.raises(RunError) as caught:
        FolderCheckpoints(folder).latest()
    assert str(caught.value) == (
        f"{newest / 'best.safetensors'}: is damaged (its digest differs), and no checkpoint before it is whole; "
        f"delete {folder} to start over"
    )
    assert sorted(folder.iterdir()) == [older, newest]


def test_folder_checkpoints_of_nonwriting_rank_move_nothing(two_checkpoints, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two_checkpoints, folder)
    older, newest = FolderCheckpoints(folder).all()
    flip_bit(newest / "state.json")
    assert FolderCheckpoints(folder, writes=False).latest() == older
    assert FolderCheckpoints(folder).newest() == newest


EPOCH = Epoch("toy", 0, step=3, workers=1, losses={}, scores={})


def test_folder_checkpoints_history_is_that_of_newest(two_checkpoints, tmp_path, debug_config):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two_checkpoints, folder)
    _, state = fresh_state(override(debug_config, {"system.gan": False}))
    state.position.step, state.position.history = 3, [EPOCH]
    save_with_extra_file(folder, state)
    assert FolderCheckpoints(folder).history() == [EPOCH]
    flip_bit(FolderCheckpoints(folder).newest() / "state.json")
    assert FolderCheckpoints(folder).history() == []
    assert FolderCheckpoints(tmp_path / "none").history() == []
