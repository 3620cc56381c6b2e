import math

import numpy as np
import pytest
import torch

from ganseg_dist.data.slices import SliceSet
from ganseg_dist.engine.checkpoint import Checkpoints
from ganseg_dist.engine.epochs import end_stage, finish_epoch, set_learning_rate
from ganseg_dist.engine.state import Epoch
from ganseg_dist.engine.step import StepLog, train_only, train_step
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.engine.trainer import StageData, Trainer, train
from ganseg_dist.engine.validate import evaluation_mode
from ganseg_dist.engine.world import World
from ganseg_dist.errors import TrainingDiverged
from ganseg_dist.systems.base import Balance, Monitor, Phase, Ratio
from tests.engine.toys import FIRST, SECOND, Toy, batch, config, stage, state_of


class RecordingTracker(Tracker):
    """Keeps what the trainer reports."""

    def __init__(self):
        self.values, self.scores, self.places = [], [], []

    def progress(self, progress):
        self.places.append((progress.epoch, progress.batch, progress.batches))

    def steps(self, first_step, values):
        self.values.append((first_step, values))

    def epoch(self, step, scores):
        self.scores.append((step, scores))


@pytest.fixture
def data(stage_data):
    """Two training cases and the validation case of the phantom."""
    few = SliceSet.open([case.folder for case in stage_data.train.cases[:2]], ("t1",), ("wt",))
    return StageData(few, SliceSet.open([case.folder for case in stage_data.validation.cases], ("t1",), ("wt",)))


def fit(system, data, state, settings, **changes):
    tracker = changes.pop("tracker", Tracker())
    Trainer(system, system.stages[0], data, settings, state, tracker=tracker).fit(**changes)


# One step


def test_train_step_updates_by_weighted_sum_of_terms():
    system = Toy()
    state = state_of(system)
    logged = train_step(system, FIRST, batch(), config(), state, World())
    # d(product + 0.5 * 2 * product) / d first = 2 * second = 4; Adam keeps (1 - beta_1) of it.
    (moments,) = state.optimizers["first"].state.values()
    assert moments["exp_avg"].item() == pytest.approx(0.1 * 4)
    assert system.networks["first"].value.item() < 1
    assert system.networks["second"].value.item() == 2
    assert {name: value.item() for name, value in logged.items()} == {"first/product": 2, "first/spread": 4}


def test_train_step_skips_and_does_not_log_zero_weight_term():
    system = Toy()
    state = state_of(system)
    logged = train_step(system, SECOND, batch(), config(), state, World())
    (moments,) = state.optimizers["second"].state.values()
    assert moments["exp_avg"].item() == pytest.approx(0.1 * 1), "d product / d second = first = 1"
    assert list(logged) == ["second/product"]


def test_train_step_balance_keeps_zero_weight_term_off():
    inverse = Balance("first.value", reference="product", rule="inverse")
    phase = Phase("first", ("first",), {"product": 1.0, "spread": 0.0}, balance=inverse)
    system = Toy(stage(phases=(phase,)))
    logged = train_step(system, phase, batch(), config(), state_of(system), World())
    assert list(logged) == ["first/product", "first/weight_product"]


def test_train_step_clips_gradients_per_network():
    system = Toy()
    settings = config(**{"train.clip_norm": 0.5})
    state = state_of(system)
    train_step(system, FIRST, batch(), settings, state, World())
    (moments,) = state.optimizers["first"].state.values()
    assert moments["exp_avg"].item() == pytest.approx(0.1 * 0.5, rel=1e-4)


def test_train_only_freezes_other_networks_and_step_clears_gradients():
    system = Toy()
    train_only(system.networks, ("second",))
    assert [net.training for net in system.networks.values()] == [False, True]
    assert [net.value.requires_grad for net in system.networks.values()] == [False, True]
    train_step(system, SECOND, batch(), config(), state_of(system), World())
    assert all(net.value.grad is None for net in system.networks.values())


def test_train_step_ema_decay_warms_up():
    """After n updates the decay is (1 + n) / (10 + n), until that exceeds the configured one: here from n = 4."""
    system = Toy()
    settings = config(**{"train.ema": 0.35})
    state = state_of(system, **{"train.ema": 0.35})
    seen = []
    for _ in range(7):
        train_step(system, FIRST, batch(), settings, state, World())
        seen.append(system.networks["first"].value.item())
    expected = seen[0]
    for decay, value in zip([2 / 11, 3 / 12, 4 / 13, 0.35, 0.35, 0.35], seen[1:], strict=True):
        expected = decay * expected + (1 - decay) * value
    assert state.ema["first"].module.value.item() == pytest.approx(expected)
    assert state.ema["second"].module.value.item() == 2, "a network that no step trained keeps its weights"


