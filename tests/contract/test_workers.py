"""Two workers with half a batch each train as one with all of it.

Their gradients are sums of the same per-example terms in another order, so they agree to float32 rounding and
not to the bit. Losses agree to a hundred roundings (6e-8 each); gradients, which instance normalisation divides
by the spread of nearly flat features, to a few thousand of a network's largest. Over many steps Adam divides
rounding by rounding where a gradient is nearly nothing, so a whole run is held to its losses and scores, loosely.
A mistake in the averaging, or a loss that is no mean over examples, is off by tens of per cent in the first step.
"""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.augment import augment
from ganseg_dist.data.cohort import Cohort
from ganseg_dist.engine.checkpoint import Checkpoints
from ganseg_dist.engine.loader import StageBatches
from ganseg_dist.engine.step import train_step
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.engine.trainer import Trainer, prepare_state, seeded, train_member
from ganseg_dist.engine.world import World
from ganseg_dist.planning.prepare import Prepared
from ganseg_dist.systems import build_system, recipe
from tests.contract import members
from tests.contract.conftest import OTHER_SYSTEMS, SHORT
from tests.tiny import prepare, resolved

GRADIENT_TOLERANCE = 5e-4
LOSS_TOLERANCE = 1e-5
RUN_TOLERANCE = 2e-2


@pytest.fixture(
    scope="module",
    params=[
        ("ganet_seg", "corrected"),
        pytest.param(("ganet_seg", "paper"), marks=pytest.mark.slow),
        *(pytest.param(system, marks=pytest.mark.slow) for system in OTHER_SYSTEMS.items()),
    ],
    ids=str,
)
def measured(request, cohort: Cohort, store: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """Measurements of a single process, then of each rank of two."""
    name, variant = request.param
    changes = {"system.reading": variant} if isinstance(variant, str) else variant
    config = resolved(recipe(f"{name}_debug"), cohort, SHORT | {"train.ema": None} | changes)
    prepared = prepare(cohort, config, store)
    folder = tmp_path_factory.mktemp("workers")
    alone = members.PROCESSES.Process(target=measure, args=(folder / "alone.pt", config, prepared))
    pair = [
        members.PROCESSES.Process(target=measure_in_a_pair, args=(folder, rank, config, prepared)) for rank in (0, 1)
    ]
    for process in (alone, *pair):
        process.start()
    for process in (alone, *pair):
        process.join(timeout=120)
    assert [process.exitcode for process in (alone, *pair)] == [0, 0, 0]
    return [torch.load(folder / name, weights_only=True) for name in ("alone.pt", "0.pt", "1.pt")]


def measure_in_a_pair(folder: Path, rank: int, config: RunConfig, prepared: Prepared) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    measure(folder / f"{rank}.pt", config, prepared)
    dist.destroy_process_group()


def measure(out: Path, config: RunConfig, prepared: Prepared) -> None:
    """The first step of every phase from fresh weights, validation before training, and a whole short run."""
    world = World.joined()
    found: dict = {"size": world.size, "phases": {}, "scores": {}}
    data = prepared.open(config)
    seeded(config)
    for stage in (stage for stage in build_system(config).stages):
        for phase in stage.phases:
            seeded(config)
            system = build_system(config)
            state = prepare_state(system, config, world)
            batches = StageBatches(config, stage, data[stage.source].train, system.sample, world)
            batch = augment(next(batches.epoch(0)))
            terms = train_step(system, phase, batch, override(config, {"train.clip_norm": None}), state, world)
            values = torch.stack([term.float() for term in terms.values()])
            world.average([values])
            found["phases"][phase.name] = {
                "examples": len(batch.image),
                "terms": dict(zip(terms, values.tolist(), strict=True)),
                "gradients": first_moments(state, phase.trains),
                "balanced": phase.balance is not None,
                "norms": dict(state.balances[phase.name].norms) if phase.balance else {},
            }
        found["scores"][stage.name] = Trainer(system, stage, data[stage.source], config, state, world).validate()
    final = train_member(config, prepared.open(config), world, Tracker(), Checkpoints())
    found["history"] = list(map(asdict, final.position.history))
    found["weights"] = {
        f"{name}.{key}": value for name, net in final.networks.items() for key, value in net.state_dict().items()
    }
    torch.save(found, out)


def first_moments(state, names):
    """After one step of Adam its first moment is (1 - beta_1) times the gradient that it was given."""
    return {
        name: torch.cat([moments["exp_avg"].flatten() for moments in state.optimizers[name].state.values()])
        for name in names
    }


def test_train_step_of_two_workers_matches_single_worker(measured):
    assert measured[0]["phases"]
    for phase, one in measured[0]["phases"].items():
        two, other = (found["phases"][phase] for found in measured[1:])
        assert (one["examples"], two["examples"], other["examples"]) == (16, 8, 8)
        assert two["terms"] == pytest.approx(one["terms"], rel=LOSS_TOLERANCE), phase
        assert two["norms"] == pytest.approx(one["norms"], rel=GRADIENT_TOLERANCE), phase
        assert bool(one["norms"]) == one["balanced"]
        for name, gradient in one["gradients"].items():
            largest = gradient.abs().max()
            assert largest > 0, (phase, name)
            assert (two["gradients"][name] - gradient).abs().max() <= GRADIENT_TOLERANCE * largest, (phase, name)
            assert torch.equal(two["gradients"][name], other["gradients"][name])


def test_validate_of_two_workers_matches_single_worker(measured):
    one, two, other = (found["scores"] for found in measured)
    assert one
    for stage, scores in one.items():
        assert scores
        assert two[stage] == pytest.approx(scores, rel=1e-6)
        assert two[stage] == other[stage]


def test_train_member_of_two_workers_matches_single_worker(measured):
    one, two, other = (found["history"] for found in measured)
    assert len(one) >= 5
    for alone, paired in zip(one, two, strict=True):
        assert paired["step"] == alone["step"]
        assert paired["losses"] == pytest.approx(alone["losses"], rel=RUN_TOLERANCE, nan_ok=False)
        assert paired["scores"] == pytest.approx(alone["scores"], abs=RUN_TOLERANCE)
    assert two == other
    assert members.differing(measured[1]["weights"], measured[2]["weights"]) == []
