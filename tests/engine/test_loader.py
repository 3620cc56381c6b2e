import pickle
from collections import Counter

import numpy as np
import pytest
import torch

from ganseg_dist.config import override
from ganseg_dist.engine.loader import StageBatches
from ganseg_dist.engine.world import World
from ganseg_dist.errors import DataError
from ganseg_dist.systems import build_system


@pytest.fixture
def opened(prepared, debug_config):
    return prepared.open(debug_config)["cohort"]


@pytest.fixture
def batches(opened, debug_config):
    def make(stage="segment", world=World(), slices=None, **changes):  # noqa: B008
        config = override(debug_config, {"data.blank_rate": 0.5, **changes})
        system = build_system(config)
        definition = next(candidate for candidate in system.stages if candidate.name == stage)
        return StageBatches(config, definition, opened.train if slices is None else slices, system.sample, world)

    return make


def identified(epoch):
    """Each batch's examples as (image bytes, draws bytes), in order."""
    return [
        [
            (image.numpy().tobytes(), tuple(sorted((name, value[row].numpy().tobytes()) for name, value in draws)))
            for row, image in enumerate(batch.image)
        ]
        for batch in epoch
        for draws in [list(batch.samples.items())]
    ]


@pytest.mark.parametrize("stage", ["healthy", "segment"])
def test_two_workers_see_together_what_one_sees_in_the_same_order(batches, stage):
    alone = identified(batches(stage).epoch(3))
    pair = [identified(batches(stage, World(rank, 2)).epoch(3)) for rank in (0, 1)]
    assert len(alone) > 2
    assert len(pair[0]) == len(pair[1]) == len(alone)
    for whole, first, second in zip(alone, *pair, strict=True):
        assert len(first) == len(second) == 2
        assert [first[0], second[0], first[1], second[1]] == whole


def test_draws_belong_to_an_example_whatever_the_batch_and_its_size(batches):
    small, large = (
        dict(
            example
            for batch in identified(batches("healthy", **{"train.batch_size": size}).epoch(0))
            for example in batch
        )
        for size in (3, 8)
    )
    shared = small.keys() & large.keys()
    assert len(shared) > 10
    assert all(small[image] == large[image] for image in shared)


def test_draws_of_examples_epochs_and_seeds_differ(batches):
    first = identified(batches("healthy").epoch(0))
    draws = [draw for batch in first for _, draw in batch]
    assert len(set(draws)) == len(draws)
    for other in (batches("healthy").epoch(1), batches("healthy", seed=1).epoch(0)):
        changed = dict(example for batch in identified(other) for example in batch)
        same = dict(example for batch in first for example in batch)
        assert all(same[image] != changed[image] for image in same.keys() & changed.keys())


def test_an_epoch_has_its_own_order_and_is_the_same_each_time(batches):
    made = batches()
    assert identified(made.epoch(0)) == identified(made.epoch(0)) == identified(batches().epoch(0))
    assert identified(made.epoch(0))[0] != identified(made.epoch(1))[0]


def shown(made, epoch):
    """Slices of an epoch as (case, has a lesion)."""
    return [
        (int(case), bool(region.any()))
        for batch in made.epoch(epoch)
        for case, region in zip(batch.case, batch.regions, strict=True)
    ]


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_every_lesion_and_a_share_of_the_blank_slices(batches, opened, rate):
    made = batches(**{"data.blank_rate": rate, "train.batch_size": 1})
    counts = Counter(lesion for _, lesion in shown(made, 0))
    assert counts[True] == opened.train.has_lesion.sum() > 0
    assert counts[False] == round(rate * (~opened.train.has_lesion).sum())


def test_blank_slices_are_drawn_anew_each_epoch(batches):
    made = batches(**{"data.blank_rate": 0.25, "train.batch_size": 1})
    blanks = [
        {batch.image.numpy().tobytes() for batch in made.epoch(epoch) if not batch.regions.any()} for epoch in range(3)
    ]
    assert blanks[0] != blanks[1] != blanks[2]


def test_the_pretraining_sees_no_lesion(batches, opened):
    made = batches("healthy", **{"train.batch_size": 1})
    slices = shown(made, 0)
    assert len(slices) == (~opened.train.has_lesion).sum()
    assert not any(lesion for _, lesion in slices)


def test_no_example_is_shown_twice_and_only_the_rest_of_an_epoch_is_left_out(batches):
    made = batches(**{"train.batch_size": 16})
    images = [image for batch in identified(made.epoch(0)) for image, _ in batch]
    assert len(set(images)) == len(images) == 16 * made.steps
    assert len(made.always) + made.sample - len(images) < 16


def test_batches_shrink_to_a_cohort_smaller_than_one(batches, opened):
    few = opened.train.__class__.open([opened.train.cases[0].folder], opened.train.modalities, opened.train.regions)
    made = batches(slices=few, **{"train.batch_size": 512})
    assert made.steps == 1
    assert made.batch_size == len(made.always) + made.sample


def test_channels_of_a_stage(batches):
    made = batches("healthy", **{"system.healthy_modalities": ["flair"]})
    batch = next(made.epoch(0))
    assert batch.image.shape[1] == 1
    full = next(batches("healthy").epoch(0))
    flair = made.config.data.modalities.index("flair")
    assert torch.equal(batch.image[:, 0], full.image[:, flair])


def test_validation_is_the_same_each_time_and_not_augmented(batches, opened):
    made = batches("healthy")
    once, again = (identified(made.validation(opened.validation)) for _ in range(2))
    assert once == again
    (batch, *_) = made.validation(opened.validation)
    assert "holes" in batch.samples
    assert "affine" not in batch.samples
    assert "affine" in next(made.epoch(0)).samples


def test_two_workers_validate_every_slice_once(batches, opened):
    everything = [example for batch in identified(batches().validation(opened.validation)) for example in batch]
    parts = [
        example
        for rank in (0, 1)
        for batch in identified(batches(world=World(rank, 2)).validation(opened.validation))
        for example in batch
    ]
    assert len(everything) == len(opened.validation)
    assert Counter(parts) == Counter(everything)


def test_loader_processes_change_nothing(batches):
    changes = {"train.batch_size": 16}
    assert identified(batches("healthy", **changes).epoch(0)) == identified(
        batches("healthy", **changes, **{"train.loaders": 1}).epoch(0)
    )


def test_loader_processes_are_sent_no_networks(batches):
    wide = batches("healthy", **{"system.widths": [256, 256]})
    assert len(pickle.dumps(wide._samples)) < 100_000


def test_a_batch_that_does_not_divide_is_refused(batches):
    with pytest.raises(DataError, match=r"train.batch_size: 5 examples do not divide among 2 workers"):
        batches(world=World(0, 2), **{"train.batch_size": 5})


def test_nothing_to_learn_from_is_refused(batches, opened):
    nobody = opened.train.__class__.open([], opened.train.modalities, opened.train.regions)
    with pytest.raises(DataError, match="stage healthy: the training patients leave no tumour-free slices"):
        batches("healthy", slices=nobody)
    with pytest.raises(DataError, match="stage segment: the training patients leave no slices"):
        batches(slices=nobody)


def test_pictures_are_what_the_store_holds(batches, opened):
    made = batches(**{"train.batch_size": 1})
    rng_free = {opened.train.read(np.array([index]))[0].tobytes() for index in range(len(opened.train))}
    assert {batch.image.numpy().tobytes() for batch in made.epoch(0)} <= rng_free