def test_evaluation_mode_uses_ema_weights_and_restores():
    system = Toy()
    state = state_of(system, **{"train.ema": 0.5})
    state.ema["first"].module.value.data.fill_(7.0)
    with evaluation_mode(system, state):
        assert system.networks["first"].value.item() == 7
        assert not system.networks["first"].training
    assert system.networks["first"].value.item() == 1


# The learning rate


def test_set_learning_rate_follows_power_decay():
    system = Toy(stage(epochs=30, learning_rate=6e-5))
    state = state_of(system)
    rates = []
    for epoch in (0, 10, 29):
        state.position.epoch = epoch
        set_learning_rate(state, system.stages[0], config(**{"train.learning_rate_power": 0.75}))
        rates.append(state.optimizers["first"].param_groups[0]["lr"])
    assert rates == pytest.approx([6e-5, 6e-5 * (2 / 3) ** 0.75, 6e-5 * (1 / 30) ** 0.75])


def test_set_learning_rate_ignores_networks_not_in_stage():
    system = Toy(stage(phases=(FIRST,), learning_rate=0.5))
    state = state_of(system)
    before = state.optimizers["second"].param_groups[0]["lr"]
    set_learning_rate(state, system.stages[0], config())
    assert state.optimizers["first"].param_groups[0]["lr"] == 0.5
    assert state.optimizers["second"].param_groups[0]["lr"] == before


# Epochs and stages


def finish(state, definition, value, weight, score="accuracy"):
    state.networks["first"].value.data.fill_(weight)
    finish_epoch(state, definition, {}, {score: value})


@pytest.mark.parametrize(("score", "kept"), [("accuracy", 20.0), ("cross_entropy", 30.0)])
def test_end_stage_restores_best_weights(score, kept):
    definition = stage(scores=(score,), monitor=Monitor((score,)))
    system = Toy(definition)
    state = state_of(system)
    for value, weight in ((0.5, 10.0), (0.9, 20.0), (0.2, 30.0), (0.6, 40.0)):
        finish(state, definition, value, weight, score)
    end_stage(state, definition, config())
    assert system.networks["first"].value.item() == kept
    position = state.position
    assert (position.stage, position.epoch, position.best_score, position.best_epoch) == (1, 0, None, None)
    assert state.best == {}


def test_end_stage_keeps_last_weights_when_configured():
    definition = stage()
    system = Toy(definition)
    state = state_of(system)
    for value, weight in ((0.9, 20.0), (0.2, 30.0)):
        finish(state, definition, value, weight)
    end_stage(state, definition, config(**{"train.keep": "last"}))
    assert system.networks["first"].value.item() == 30
    assert state.best == {}


@pytest.mark.parametrize("keep", ["best", "last"])
def test_end_stage_keeps_ema_weights(keep):
    definition = stage()
    system = Toy(definition)
    state = state_of(system, **{"train.ema": 0.5})
    state.ema["first"].module.value.data.fill_(5.0)
    finish(state, definition, 0.5, 10.0)
    end_stage(state, definition, config(**{"train.ema": 0.5, "train.keep": keep}))
    assert system.networks["first"].value.item() == 5
    assert state.ema["first"].module.value.item() == 5


def test_end_stage_without_validation_keeps_last_ema_weights():
    definition = stage()
    system = Toy(definition)
    state = state_of(system, **{"train.ema": 0.5})
    state.ema["first"].module.value.data.fill_(5.0)
    finish_epoch(state, definition, {}, {})
    end_stage(state, definition, config(**{"train.ema": 0.5}))
    assert system.networks["first"].value.item() == 5


def test_finish_epoch_ignores_epochs_before_monitor_start():
    definition = stage(monitor=Monitor(("accuracy",), since=1))
    system = Toy(definition)
    state = state_of(system)
    for value, weight in ((0.9, 10.0), (0.3, 20.0), (0.2, 30.0)):
        finish(state, definition, value, weight)
    end_stage(state, definition, config())
    assert system.networks["first"].value.item() == 20


def test_finish_epoch_stops_after_patience():
    definition = stage(epochs=100, monitor=Monitor(("cross_entropy",), patience=3))
    state = state_of(Toy(definition))
    stopped = []
    for value in (0.5, 0.4, 0.6, 0.39, 0.7, 0.39, 0.5):
        finish(state, definition, value, 0.0, "cross_entropy")
        stopped.append(state.position.stopped)
    assert stopped == [False, False, False, False, False, False, True]
    assert state.position.best_epoch == 3


def test_finish_epoch_appends_epoch_record():
    definition = stage()
    state = state_of(Toy(definition))
    state.position.step = 12
    finish_epoch(state, definition, {"first/product": 2.0}, {"accuracy": 0.5})
    assert state.position.history == [
        Epoch("toy", 0, step=12, workers=1, losses={"first/product": 2.0}, scores={"accuracy": 0.5})
    ]


