"""Batches in an order, and with random samples, that depend on seed, epoch and example alone.

For any number of workers that share an epoch, the batches, holes and transforms are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from ganseg_dist.config import RunConfig
from ganseg_dist.data.augment import sample_augmentation
from ganseg_dist.data.batch import Batch
from ganseg_dist.data.slices import SliceSet
from ganseg_dist.engine.world import World
from ganseg_dist.errors import DataError
from ganseg_dist.systems.base import Stage

Indices = npt.NDArray[np.int64]
Sampler = Callable[[str, np.random.Generator], dict[str, npt.NDArray[np.float32]]]

ORDER, EXAMPLE, VALIDATION = range(3)
"""Streams of randomness: the order of examples, the transforms of one, and the same for validation."""


class StageBatches:
    """The batches of one stage for one rank."""

    def __init__(self, config: RunConfig, stage: Stage, slices: SliceSet, sampler: Sampler, world: World) -> None:
        """Raises DataError when the stage has no training examples."""
        self.config, self.stage, self.world = config, stage, world
        self.slices = slices if stage.modalities is None else slices.of_modalities(stage.modalities)
        self.sampler = sampler
        blank = np.flatnonzero(~self.slices.has_lesion)
        lesion = np.flatnonzero(self.slices.has_lesion)
        kept_blank = round(config.data.blank_rate * len(blank))
        self.always, self.sampled, self.sample = (
            (blank, blank[:0], 0) if stage.examples == "tumour_free" else (lesion, blank, kept_blank)
        )
        examples = len(self.always) + self.sample
        wanted = config.train.batch_size
        if wanted % world.size:
            raise DataError(f"train.batch_size: {wanted} examples do not divide among {world.size} workers")
        self.batch_size = min(wanted, examples - examples % world.size)
        if self.batch_size == 0:
            kind = "tumour-free slices" if stage.examples == "tumour_free" else "slices"
            raise DataError(f"stage {stage.name}: the training patients leave no {kind} to train on")
        self.steps = examples // self.batch_size

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """This rank's share of every batch of an epoch; an incomplete last batch is left for another epoch."""
        batches = [batch[self.world.rank :: self.world.size] for batch in self.drawn(epoch)]
        keys = [self.config.seed, EXAMPLE, epoch]
        return self._load(batches, keys, augmented=self.stage.augmented)

    def drawn(self, epoch: int) -> list[Indices]:
        """The slices of every batch of an epoch, all ranks together."""
        rng = np.random.default_rng([self.config.seed, ORDER, epoch])
        chosen = np.concatenate([self.always, rng.choice(self.sampled, self.sample, replace=False)])
        order = rng.permutation(chosen)
        starts = range(0, self.steps * self.batch_size, self.batch_size)
        return [order[start : start + self.batch_size] for start in starts]

    def validation(self, slices: SliceSet) -> Iterator[Batch]:
        """This rank's share of the validation slices of the stage's kind, without augmentation, the same each time."""
        slices = slices if self.stage.modalities is None else slices.of_modalities(self.stage.modalities)
        wanted = np.arange(len(slices))
        if self.stage.examples == "tumour_free":
            wanted = np.flatnonzero(~slices.has_lesion)
        mine = wanted[self.world.rank :: self.world.size]
        batches = [mine[start : start + self.batch_size] for start in range(0, len(mine), self.batch_size)]
        return self._load(batches, [self.config.seed, VALIDATION], augmented=False, slices=slices)

    def examples(self, slices: SliceSet, chosen: Indices) -> Batch:
        """These validation slices as one batch, without augmentation, the same each time."""
        return _Batches(slices, [chosen], [self.config.seed, VALIDATION], self._system_samples)[0]

    def _load(
        self, batches: list[Indices], keys: list[int], *, augmented: bool, slices: SliceSet | None = None
    ) -> Iterator[Batch]:
        source = self.slices if slices is None else slices
        loaders = self.config.train.loaders
        read = iter(
            DataLoader(
                _Batches(source, batches, keys, self._samples if augmented else self._system_samples),
                batch_size=None,
                num_workers=loaders,
                prefetch_factor=4 if loaders else None,
                multiprocessing_context="forkserver" if loaders else None,
            )
        )
        # From page-locked memory the copy to a GPU does not wait for the step before it.
        return (batch.pin() for batch in read) if self.world.device.type == "cuda" else read

    def _samples(self, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
        transform = sample_augmentation(self.config.data.augment, len(self.slices.modalities), rng)
        return {**self._system_samples(rng), **transform}

    def _system_samples(self, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
        return self.sampler(self.stage.name, rng)


@dataclass(eq=False)
class _Batches(Dataset[Batch]):
    """One item is one batch, so that loader processes hand over whole batches."""

    slices: SliceSet
    batches: list[Indices]
    keys: list[int]
    sample: Callable[[np.random.Generator], dict[str, npt.NDArray[np.float32]]]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        chosen = self.batches[index]
        image, regions = self.slices.read(chosen)
        sampled: list[dict[str, Any]] = [
            self.sample(np.random.default_rng([*self.keys, int(example)])) for example in chosen
        ]
        samples = {
            name: torch.from_numpy(np.stack([one[name] for one in sampled])) for name in (sampled[0] if sampled else ())
        }
        return Batch(
            torch.from_numpy(image),
            torch.from_numpy(regions),
            torch.from_numpy(self.slices.case_of[chosen]),
            torch.from_numpy(self.slices.label[chosen]),
            samples,
        )
