"""Two Ray Train workers of one thread each against one worker of two threads: steps a second once they run.

    python -m benchmarks.two_workers

Both train the same batches with `Trainer.fit`. The clock stands inside the training function and leaves out its first
epoch, so that Ray's start does not count. Above a ratio of 0.9 the sums that cross processes cost less than a tenth.
"""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine import Engine
from benchmarks.made_slices import made_stage_data
from benchmarks.measure import compare_seconds, machine, parser, report, side_by_side
from ganseg_dist.cluster.ray_cluster import check_resources, ray_cluster
from ganseg_dist.config import RunConfig, override
from ganseg_dist.engine.tracker import Progress, Tracker
from ganseg_dist.engine.trainer import StageData, seeded
from ganseg_dist.engine.world import World
from ganseg_dist.systems import build_system, recipe

EPOCHS = 3


class StepClock(Tracker):
    """Records when each step ends."""

    def __init__(self) -> None:
        self.ends: list[tuple[int, float]] = []

    def progress(self, progress: Progress) -> None:
        self.ends.append((progress.epoch, time.perf_counter()))

    def seconds(self) -> float:
        """Seconds from the end of the first epoch to the end of the last step."""
        warm = [end for epoch, end in self.ends if epoch == 0]
        return self.ends[-1][1] - warm[-1]


def train_member(settings: dict[str, Any]) -> None:
    """The training function of each Ray worker."""
    import ray.train.torch

    config = RunConfig.from_json(settings["config"])
    seeded(config)
    world = World.joined(ray.train.torch.get_device())
    engine = Engine.of(build_system(config), settings["data"], config, world)
    clock = StepClock()
    engine.tracker = clock
    for _ in range(EPOCHS):
        engine.epoch()
    if world.leads:
        settings["answer"].write_text(str(clock.seconds()))


def measured(config: RunConfig, data: StageData, storage: Path, *, workers: int, threads: int) -> float:
    """Seconds of all epochs but the first."""
    from ray.train import RunConfig as RayRunConfig
    from ray.train import ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    check_resources(workers=workers, threads=threads, gpus=False)
    threaded = override(config, {"train.threads": threads})
    name = f"{workers}-workers-{time.monotonic_ns()}"
    result_file = storage / f"{name}.txt"  # Ray returns only the metrics of checkpoints, and none is kept here
    trainer = TorchTrainer(
        train_member,
        train_loop_config={"config": threaded.to_json(), "data": data, "answer": result_file},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": threads}),
        run_config=RayRunConfig(name=name, storage_path=str(storage)),
    )
    trainer.fit()
    return float(result_file.read_text())


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--recipe", default="ganet_seg_small", help="whose network sizes are measured")
    options.add_argument("--steps", type=int, default=16, help="steps an epoch; two epochs are measured")
    options.add_argument("--repeats", type=int, default=3, help="runs of each that are measured")
    args = options.parse_args()
    if args.quick:
        args.recipe, args.steps, args.repeats = "ganet_seg_debug", 2, 1
    config = override(
        recipe(args.recipe),
        {
            "system.gan": False,
            "data.modalities": ["t1", "t1ce", "t2", "flair"],
            "data.regions": ["wt", "tc", "et"],
            "data.blank_rate": 0.0,
            "train.epochs": EPOCHS,
        },
    )
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")
    batch, size = config.train.batch_size, config.data.size
    with tempfile.TemporaryDirectory(prefix="ganseg-benchmark-") as folder, ray_cluster():
        print(f"two_workers: {machine(torch.device('cpu'))}", flush=True)
        data = made_stage_data(Path(folder), config, args.steps * batch)
        run = partial(measured, config, data, Path(folder) / "ray")
        two_workers, one_worker = side_by_side(
            lambda: run(workers=2, threads=1), lambda: run(workers=1, threads=2), args.repeats, warm_ups=0
        )
    comparison = compare_seconds(
        f"two workers of 1 thread against one of 2, U-Net of {args.recipe}, {size}x{size}, batch {batch}",
        two_workers, one_worker, amount=(EPOCHS - 1) * args.steps, unit="steps",
    )  # fmt: skip
    report([comparison], args)


if __name__ == "__main__":
    main()
