"""An epoch of ours against an epoch of a plain MONAI loop: the same U-Net, slices, optimizer and learning rates.

    python -m benchmarks.monai_loop [--data lgg] [--epochs 6] [--loaders 2] [--device cuda]

MONAI's side is what its tutorials write: CacheDataset with everything cached in memory, dictionary transforms
(flip, one affine for rotation and zoom, intensity scale and shift), DataLoader, DiceCELoss, DiceMetric. Ours is
`Trainer.fit` from the prepared store. Both timed epochs include validation; epochs of the two take turns.

After a few epochs Dice still rises steeply, and one seed says little: several seeds, each with its own split and
weights that both start from, are trained on slices of half the resolution, and one scorer gives both their Dice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import mean
from typing import Any

import monai
import torch
from monai.data import CacheDataset, DataLoader
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric
from monai.transforms import Compose, EnsureTyped, RandAffined, RandFlipd, RandScaleIntensityd, RandShiftIntensityd
from torch import nn

from benchmarks.cohorts import Task, lgg_cohort, phantom_cohort, task
from benchmarks.engine import Engine
from benchmarks.measure import Comparison, compare_seconds, machine, parser, report, seconds_of, side_by_side
from ganseg_dist.config import AugmentConfig, RunConfig, override
from ganseg_dist.data.slices import SliceSet
from ganseg_dist.engine.step import precision
from ganseg_dist.engine.trainer import StageData, seeded
from ganseg_dist.engine.world import World
from ganseg_dist.systems import build_system, recipe

KEYS = ("image", "label")


class MonaiLoop:
    """Trains a network as MONAI's tutorials do."""

    def __init__(self, network: nn.Module, data: StageData, config: RunConfig, world: World) -> None:
        train = config.train
        self.network, self.config, self.world = network, config, world
        self.optimizer = torch.optim.Adam(
            network.parameters(), lr=train.learning_rate, betas=train.betas, weight_decay=train.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.PolynomialLR(
            self.optimizer, total_iters=train.epochs, power=train.learning_rate_power
        )
        self.loss = DiceCELoss(sigmoid=True)
        self.metric = DiceMetric(include_background=True, reduction="mean")
        self.train = self._loader(data.train, _training_transforms(config.data.augment), shuffle=True)
        self.validation = self._loader(data.validation, EnsureTyped(keys=KEYS), shuffle=False)

    def epoch(self) -> None:
        """Train, then validate."""
        self.network.train()
        for batch in self.train:
            image, label = self._on_device(batch)
            self.optimizer.zero_grad()
            with precision(self.config, self.world):
                loss = self.loss(self.network(image), label)
            loss.backward()
            self.optimizer.step()
        self.schedule.step()
        self.network.eval()
        with torch.no_grad(), precision(self.config, self.world):
            for batch in self.validation:
                image, label = self._on_device(batch)
                self.metric(y_pred=(self.network(image).sigmoid() > 0.5).float(), y=label)
        self.metric.aggregate()
        self.metric.reset()

    def _on_device(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        return batch["image"].to(self.world.device), batch["label"].to(self.world.device)

    def _loader(self, slices: SliceSet, transform: Callable[[Any], Any], *, shuffle: bool) -> DataLoader:
        indices = torch.arange(len(slices)).numpy()
        items = [{"image": image, "label": label} for image, label in zip(*slices.read(indices), strict=True)]
        return DataLoader(
            CacheDataset(items, transform, progress=False),
            batch_size=self.config.train.batch_size,
            shuffle=shuffle,
            drop_last=shuffle,  # as the engine does
            num_workers=self.config.train.loaders,
            pin_memory=self.world.device.type == "cuda",
        )


def _training_transforms(config: AugmentConfig) -> Compose:
    """MONAI transforms with the ranges of the engine's augmentation."""
    return Compose(
        [
            EnsureTyped(keys=KEYS),
            RandFlipd(keys=KEYS, prob=config.flip, spatial_axis=1),
            RandAffined(
                keys=KEYS,
                prob=1.0,
                rotate_range=math.radians(config.rotation_degrees),
                scale_range=(config.scale, config.scale),
                mode=("bilinear", "nearest"),
                padding_mode="border",
            ),
            RandScaleIntensityd(keys="image", prob=1.0, factors=config.gain, channel_wise=True),
            RandShiftIntensityd(keys="image", prob=1.0, offsets=config.shift, channel_wise=True),
        ]
    )


def compare_times(prepared: Task, world: World) -> Comparison:
    """Compare the seconds of an epoch."""
    ours, _, loop = both(prepared, world)
    config, epochs = prepared.config, prepared.config.train.epochs
    seconds = side_by_side(
        lambda: seconds_of(ours.epoch, world.device), lambda: seconds_of(loop.epoch, world.device), epochs, warm_ups=0
    )
    steps = ours.state.position.step // epochs
    return compare_seconds(
        f"an epoch against MONAI's, {describe(prepared)}",
        *(part[1:] for part in seconds),  # the first epoch is a warm-up
        note=f"{steps} steps of {config.train.batch_size} and {len(prepared.data.validation)} slices to validate",
    )


def compare_dice(tasks: list[Task], world: World) -> Comparison:
    """Compare validation Dice after equal numbers of epochs; one task per seed."""
    pairs: list[tuple[float, float]] = []
    for prepared in tasks:
        ours, monai_engine, loop = both(prepared, world)
        for _ in range(prepared.config.train.epochs):
            ours.epoch()
            loop.epoch()
        pairs.append((ours.scores()["dice_wt"], monai_engine.scores()["dice_wt"]))
    ours_mean, monai_mean = (mean(pair[side] for pair in pairs) for side in (0, 1))
    ratios = [a / b if b > 0 else math.inf for a, b in pairs]
    return Comparison(
        f"validation Dice after {tasks[0].config.train.epochs} epochs against MONAI's, {describe(tasks[0])}",
        ours_mean / monai_mean if monai_mean > 0 else math.inf,
        min(ratios), max(ratios), f"{ours_mean:.3f}", f"{monai_mean:.3f}", len(pairs), "mean over seeds",
    )  # fmt: skip


def describe(prepared: Task) -> str:
    """The cohort's name, the size of slices and the number of loaders."""
    config = prepared.config
    return f"{prepared.cohort.root.name}, {config.data.size}x{config.data.size}, {config.train.loaders} loaders"


def both(prepared: Task, world: World) -> tuple[Engine, Engine, MonaiLoop]:
    """Our engine, an engine that scores MONAI's network, and the MONAI loop that trains it; from the same weights."""
    config = prepared.config
    seeded(config)
    monai.utils.set_determinism(config.seed)
    ours = Engine.of(build_system(config), prepared.data, config, world)
    monai_engine = Engine.of(build_system(config), prepared.data, config, world)
    monai_engine.system.networks["segmenter"].load_state_dict(ours.system.networks["segmenter"].state_dict())
    return ours, monai_engine, MonaiLoop(monai_engine.system.networks["segmenter"], prepared.data, config, world)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", choices=("phantom", "lgg"), default="phantom")
    options.add_argument("--epochs", type=int, default=6, help="of each")
    options.add_argument("--seeds", type=int, default=4, help="of the comparison of Dice")
    options.add_argument("--loaders", type=int, default=0, help="loader processes of each side")
    options.add_argument("--device", default="cpu", help="cpu or cuda")
    args = options.parse_args()
    changes: dict[str, Any] = {
        "system.gan": False,
        "data.regions": ["wt"],  # DiceCELoss takes overlapping regions for classes
        "data.blank_rate": 1.0,  # so that both sides see the same slices in every epoch
        "data.validation_fraction": 0.25,
        "train.epochs": args.epochs,
        "train.loaders": args.loaders,
    }
    base = recipe("ganet_seg_debug" if args.quick else "ganet_seg_small")
    if args.quick:
        changes |= {"train.epochs": 2, "train.batch_size": 16}
        args.seeds = 1
        cohort = phantom_cohort(patients=6, spacing_mm=8.0)
    else:
        cohort = lgg_cohort() if args.data == "lgg" else phantom_cohort(patients=12, spacing_mm=3.0)
    world = World(device=torch.device(args.device))
    config = override(base, changes)
    coarse = override(config, {"data.size": config.data.size // 2, "data.spacing_mm": 2 * config.data.spacing_mm})
    prepared = task(cohort, config)
    seeded(config)
    print(f"monai_loop: {machine(world.device)}, monai {monai.__version__}", flush=True)
    seeds = [task(cohort, override(coarse, {"seed": seed})) for seed in range(args.seeds)]
    report([compare_times(prepared, world), compare_dice(seeds, world)], args)


if __name__ == "__main__":
    main()