# The loop


def test_trainer_steps_phases_when_due_and_reports_to_tracker(data):
    system, tracker = Toy(stage(epochs=2)), RecordingTracker()
    settings = config(**{"train.batch_size": 4})
    state = state_of(system)
    fit(system, data, state, settings, tracker=tracker)
    (first_step, values), (second_step, _) = tracker.values
    length = len(values["first/product"])
    assert length >= 4
    assert (first_step, second_step) == (0, length)
    assert all(math.isfinite(value) for value in values["first/product"])
    assert [math.isnan(value) for value in values["second/product"]] == [bool(index % 2) for index in range(length)]
    assert tracker.places == [(epoch, done + 1, length) for epoch in (0, 1) for done in range(length)]
    assert [step for step, _ in tracker.scores] == [length, 2 * length]
    assert tracker.scores[0][1].keys() >= {"toy/accuracy", "toy/first/product", "toy/second/product"}
    assert state.position.step == 2 * length


def test_trainer_resumed_stage_equals_uninterrupted_stage(data):
    settings = config(**{"train.batch_size": 4})
    whole, parts = Toy(stage()), Toy(stage())
    one, other = state_of(whole), state_of(parts)
    fit(whole, data, one, settings)
    for until in (1, 3, 99):
        fit(parts, data, other, settings, until=until)
        assert other.position.epoch == min(until, 4)
    assert torch.equal(parts.networks["first"].value, whole.networks["first"].value)
    assert other.position == one.position


def test_train_continues_with_next_stage_after_early_stop(data):
    patient = stage(epochs=50, monitor=Monitor(("accuracy",), patience=2))  # `first` only ever falls
    system = Toy(patient, stage(name="next", epochs=1))
    state = train(
        system, {"cohort": data}, config(**{"train.batch_size": 8}),
        world=World(), tracker=Tracker(), checkpoints=Checkpoints(),
    )  # fmt: skip
    assert [(record.stage, record.epoch) for record in state.position.history] == [
        ("toy", 0), ("toy", 1), ("toy", 2), ("next", 0),
    ]  # fmt: skip
    assert state.position.stage == 2


def test_trainer_names_diverged_loss(data):
    class Diverging(Toy):
        def losses(self, phase, batch):
            terms = super().losses(phase, batch)
            return {**terms, "spread": terms["spread"] * math.inf}

    with pytest.raises(TrainingDiverged, match=r"stage toy, epoch 0: the loss first/spread became inf; lower"):
        fit(Diverging(), data, state_of(Toy()), config(**{"train.batch_size": 4}))


def test_trainer_names_weight_that_becomes_infinite_in_last_step(data):
    """The loss was finite, and no later step would show the weight."""

    class Leaping(Toy):
        def losses(self, phase, batch):
            terms = super().losses(phase, batch)
            self.networks["first"].value.data.fill_(math.inf)
            return terms

    system = Leaping(stage(epochs=1, phases=(FIRST,)))
    with pytest.raises(TrainingDiverged, match=r"stage toy, epoch 0: first\.value became NaN or infinite; lower"):
        fit(system, data, state_of(system), config(**{"train.batch_size": 10_000}))


def test_trainer_names_score_that_is_nan(data):
    class NanScore(Toy):
        def validate(self, stage, batch):
            ones = torch.ones(len(batch.image), dtype=torch.float64)
            return {"accuracy": Ratio(ones * math.nan, ones, ones)}

    with pytest.raises(TrainingDiverged, match=r"stage toy, epoch 0: the score accuracy became nan; lower"):
        fit(NanScore(), data, state_of(Toy()), config(**{"train.batch_size": 4}))


def test_trainer_without_validation_cases_records_losses_only(data):
    without_validation = StageData(data.train, SliceSet.open([], ("t1",), ("wt",)))
    system = Toy(stage(epochs=1))
    state = state_of(system)
    fit(system, without_validation, state, config(**{"train.batch_size": 4}))
    assert state.position.history[0].scores == {}
    assert state.position.history[0].losses


def test_step_log_close_averages_steps_and_is_empty_without():
    log = StepLog(7)
    assert log.close("toy", 0, World()) == {}
    log.add(0, {"a": torch.tensor(1.0)})
    log.add(2, {"a": torch.tensor(3.0)})
    assert log.close("toy", 0, World()) == {"a": 2.0}
    assert np.array_equal(log.values["a"], [1.0, math.nan, 3.0], equal_nan=True)


def test_trainer_skips_phase_outside_its_epochs(data):
    later = Phase("first", ("first",), {"product": 1.0, "spread": 0.0}, epochs=range(1, 2))
    system = Toy(stage(phases=(later,), epochs=1))
    state = state_of(system)
    fit(system, data, state, config(**{"train.batch_size": 4}))
    assert system.networks["first"].value.item() == 1
