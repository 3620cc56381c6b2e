"""What a training step takes with more workers: its parts measured here, the model of them, and the model's error.

    python -m benchmarks.scaling [--figure scaling.png]

Measured with one worker of one thread: the engine's step over several batch sizes, and how fast slices are read. With
two local processes: how fast gradients are averaged (gloo). The model (benchmarks/scaling_model.py) then says what a
step of two workers takes, and two workers say what it does take. What GPUs would do follows from the same model, with
gradients, floating-point operations and operators counted and the machine's constants assumed: see docs/scaling.md.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.engine import ENDLESS, Engine
from benchmarks.made_slices import made_stage_data
from benchmarks.measure import Comparison, compare_seconds, machine, parser, report
from benchmarks.scaling_model import Compute, Link, Step, fitted_line
from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.batch import Batch
from ganseg_dist.data.slices import LESION_CLASSES
from ganseg_dist.engine.loader import StageBatches
from ganseg_dist.engine.step import train_step
from ganseg_dist.engine.trainer import StageData, prepare_state, seeded
from ganseg_dist.engine.world import World
from ganseg_dist.systems import build_system, recipe
from ganseg_dist.systems.base import Phase, Stage, System

MESSAGES = tuple(4**power * 1024 for power in range(1, 9))
"""Bytes: 4 KiB to 64 MiB."""
STEPS = {"ganet_seg": ("segment", ("adversarial",)), "gan_osmosis": ("joint", ("discriminator", "generator"))}
"""System to the stage and phases that take most of its time; a step here consists of these phases."""

PEAK = 989e12
"""Floating-point operations a second of an H100 SXM in bf16 without sparsity: NVIDIA's data sheet."""
UTILISATION = 0.2
"""Share of the peak that a convolutional network of these widths is assumed to reach."""
OPERATOR_SECONDS = 6e-6
"""Assumed seconds in which Python launches one operator on a GPU."""
GPU_LOADERS = 4
"""Assumed number of loader processes per GPU (train.loaders)."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Machines of H100s."""

    name: str
    gpus: int
    """GPUs per machine."""
    inside: Link
    between: Link

    def link(self, workers: int) -> Link:
        """The slowest link that a message of all workers passes."""
        return self.inside if workers <= self.gpus else self.between


NVLINK = Link(450e9, 10e-6)
"""900 GB/s in both directions together: NVIDIA's data sheet; the latency is assumed."""
CLUSTERS = (
    Cluster("8 GPUs a machine, 400 Gb/s InfiniBand each", 8, NVLINK, Link(50e9, 20e-6)),
    Cluster("1 GPU a machine, 25 Gb/s Ethernet", 1, NVLINK, Link(3.125e9, 100e-6)),
)


def settled(name: str, changes: Mapping[str, Any] | None = None) -> RunConfig:
    """A recipe resolved for a cohort of four modalities."""
    cohort = {
        "data.modalities": ["t1", "t1ce", "t2", "flair"],
        "data.regions": ["wt", "tc", "et"],
        "data.classes": list(LESION_CLASSES),
        "data.blank_rate": 0.0,
    }
    return override(recipe(name), {**cohort, **(changes or {})})


def stage_of(system: System, config: RunConfig) -> Stage:
    """The stage that STEPS names, with only its phases there, which run in every epoch."""
    name, phases = STEPS[config.system.name]
    stage = next(stage for stage in system.stages if stage.name == name)
    due = tuple(replace(phase, epochs=None) for phase in stage.phases if phase.name in phases)
    return replace(stage, phases=due, epochs=ENDLESS)


def messages_of(system: System, phases: Sequence[Phase]) -> tuple[float, ...]:
    """Bytes that a step averages, one message per network: float32, whatever the precision of the forward pass."""
    return tuple(
        4 * sum(weights.numel() for weights in system.networks[name].parameters())
        for phase in phases
        for name in phase.trains
    )


# Measurements in separate processes.

Work = Callable[..., Any]


def run_processes(workers: int, work: Work, *arguments: Any) -> Any:
    """The result of rank 0 of `workers` local processes of one thread each.

    They are forked, so that all modules are loaded already; this process itself must not compute gradients.
    """
    with tempfile.TemporaryDirectory(prefix="ganseg-scaling-") as folder:
        settings = (workers, Path(folder), work, arguments)
        multiprocessing.start_processes(_member, settings, nprocs=workers, start_method="fork")
        return json.loads((Path(folder) / "answer.json").read_text())


