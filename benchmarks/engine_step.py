"""The engine's images per second against a bare forward, backward and step of the same networks and losses.

    python -m benchmarks.engine_step [--recipe ganet_seg --phase supervised --device cuda --batch 80]

Ours is `Trainer.fit` without validation and checkpoints: prepared slices read from disk, augmentation, balancing,
clipping, logging, optimizer. The bare step has its batches in memory already, augmented and on the device, takes the
phase's terms with fixed weights, and does nothing else. Above a ratio of 0.95 the loop costs less than a twentieth.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.engine import Engine
from benchmarks.made_slices import made_stage_data
from benchmarks.measure import Comparison, compare_seconds, machine, parser, report, seconds_of, side_by_side
from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.batch import Batch
from ganseg_dist.data.slices import LESION_CLASSES
from ganseg_dist.engine.step import precision, train_only
from ganseg_dist.engine.trainer import StageData, seeded
from ganseg_dist.engine.world import World
from ganseg_dist.systems import build_system, recipe
from ganseg_dist.systems.base import Phase, Stage


def bare_epoch(engine: Engine, batches: list[Batch]) -> None:
    """Forward, backward and optimizer step, and nothing else."""
    phase = engine.stage.phases[0]
    optimizers = [engine.state.optimizers[name] for name in phase.trains]
    train_only(engine.state.networks, phase.trains)
    for batch in batches:
        with precision(engine.config, engine.world):
            terms = engine.system.losses(phase.name, batch)
            total = torch.stack([phase.weights[name] * term for name, term in terms.items()]).sum()
        total.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def measure_phase(
    stage: Stage, phase: Phase, data: StageData, config: RunConfig, world: World, repeats: int
) -> Comparison:
    """Compare the engine with the bare step on one phase; both train the same number of images."""
    ours, bare = (Engine.of_phase(stage, phase, data, config, world) for _ in range(2))
    batches = list(bare.batches())
    images = sum(len(batch.image) for batch in batches)
    engine_seconds, bare_seconds = side_by_side(
        lambda: seconds_of(ours.epoch, world.device),
        lambda: seconds_of(lambda: bare_epoch(bare, batches), world.device),
        repeats,
    )
    if world.device.type == "cuda":
        waits = [waiting_share(work) for work in (ours.epoch, lambda: bare_epoch(bare, batches))]
        note = f"the GPU waits for data {waits[0]:.1%} of the time (bare {waits[1]:.1%})"
    else:
        reading = seconds_of(lambda: list(bare.batches()), world.device)
        note = f"reading and augmenting take {reading / min(engine_seconds):.1%} of an epoch"
    size = config.data.size
    what = f"{phase.name} phase, {config.recipe}, {size}x{size}, batch {config.train.batch_size}"
    return compare_seconds(what, engine_seconds, bare_seconds, amount=images, unit="images", note=note)


def waiting_share(work: Callable[[], None]) -> float:
    """Share of the time between a GPU's first and last kernel in which it is idle while a copy from the host starts."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    on_gpu = [event for event in profiler.events() if event.device_type == DeviceType.CUDA]
    spans = [("HtoD" in event.name, event.time_range.start, event.time_range.end) for event in on_gpu]
    return waiting_of_spans(spans)


def waiting_of_spans(spans: list[tuple[bool, float, float]]) -> float:
    """Each span is (is a copy from the host, start, end); a gap between kernels counts if such a copy starts in it."""
    kernels = sorted((start, end) for is_copy, start, end in spans if not is_copy)
    copies = [start for is_copy, start, _ in spans if is_copy]
    if not kernels:
        return 0.0
    waited, busy_until = 0.0, kernels[0][1]
    for start, end in kernels[1:]:
        if any(busy_until <= copy <= start for copy in copies):
            waited += start - busy_until
        busy_until = max(busy_until, end)
    return waited / (busy_until - kernels[0][0])


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--recipe", default="ganet_seg_small", help="whose network sizes are measured")
    options.add_argument("--phase", default=None, help="this phase alone; all of the recipe's when not given")
    options.add_argument("--device", default="cpu", help="cpu or cuda; cuda takes bf16 and channels-last")
    options.add_argument("--batch", type=int, default=8, help="images a step")
    options.add_argument("--steps", type=int, default=10, help="steps an epoch, a multiple of train.balance_every")
    options.add_argument("--repeats", type=int, default=2, help="epochs of each that are measured")
    options.add_argument("--loaders", type=int, default=0, help="loader processes of the engine")
    args = options.parse_args()
    if args.quick:
        args.recipe, args.batch, args.steps, args.repeats = "ganet_seg_debug", 4, 2, 1
    config = override(
        recipe(args.recipe),
        {
            "data.modalities": ["t1", "t1ce", "t2", "flair"],
            "data.regions": ["wt", "tc", "et"],
            "data.classes": list(LESION_CLASSES),
            "data.blank_rate": 0.0,  # makes an epoch of the second stage as long as one of the first
            "train.batch_size": args.batch,
            "train.loaders": args.loaders,
        },
    )
    seeded(config)
    world = World(device=torch.device(args.device))
    print(f"engine_step: {machine(world.device)}, {args.steps} steps an epoch", flush=True)
    with tempfile.TemporaryDirectory(prefix="ganseg-benchmark-") as folder:
        data = made_stage_data(Path(folder), config, args.steps * args.batch)
        phases = [
            (stage, phase)
            for stage in reversed(build_system(config).stages)
            for phase in stage.phases
            if args.phase in (None, phase.name)
        ]
        report([measure_phase(*phase, data, config, world, args.repeats) for phase in phases], args)


if __name__ == "__main__":
    main()
