"""A thousand random changes of each kind of message: what is not the message that was agreed on is one error."""

import random
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict

from ganseg_dist.config import FederationConfig, RunConfig, override
from ganseg_dist.data.labels import BRATS
from ganseg_dist.engine.trainer import prepare_state, seeded
from ganseg_dist.engine.world import World
from ganseg_dist.errors import FederationError, GansegError
from ganseg_dist.federation.encoding import decode, encode
from ganseg_dist.federation.fingerprint.differences import differences
from ganseg_dist.federation.fingerprint.histograms import Fingerprint, axes, fingerprint_layout
from ganseg_dist.federation.flower import arrays_of, pack_instruction, pack_reply, unpack_instruction, unpack_reply
from ganseg_dist.federation.protocol import LARGEST_VALUE, RoundInstruction, Scores
from ganseg_dist.federation.replies import evaluate_layout, finish_layout, loss_names, train_layout
from ganseg_dist.federation.shared_parameters import SharedParameters
from ganseg_dist.federation.site_info import SiteInfo
from ganseg_dist.systems import build_system, recipe
from ganseg_dist.systems.base import System
from server.agreement import agree, agreed_scheme, compatible
from server.sites import _site_info
from tests.federation.hostile.mutations import mutated

SECONDS = 1.0
"""Of the processor for any of them."""
BYTES = 2**23
"""Of memory for any of them."""

CONFIG = override(
    recipe("ganet_seg_debug"),
    {"system.gan": False, "data.modalities": ("flair", "t1"), "data.regions": ("wt", "tc"), "data.size": 16,
     "system.widths": (4, 8)},
)  # fmt: skip
STATED = 50
SITE = SiteInfo("north", 10, 12, 100, ("flair", "t1"), ("wt", "tc", "et"), ("no lesion", "lesion"), BRATS)


@pytest.fixture(params=[200, pytest.param(1000, marks=pytest.mark.slow)])
def mutations(request) -> int:
    """How many."""
    count: int = request.param
    return count


@pytest.fixture(scope="module")
def system() -> System:
    seeded(CONFIG)
    return build_system(CONFIG)


@pytest.fixture(scope="module")
def shared(system: System) -> SharedParameters:
    return SharedParameters.of(prepare_state(system, CONFIG, World()), system, CONFIG, 0)


@pytest.fixture(scope="module")
def weights(system: System, shared: SharedParameters) -> dict[str, np.ndarray]:
    return dict(shared.take(prepare_state(system, CONFIG, World())))


def attack(content: RecordDict, read: Callable[[RecordDict], Any], check: Callable[[Any], None], count: int) -> None:
    """Read the message, which passes, and `count` mutations of it: each passes the check, or is one error."""
    check(read(content))
    rng = random.Random(0)
    rejected = 0
    for number in range(count):
        mutation = mutated(content, rng)
        started = time.process_time()
        tracemalloc.start()
        try:
            check(read(mutation))
        except GansegError as error:
            rejected += 1
            text = str(error)
            assert text.isprintable(), number
            assert "all/good" not in text, number
            assert len(text) < 400, number
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < BYTES, number
        assert time.process_time() - started < SECONDS, number
    assert rejected > count / 2


def check_numbers(scores: Scores, names: set[str], most: float) -> None:
    assert scores.examples is None or scores.examples in range(int(most) + 1)
    assert scores.values.keys() <= names
    assert all(abs(value) <= LARGEST_VALUE for value in scores.values.values())


def check_site(info: SiteInfo) -> None:
    assert SiteInfo.read(info.counts(), info.description()) == info
    assert 0 <= info.patients <= info.cases <= 10**7
    assert all(word.isprintable() for word in (info.name, *info.modalities, *info.regions, *info.classes))
    for count in (1, 2, 3):
        for regions in combinations([name for name in ("wt", "tc", "et") if name in info.regions], count):
            info.labels.of_regions(regions)
    for name in ("ganet_seg_debug", "dl_gan_cnn"):
        with suppress(GansegError):  # nothing in common, in one line
            kept, _ = compatible(recipe(name), [SITE, info])
            agreed_scheme(agree(recipe(name), kept), kept)


def test_preflight_replies_survive_mutations(mutations):
    attack(pack_reply({"description": SITE.description()}, SITE.counts()), _site_info, check_site, mutations)


