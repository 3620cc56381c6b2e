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
def batches(stage_data, debug_config):
    def make(stage="segment", world=World(), slices=None, **changes):  # noqa: B008
        config = override(debug_config, {"data.blank_rate": 0.5, **changes})
        system = build_system(config)
        definition = next(candidate for candidate in system.stages if candidate.name == stage)
        return StageBatches(config, definition, stage_data.train if slices is None else slices, system.sample, world)

    return make


def example_bytes(epoch):
    """Each batch's examples as (image bytes, sampled bytes), in order."""
    return [
        [
            (image.numpy().tobytes(), tuple(sorted((name, value[row].numpy().tobytes()) for name, value in samples)))
            for row, image in enumerate(batch.image)
        ]
        for batch in epoch
        for samples in [list(batch.samples.items())]
    ]


@pytest.mark.parametrize("stage", ["healthy", "segment"])
def test_stage_batches_of_two_workers_interleave_to_those_of_one(batches, stage):
    alone = example_bytes(batches(stage).epoch(3))
    pair = [example_bytes(batches(stage, World(rank, 2)).epoch(3)) for rank in (0, 1)]
    assert len(alone) > 2
    assert len(pair[0]) == len(pair[1]) == len(alone)
    for whole, first, second in zip(alone, *pair, strict=True):
        assert len(first) == len(second) == 2
        assert [first[0], second[0], first[1], second[1]] == whole


def test_stage_batches_samples_do_not_depend_on_batch_size(batches):
    small, large = (
        dict(
            example
            for batch in example_bytes(batches("healthy", **{"train.batch_size": size}).epoch(0))
            for example in batch
        )
        for size in (3, 8)
    )
    shared = small.keys() & large.keys()
    assert len(shared) > 10
    assert all(small[image] == large[image] for image in shared)


def test_stage_batches_samples_differ_by_example_epoch_and_seed(batches):
    first = example_bytes(batches("healthy").epoch(0))
    samples = [sample for batch in first for _, sample in batch]
    assert len(set(samples)) == len(samples)
    for other in (batches("healthy").epoch(1), batches("healthy", seed=1).epoch(0)):
        changed = dict(example for batch in example_bytes(other) for example in batch)
        same = dict(example for batch in first for example in batch)
        assert all(same[image] != changed[image] for image in same.keys() & changed.keys())


def test_stage_batches_order_depends_on_epoch_and_is_reproducible(batches):
    stage_batches = batches()
    assert (
        example_bytes(stage_batches.epoch(0))
        == example_bytes(stage_batches.epoch(0))
        == example_bytes(batches().epoch(0))
    )
    assert example_bytes(stage_batches.epoch(0))[0] != example_bytes(stage_batches.epoch(1))[0]


def slices_of_epoch(stage_batches, epoch):
    """Slices of an epoch as (case, has a lesion)."""
    return [
        (int(case), bool(region.any()))
        for batch in stage_batches.epoch(epoch)
        for case, region in zip(batch.case, batch.regions, strict=True)
    ]


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_stage_batches_hold_each_lesion_and_a_share_of_blank_slices(batches, stage_data, rate):
    stage_batches = batches(**{"data.blank_rate": rate, "train.batch_size": 1})
    counts = Counter(lesion for _, lesion in slices_of_epoch(stage_batches, 0))
    assert counts[True] == stage_data.train.has_lesion.sum() > 0
    assert counts[False] == round(rate * (~stage_data.train.has_lesion).sum())


def test_stage_batches_resample_blank_slices_each_epoch(batches):
    stage_batches = batches(**{"data.blank_rate": 0.25, "train.batch_size": 1})
    blanks = {
        frozenset(batch.image.numpy().tobytes() for batch in stage_batches.epoch(epoch) if not batch.regions.any())
        for epoch in range(3)
    }
    assert len(blanks) == 3