def _member(rank: int, workers: int, folder: Path, work: Work, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    if workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=workers)
    result = work(World.joined(), *arguments)
    if rank == 0:
        (folder / "answer.json").write_text(json.dumps(result))
    if workers > 1:
        dist.destroy_process_group()


def time_averaging(world: World, sizes: Sequence[int], repeats: int) -> list[list[float]]:
    """Seconds of each repetition, for each size in bytes."""
    all_seconds = []
    for size in sizes:
        tensor = torch.ones(size // 4)
        seconds = []
        for _ in range(repeats + 1):
            world.sum(torch.zeros(1))  # synchronises the workers
            start = time.perf_counter()
            world.average([tensor])
            seconds.append(time.perf_counter() - start)
        all_seconds.append(seconds[1:])
    return all_seconds


def time_steps(world: World, config: str, data: Mapping[int, StageData], repeats: int) -> list[dict[str, list[float]]]:
    """For each batch size: seconds of a step without reading, and of reading its slices, one per repetition."""
    return [_time_steps(world, RunConfig.from_json(config), batch, data[batch], repeats) for batch in data]


def _time_steps(world: World, config: RunConfig, batch: int, data: StageData, repeats: int) -> dict[str, list[float]]:
    config = override(config, {"train.batch_size": batch})
    seeded(config)
    engine = engine_of(config, data, world)
    batches = StageBatches(config, engine.stage, data.train, engine.system.sample, world)
    computing, reading = [], []
    for repetition in range(repeats + 1):
        start = time.perf_counter()
        consume(batches.epoch(engine.state.position.epoch))
        after_reading = time.perf_counter()
        engine.epoch()
        end = time.perf_counter()
        if repetition > 0:
            reading.append((after_reading - start) / batches.steps)
            computing.append((end - after_reading) / batches.steps - reading[-1])
    return {"computing": computing, "reading": reading}


def reading_rate(world: World, config: str, data: StageData) -> float:
    """Slices per second that one process reads; the first pass, which reads from disk, is not counted."""
    settled_config = RunConfig.from_json(config)
    engine = engine_of(settled_config, data, world)
    batches = StageBatches(settled_config, engine.stage, data.train, engine.system.sample, world)
    consume(batches.epoch(0))
    start = time.perf_counter()
    consume(batches.epoch(1))
    return batches.steps * batches.batch_size / (time.perf_counter() - start)


def engine_of(config: RunConfig, data: StageData, world: World) -> Engine:
    system = build_system(config)
    return Engine(system, stage_of(system, config), data, config, prepare_state(system, config, world), world)


def consume(batches: Iterator[Batch]) -> None:
    for _ in batches:
        pass


# Counts, for machines that are not available.


class Operators(TorchDispatchMode):
    """Counts the operators that PyTorch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


def count_operations(world: World, config: str, data: StageData) -> tuple[float, int]:
    """Floating-point operations and operators of a step over one example, after a first step that measures balances."""
    alone = override(RunConfig.from_json(config), {"train.batch_size": 1})
    seeded(alone)
    engine = engine_of(alone, data, world)
    batch = next(engine.batches())

    def step() -> None:
        for phase in engine.stage.phases:
            train_step(engine.system, phase, batch, alone, engine.state, engine.world)
        engine.state.position.step += 1

    step()
    with FlopCounterMode(display=False) as flops, Operators() as operators:
        step()
    return float(flops.get_total_flops()), operators.count


@dataclass(frozen=True, slots=True)
class OnGpus:
    """A recipe's step on GPUs, from its counts and the assumptions above."""

    messages: tuple[float, ...]
    flops: float
    """Floating-point operations per example."""
    operators: int
    reading: float
    """Slices per second that a process of this machine reads."""
    batch: int
    """The recipe's own."""

    @classmethod
    def of(cls, config: RunConfig, data: StageData) -> OnGpus:
        system = build_system(config)
        flops, operators = run_processes(1, count_operations, config.to_json(), data)
        reading = run_processes(1, reading_rate, config.to_json(), data)
        messages = messages_of(system, stage_of(system, config).phases)
        return cls(messages, flops, operators, reading, config.train.batch_size)

    def __str__(self) -> str:
        megabytes = " + ".join(f"{message / 1e6:.2f}" for message in self.messages)
        return (
            f"{megabytes} MB of gradients, {self.flops / 1e9:.0f} GFLOP an image, {self.operators} operators a step, "
            f"{self.reading:.0f} images/s read by a process"
        )

    def step(self, cluster: Cluster, workers: int) -> Step:
        compute = Compute(self.flops / (PEAK * UTILISATION), floor=self.operators * OPERATOR_SECONDS)
        return Step(compute, self.messages, cluster.link(workers), self.reading, GPU_LOADERS)

    def speedup(self, cluster: Cluster, workers: int, *, weak: bool) -> float:
        """Speed-up over one GPU, with the recipe's batch for all GPUs together, or for each where `weak`."""
        return self.step(cluster, workers).speedup(workers, self.batch, weak=weak)

    def sharing(self, largest: int) -> list[int]:
        """Numbers of workers that share the recipe's batch evenly."""
        return [workers for workers in range(1, largest + 1) if self.batch % workers == 0]

    def rows(self, name: str) -> Iterator[list[str]]:
        """Table rows: the recipe's batch shared by 8 and by the most workers, then for each of 8 and 64."""
        for cluster in CLUSTERS:
            for workers in (8, self.sharing(64)[-1]):
                yield self._row(name, cluster, workers, weak=False)
            for workers in (8, 64):
                yield self._row(name, cluster, workers, weak=True)

    def _row(self, name: str, cluster: Cluster, workers: int, *, weak: bool) -> list[str]:
        step, whole = self.step(cluster, workers), self.batch * (workers if weak else 1)
        milliseconds = [f"{1000 * seconds:.2f}" for seconds in step.parts(workers, whole).values()]
        speedup = f"{self.speedup(cluster, workers, weak=weak):.1f}"
        return [name, cluster.name, str(workers), str(whole), *milliseconds, speedup, step.limit(workers, whole)]


# Models and output.


def fitted_link(sizes: Sequence[int], seconds: Sequence[Sequence[float]]) -> Link:
    """The link of a two-worker allreduce: two rounds, and each byte sent once."""
    fixed, per_byte = fitted_line({size: median(times) for size, times in zip(sizes, seconds, strict=True)})
    return Link(1 / per_byte, fixed / 2)


def fitted_step(config: RunConfig, batches: Sequence[int], measured: Sequence[Mapping[str, list]], link: Link) -> Step:
    """The model of a step, from measurements of one worker."""
    fixed, per_example = fitted_line(
        {batch: median(seconds["computing"]) for batch, seconds in zip(batches, measured, strict=True)}
    )
    rates = [batch / median(seconds["reading"]) for batch, seconds in zip(batches, measured, strict=True)]
    system = build_system(config)
    messages = messages_of(system, stage_of(system, config).phases)
    return Step(Compute(per_example, fixed), messages, link, median(rates))


def check_model(
    config: RunConfig, data: Mapping[int, StageData], link: Link, repeats: int
) -> tuple[Step, list[Comparison]]:
    """The model of this recipe on this machine, and comparisons with measurements of one and two workers.

    Args:
        data: batch size to slices of an epoch, ascending; the largest two are for two workers.
    """
    *single_batches, _ = data
    *_, half, whole = data
    alone = run_processes(1, time_steps, config.to_json(), {batch: data[batch] for batch in single_batches}, repeats)
    pairs = run_processes(2, time_steps, config.to_json(), {batch: data[batch] for batch in (half, whole)}, repeats)
    step = fitted_step(config, single_batches, alone, link)
    rows = []
    for workers, batch, times in ((1, half, alone[-1]), (2, half, pairs[0]), (2, whole, pairs[1])):
        seconds = [compute + read for compute, read in zip(times["computing"], times["reading"], strict=True)]
        what = f"a step of {config.recipe}, {workers} worker(s), batch {batch}: the model against what was measured"
        rows.append(
            compare_seconds(what, seconds, [step.seconds(workers, batch)] * len(seconds), amount=1, unit="steps")
        )
    return step, rows


def describe(step: Step) -> str:
    """The model's constants for one worker."""
    compute = step.compute
    return (
        f"{1000 * compute.fixed:.0f} ms a step and {1000 * compute.per_example:.1f} ms an image, "
        f"{sum(step.messages) / 1e6:.2f} MB of gradients, {step.reading:.0f} images/s read by a process"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    for line in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(line)} |")
    print(flush=True)


def plot_scaling(
    file: Path, sizes: Sequence[int], measured: Sequence[float], link: Link, gpus: Mapping[str, OnGpus]
) -> None:
    """Plot measured averaging times in ms with the model's line, and the modelled speed-ups on GPUs."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import ScalarFormatter

    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    axes[0].plot(sizes, measured, "o", label="measured")
    axes[0].plot(sizes, [1000 * link.allreduce(2, size) for size in sizes], label="model")
    axes[0].set(xscale="log", yscale="log", xlabel="bytes", ylabel="ms", title="Averaging, two local processes")
    axes[0].legend(frameon=False)
    for axis, weak in ((axes[1], False), (axes[2], True)):
        axis.plot([1, 64], [1, 64], color="0.8", zorder=0)
        for colour, (name, recipe_on_gpus) in zip(("C0", "C1"), gpus.items(), strict=True):
            workers = [2**power for power in range(7)] if weak else recipe_on_gpus.sharing(64)
            for cluster, style in zip(CLUSTERS, (".-", ".:"), strict=True):
                speedups = [recipe_on_gpus.speedup(cluster, n, weak=weak) for n in workers]
                axis.plot(workers, speedups, style, color=colour, label=f"{name}; {cluster.name}")
        title = "Batch of each: the recipe's" if weak else "Batch of all: the recipe's"
        axis.set(xlabel="H100s", ylabel="times the images/s of one", title=title)
        for scale, ticks in ((axis.set_xscale, axis.xaxis), (axis.set_yscale, axis.yaxis)):
            scale("log", base=2)
            ticks.set_major_formatter(ScalarFormatter())
    axes[1].legend(frameon=False, fontsize=6.5)
    figure.savefig(file, dpi=110)
    plt.close(figure)


class DataMaker:
    """Makes slices of noise, each set in its own folder."""

    def __init__(self, folder: Path) -> None:
        self.places = (folder / str(number) for number in count())

    def of(self, config: RunConfig, slices: int) -> StageData:
        place = next(self.places)
        place.mkdir()
        return made_stage_data(place, config, slices)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--steps", type=int, default=10, help="steps an epoch, a multiple of train.balance_every")
    options.add_argument("--repeats", type=int, default=3, help="epochs of each that are measured")
    options.add_argument("--figure", type=Path, metavar="FILE", help="draw there")
    args = options.parse_args()
    size, paper, batches, sizes, averaging_repeats = "_small", "", (4, 8, 16, 32), MESSAGES, 20
    if args.quick:
        size, paper, batches, sizes, averaging_repeats = "_debug", "_debug", (2, 4, 8), MESSAGES[:3], 2
        args.steps, args.repeats = 2, 1
    torch.set_num_threads(1)
    print(f"scaling: {machine(torch.device('cpu'))} a worker", flush=True)
    comparisons: list[Comparison] = []
    gpus: dict[str, OnGpus] = {}
    with tempfile.TemporaryDirectory(prefix="ganseg-benchmark-") as folder:
        data = DataMaker(Path(folder))
        seconds = run_processes(2, time_averaging, sizes, averaging_repeats)
        link = fitted_link(sizes, seconds)
        print(f"averaging over two processes: {link.bandwidth / 1e9:.2f} GB/s, {1e6 * link.latency:.0f} us a round")
        measured = [1000 * median(times) for times in seconds]
        table(["KiB", "ms"], [[f"{s / 1024:g}", f"{ms:.3f}"] for s, ms in zip(sizes, measured, strict=True)])
        for name in STEPS:
            config = settled(f"{name}{size}")
            slices = {batch: data.of(config, batch * args.steps) for batch in batches}
            step, checks = check_model(config, slices, link, args.repeats)
            comparisons += checks
            print(f"{config.recipe}: {describe(step)}", flush=True)
        for name in STEPS:
            config = settled(f"{name}{paper}")
            gpus[name] = OnGpus.of(config, data.of(config, 3 * config.train.batch_size))
            print(f"{config.recipe}: {gpus[name]}", flush=True)
    report(comparisons, args)
    parts = ["compute ms", "network ms", "reading ms"]
    header = ["recipe", "H100s", "workers", "batch of all", *parts, "speed-up", "limit"]
    table(header, [row for name, recipe_on_gpus in gpus.items() for row in recipe_on_gpus.rows(name)])
    if args.figure is not None:
        plot_scaling(args.figure, sizes, measured, link, gpus)


if __name__ == "__main__":
    main()