def test_fingerprint_replies_survive_mutations(mutations):
    expected = axes(CONFIG.data)
    points = {name: np.zeros(len(axis) + 1, np.int64) for name, axis in expected.items()}
    for array in points.values():
        array[[0, 1, -1]] = 300, 600, 100
    other = Fingerprint.from_arrays(points, expected)

    def read(content: RecordDict) -> Fingerprint:
        arrays, _ = unpack_reply(content, fingerprint_layout(expected))
        return Fingerprint.from_arrays(arrays, expected)

    def check(fingerprint: Fingerprint) -> None:
        assert {name: (array.dtype, array.shape) for name, array in fingerprint.points.items()} == {
            name: (array.dtype, array.shape) for name, array in points.items()
        }
        assert all(np.isfinite(each.amount) for each in differences({"north": fingerprint, "south": other}))

    attack(pack_reply(points, {}), read, check, mutations)


@pytest.mark.parametrize("encoding", ["fp32", "fp16", "int8", "topk"])
def test_train_replies_survive_mutations(encoding, system, weights, mutations):
    federation: FederationConfig = override(CONFIG, {"federation.encoding": encoding}).federation
    stage, shapes = system.stages[0], {name: array.shape for name, array in weights.items()}
    names = loss_names(stage)

    def read(content: RecordDict) -> tuple[dict[str, np.ndarray], Scores]:
        arrays, numbers = unpack_reply(content, train_layout(stage, shapes, federation, STATED))
        return decode(arrays, weights, federation), Scores.from_numbers(numbers)

    def check(update: tuple[dict[str, np.ndarray], Scores]) -> None:
        arrays, scores = update
        assert {name: (array.dtype, array.shape) for name, array in arrays.items()} == {
            name: (np.float32, shape) for name, shape in shapes.items()
        }
        assert all(np.isfinite(array).all() for array in arrays.values())
        check_numbers(scores, set(names), STATED)

    message, _ = encode({name: array + np.float32(0.1) for name, array in weights.items()}, weights, {}, federation)
    attack(pack_reply(message, Scores(40, dict.fromkeys(names, 0.5)).to_numbers()), read, check, mutations)


def test_evaluate_replies_survive_mutations(system, mutations):
    stage = system.stages[0]

    def check(scores: Scores) -> None:
        check_numbers(scores, set(stage.scores), STATED)
        assert all(0 <= value <= 1 for value in scores.values.values())

    def read(content: RecordDict) -> Scores:
        return Scores.from_numbers(unpack_reply(content, evaluate_layout(stage, STATED))[1])

    attack(pack_reply({}, Scores(4, dict.fromkeys(stage.scores, 0.8)).to_numbers()), read, check, mutations)


def test_finish_replies_survive_mutations(mutations):
    def check(read: Any) -> None:
        assert read == ({}, {"finished": 1})

    attack(pack_reply({}, {"finished": 1}), lambda content: unpack_reply(content, finish_layout()), check, mutations)


def test_instructions_survive_mutations(mutations):
    """Of the config too, which a site checks further by its own policy."""
    instruction = RoundInstruction("run", 3, 0, 1, 2, config=CONFIG.to_json(), received={"north": (2, "0f" * 32)})

    def read(content: RecordDict) -> tuple[RoundInstruction, RunConfig]:
        read = unpack_instruction(content)
        return read, read.settings

    def check(read: tuple[RoundInstruction, RunConfig]) -> None:
        instruction, config = read
        assert RoundInstruction.from_json(instruction.to_json()) == instruction
        assert 0 <= instruction.first <= instruction.until <= 10**6
        assert RunConfig.from_json(config.to_json()) == config

    attack(pack_instruction(instruction, {}), read, check, mutations)


def test_weights_of_instructions_survive_mutations(shared, weights):
    def read(content: RecordDict) -> dict[str, np.ndarray]:
        arrays = dict(arrays_of(content))
        shared.check(arrays)
        return arrays

    def check(arrays: dict[str, np.ndarray]) -> None:
        assert {name: array.shape for name, array in arrays.items()} == shared.shapes
        assert all(np.isfinite(array).all() for array in arrays.values())

    attack(pack_instruction(RoundInstruction("run", 1, 0, 0, 1, config="{}"), weights), read, check, 1000)


def test_attack_raises_for_other_exception_and_for_rejected_honest_message():
    """The tests above can fail."""
    content = pack_reply({}, {"finished": 1})
    with pytest.raises(KeyError):
        attack(content, lambda content: content["metrics"]["finished"], lambda _: None, 200)
    with pytest.raises(FederationError):
        attack(RecordDict(), lambda content: unpack_reply(content, finish_layout()), lambda _: None, 200)
