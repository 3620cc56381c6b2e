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


def fresh(config, seed=0):
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
    system, state = fresh(config)
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


def everything(state):
    """All tensors of a state, by name."""
    tensors = {f"best.{name}": value for name, value in state.best.items()}
    for name, network in state.networks.items():
        tensors |= {f"networks.{name}.{key}": value for key, value in network.state_dict().items()}
        tensors |= {f"ema.{name}.{key}": value for key, value in state.ema[name].state_dict().items()}
        for index, moments in state.optimizers[name].state_dict()["state"].items():
            tensors |= {f"optimizers.{name}.{index}.{key}": value for key, value in moments.items()}
    return {name: value.clone() for name, value in tensors.items()}


def test_a_round_trip_brings_back_every_tensor_and_number(trained, saved, config):
    _, state = trained
    _, other = fresh(config, seed=1)
    load_checkpoint(saved, other)
    before, after = everything(state), everything(other)
    assert before.keys() == after.keys()
    assert any(name.startswith("optimizers.generator") for name in before)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert other.position == state.position
    assert other.balances["adversarial"].norms == state.balances["adversarial"].norms != {}
    for name, optimizer in state.optimizers.items():
        ours, theirs = (o.state_dict()["param_groups"][0] for o in (optimizer, other.optimizers[name]))
        assert {k: list(v) if k == "betas" else v for k, v in ours.items()} == {
            k: list(v) if k == "betas" else v for k, v in theirs.items()
        }


def test_training_goes_on_from_it_to_the_bit(trained, saved, config, prepared):
    system, state = trained
    other_system, other = fresh(config, seed=1)
    load_checkpoint(saved, other)
    for each in ((system, state), (other_system, other)):
        step_all_phases(*each, config, prepared)
    before, after = everything(state), everything(other)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def test_the_generators_of_torch_come_back(saved, config):
    _, state = fresh(config)
    load_checkpoint(saved, state)
    drawn = torch.rand(3)
    torch.manual_seed(99)
    load_checkpoint(saved, state)
    assert torch.equal(torch.rand(3), drawn)


def test_nothing_in_it_is_pickled(saved):
    assert sorted(file.name for file in saved.iterdir()) == sorted(
        [*(f"{part}.safetensors" for part in PARTS), "state.json"]
    )


REMEDY = "rerun the same command, or delete {} to do without it"


def refusal(folder, config) -> str:
    _, state = fresh(config)
    with pytest.raises(RunError) as caught:
        load_checkpoint(folder, state)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("part", PARTS)
def test_a_flipped_byte_is_noticed(saved, config, part):
    file = saved / f"{part}.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert refusal(saved, config).startswith(f"{file}: is damaged (its digest differs); rerun the same command")


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_file_is_named(saved, config, part):
    file = saved / f"{part}.safetensors"
    file.unlink()
    assert refusal(saved, config).startswith(f"{file}: is missing; rerun the same command")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", None])
def test_a_damaged_description_is_named(saved, config, content):
    file = saved / "state.json"
    file.unlink() if content is None else file.write_bytes(content)
    problem = "is missing" if content is None else "is damaged (it is no JSON)"
    assert refusal(saved, config) == f"{file}: {problem}; {REMEDY.format(saved)}"


@pytest.mark.parametrize("content", ["[]", "null", "1", '"format"', "{}", '{"format": 1}'])
def test_json_that_describes_no_checkpoint_is_named(saved, config, content):
    file = saved / "state.json"
    file.write_text(content)
    assert refusal(saved, config) == f"{file}: is damaged (its digest differs); {REMEDY.format(saved)}"


@pytest.mark.parametrize("part", ["position", "optimizers", "averaged", "digests", "digest"])
@pytest.mark.parametrize("change", ["removed", "emptied"])
def test_a_description_with_a_wrong_part_is_named(saved, config, part, change):
    file = saved / "state.json"
    described = json.loads(file.read_text())
    described.pop(part)
    file.write_text(json.dumps(described if change == "removed" else {**described, part: {}}))
    assert refusal(saved, config) == f"{file}: is damaged (its digest differs); {REMEDY.format(saved)}"


@pytest.mark.parametrize("change", [{"step": 5}, {"epoch": "first"}, {"colour": 1}])
def test_a_description_with_a_wrong_position_is_named(saved, config, change):
    file = saved / "state.json"
    described = json.loads(file.read_text())
    described["position"] |= change
    file.write_text(json.dumps(described))
    assert refusal(saved, config) == f"{file}: is damaged (its digest differs); {REMEDY.format(saved)}"


def test_a_loss_that_was_not_finite_comes_back(trained, tmp_path, config):
    _, state = trained
    state.position.history[0].losses["x"] = float("nan")
    keep(tmp_path, state)
    _, other = fresh(config)
    load_checkpoint(FolderCheckpoints(tmp_path).latest(), other)
    assert math.isnan(other.position.history[0].losses["x"])


def test_another_format_is_named(saved, config):
    file = saved / "state.json"
    file.write_text(json.dumps(sealed({**read_sealed(file), "format": 99})))
    assert refusal(saved, config) == f"{file}: checkpoint format 99; this version reads {FORMAT}"
    assert FolderCheckpoints(saved.rename(saved.with_name("step-1")).parent).latest().name == "step-1"


@pytest.mark.parametrize(
    "changes", [{"system.widths": [4, 8, 16]}, {"system.widths": [4, 8]}, {"data.modalities": ["t1", "flair"]}]
)
def test_another_model_is_named(saved, config, changes):
    assert "holds another model than the config describes" in refusal(saved, override(config, changes))