def test_stage_batches_of_healthy_stage_hold_no_lesion(batches, stage_data):
    stage_batches = batches("healthy", **{"train.batch_size": 1})
    slices = slices_of_epoch(stage_batches, 0)
    assert len(slices) == (~stage_data.train.has_lesion).sum()
    assert not any(lesion for _, lesion in slices)


def test_stage_batches_hold_no_duplicates_and_drop_less_than_a_batch(batches):
    stage_batches = batches(**{"train.batch_size": 16})
    images = [image for batch in example_bytes(stage_batches.epoch(0)) for image, _ in batch]
    assert len(set(images)) == len(images) == 16 * stage_batches.steps
    assert len(stage_batches.always) + stage_batches.sample - len(images) < 16


def test_stage_batches_shrink_to_small_cohort(batches, stage_data):
    few = stage_data.train.__class__.open(
        [stage_data.train.cases[0].folder], stage_data.train.modalities, stage_data.train.regions
    )
    stage_batches = batches(slices=few, **{"train.batch_size": 512})
    assert stage_batches.steps == 1
    assert stage_batches.batch_size == len(stage_batches.always) + stage_batches.sample


def test_stage_batches_select_modalities_of_stage(batches):
    stage_batches = batches("healthy", **{"system.healthy_modalities": ["flair"]})
    batch = next(stage_batches.epoch(0))
    assert batch.image.shape[1] == 1
    full = next(batches("healthy").epoch(0))
    flair = stage_batches.config.data.modalities.index("flair")
    assert torch.equal(batch.image[:, 0], full.image[:, flair])


def test_stage_batches_validation_is_deterministic_and_not_augmented(batches, stage_data):
    stage_batches = batches("healthy")
    once, again = (example_bytes(stage_batches.validation(stage_data.validation)) for _ in range(2))
    assert once == again
    (batch, *_) = stage_batches.validation(stage_data.validation)
    assert "holes" in batch.samples
    assert "affine" not in batch.samples
    assert "affine" in next(stage_batches.epoch(0)).samples


def test_stage_batches_validation_of_two_workers_covers_each_slice_once(batches, stage_data):
    everything = [example for batch in example_bytes(batches().validation(stage_data.validation)) for example in batch]
    parts = [
        example
        for rank in (0, 1)
        for batch in example_bytes(batches(world=World(rank, 2)).validation(stage_data.validation))
        for example in batch
    ]
    assert len(everything) == len(stage_data.validation)
    assert Counter(parts) == Counter(everything)


def test_stage_batches_are_the_same_with_loader_processes(batches):
    changes = {"train.batch_size": 16}
    assert example_bytes(batches("healthy", **changes).epoch(0)) == example_bytes(
        batches("healthy", **changes, **{"train.loaders": 1}).epoch(0)
    )


def test_stage_batches_send_no_networks_to_loader_processes(batches):
    wide = batches("healthy", **{"system.widths": [256, 256]})
    assert len(pickle.dumps(wide._samples)) < 100_000


def test_stage_batches_reject_batch_size_indivisible_by_workers(batches):
    with pytest.raises(DataError, match=r"train.batch_size: 5 examples do not divide among 2 workers"):
        batches(world=World(0, 2), **{"train.batch_size": 5})


def test_stage_batches_reject_cohort_without_slices(batches, stage_data):
    empty = stage_data.train.__class__.open([], stage_data.train.modalities, stage_data.train.regions)
    with pytest.raises(DataError, match="stage healthy: the training patients leave no tumour-free slices"):
        batches("healthy", slices=empty)
    with pytest.raises(DataError, match="stage segment: the training patients leave no slices"):
        batches(slices=empty)


def test_stage_batches_images_equal_stored_slices(batches, stage_data):
    stage_batches = batches(**{"train.batch_size": 1})
    rng_free = {stage_data.train.read(np.array([index]))[0].tobytes() for index in range(len(stage_data.train))}
    assert {batch.image.numpy().tobytes() for batch in stage_batches.epoch(0)} <= rng_free