def test_balances_of_another_arm_are_named(saved, config):
    assert "holds another model" in refusal(saved, override(config, {"system.gan": False}))


def keep(folder, state, **changes):
    for field, value in changes.items():
        setattr(state.position, field, value)
    FolderCheckpoints(folder).save({}, lambda beside: save_checkpoint(beside, state))


def test_a_folder_keeps_the_two_newest_and_a_stages_end_is_newer_than_its_last_epoch(trained, tmp_path):
    _, state = trained
    found: list[tuple[int, int]] = []
    kept: list[str] = []
    for changes in ({"step": 9}, {"step": 10, "stage": 0}, {"step": 10, "stage": 1}, {"step": 100}):
        keep(tmp_path, state, **changes)
        newest = FolderCheckpoints(tmp_path).latest()
        position = json.loads((newest / "state.json").read_text())["position"]
        found.append((position["step"], position["stage"]))
        kept = [*kept, newest.name][-2:]
        assert sorted(path.name for path in tmp_path.iterdir()) == kept
    assert found == [(9, 0), (10, 0), (10, 1), (100, 1)]


def test_a_write_that_fails_leaves_the_older_one(trained, tmp_path):
    _, state = trained
    keep(tmp_path, state, step=1)

    def full(beside):
        (beside / "networks.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match=r"no checkpoint can be written \(.*No space left.*\); free space"):
        FolderCheckpoints(tmp_path).save({}, full)
    assert FolderCheckpoints(tmp_path).latest().name == "step-000000001-stage-0"
    keep(tmp_path, state, step=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000001-stage-0", "step-000000002-stage-0"]


def test_a_rank_that_does_not_write_touches_nothing(tmp_path):
    FolderCheckpoints(tmp_path / "none", writes=False).save({}, shutil.rmtree)
    assert not (tmp_path / "none").exists()
    assert FolderCheckpoints(tmp_path / "none").latest() is None


def test_checkpoints_have_the_modes_that_the_umask_gives(umask, config, tmp_path):
    _, state = fresh(config)
    FolderCheckpoints(tmp_path / "checkpoints").save({}, partial(save_checkpoint, state=state))
    assert odd_modes(tmp_path, umask) == {}


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


DAMAGES = {
    "flipped": flip,
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "empty": lambda file: file.write_bytes(b""),
    "gone": lambda file: file.unlink(),
}
FILES = [*(f"{part}.safetensors" for part in PARTS), "state.json", "beside.json"]


def save_with_more(folder, state):
    """A checkpoint with a file of the caller's own, as a federation's server keeps there."""

    def write(beside):
        (beside / "beside.json").write_text("[1, 2, 3]")
        save_checkpoint(beside, state)

    FolderCheckpoints(folder).save({}, write)


@pytest.fixture(scope="module")
def two_checkpoints(debug_config, tmp_path_factory):
    """Of steps 1 and 2; copy it."""
    folder = tmp_path_factory.mktemp("two")
    _, state = fresh(override(debug_config, {"system.gan": False}))
    for state.position.step in (1, 2):
        save_with_more(folder, state)
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_newest_is_named_and_passed_over(two_checkpoints, tmp_path, name, damage):
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
    assert warning.endswith(f"; going on from the checkpoint before it, {older.name}")


def test_after_a_damaged_newest_one_of_its_name_is_written_and_two_are_kept(two_checkpoints, tmp_path, debug_config):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two_checkpoints, folder)
    checkpoints = FolderCheckpoints(folder)
    older, newest = checkpoints.all()
    flip(newest / "rng.safetensors")
    assert checkpoints.latest() == older
    _, state = fresh(override(debug_config, {"system.gan": False}))
    state.position.step = 2
    save_with_more(folder, state)
    assert checkpoints.latest() == newest
    assert sorted(folder.iterdir()) == [older, newest], "the damaged one is still there"
    state.position.step = 3
    save_with_more(folder, state)
    assert len(checkpoints.all()) == 2
    assert older not in checkpoints.all()


def test_without_a_whole_one_left_it_is_an_error_and_nothing_is_deleted(two_checkpoints, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two_checkpoints, folder)
    older, newest = FolderCheckpoints(folder).all()
    flip(older / "networks.safetensors")
    flip(newest / "best.safetensors")
    with pytest.raises(RunError) as caught:
        FolderCheckpoints(folder).latest()
    assert str(caught.value) == (
        f"{newest / 'best.safetensors'}: is damaged (its digest differs), and no checkpoint before it is whole; "
        f"delete {folder} to start over"
    )
    assert sorted(folder.iterdir()) == [older, newest]


def test_who_does_not_write_moves_nothing(two_checkpoints, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two_checkpoints, folder)
    older, newest = FolderCheckpoints(folder).all()
    flip(newest / "state.json")
    assert FolderCheckpoints(folder, writes=False).latest() == older
    assert FolderCheckpoints(folder).newest() == newest


EPOCH = Epoch("toy", 0, step=3, workers=1, losses={}, scores={})


def test_the_history_is_of_the_newest_whose_description_is_whole(two_checkpoints, tmp_path, debug_config):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two_checkpoints, folder)
    _, state = fresh(override(debug_config, {"system.gan": False}))
    state.position.step, state.position.history = 3, [EPOCH]
    save_with_more(folder, state)
    assert FolderCheckpoints(folder).history() == [EPOCH]
    flip(FolderCheckpoints(folder).newest() / "state.json")
    assert FolderCheckpoints(folder).history() == []
    assert FolderCheckpoints(tmp_path / "none").history() == []
