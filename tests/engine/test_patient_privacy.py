import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ganseg_dist.config import override
from ganseg_dist.data.batch import Batch
from ganseg_dist.engine.patient_privacy import PatientBatches, PatientPrivacy, validate_patient_privacy
from ganseg_dist.engine.step import train_step
from ganseg_dist.engine.trainer import Trainer, prepare_state
from ganseg_dist.engine.world import World
from ganseg_dist.errors import ConfigError
from ganseg_dist.systems import build_system, recipe
from ganseg_dist.systems.base import Balance, Monitor, Phase
from tests.engine.toys import Toy, config, stage, state_of

opacus = pytest.importorskip("opacus", reason="opacus is in the extra `privacy`")

PLAIN = Phase("plain", ("first",), {"slope": 1.0})


class SlopeNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))


class SlopeSystem(Toy):
    """The loss is w x, whose gradient for a patient is the mean of the patient's x."""

    def __init__(self):
        super().__init__(stage(phases=(PLAIN,)))
        self.networks = {"first": SlopeNetwork()}

    def losses(self, phase, batch):
        return {"slope": (batch.image[:, 0, 0] @ self.networks["first"].weight).mean()}


def batch_of(*rows):
    """Examples of (case, x, x)."""
    case, *x = zip(*rows, strict=True) if rows else ((), (), ())
    image = torch.tensor(x, dtype=torch.float32).T.reshape(len(rows), 1, 1, 2)
    case = torch.tensor(case, dtype=torch.int64)
    return Batch(image, torch.zeros_like(image), case, torch.zeros_like(case), {"noise": torch.zeros(len(rows), 1)})


def zero_entropy(count):
    """Bytes from which each noise value is 0 up to 1e-16 deviations."""
    return b"\xff" * count


def privacy(**changes):
    """Privacy over three patients, the last with two cases."""
    fields = {
        "patient_of": np.array([0, 1, 2, 2]), "epochs": (4,), "steps": 2, "expected": 2.0, "clip_norm": 1.0,
        "noise_multiplier": 1.0, "delta": 1e-5, "entropy": zero_entropy,
    }  # fmt: skip
    return PatientPrivacy(**{**fields, **changes})


def gradient_of(batch, **changes):
    """The step's gradient, (2,)."""
    system = SlopeSystem()
    weight = system.networks["first"].weight

    def backpropagate(part):
        loss = system.losses("plain", part)["slope"]
        loss.backward()
        return {"plain/slope": loss.detach() + len(part.image)}

    logged = privacy(**changes).gradients(batch, [weight], backpropagate)
    return weight.grad.numpy(), logged


# The gradient


def test_gradients_are_clipped_per_patient_and_divided_by_expected_number():
    """Patient 0: mean (3, 4), clipped to (0.6, 0.8); patient 1: (0, 0.5). Their sum over the two that are expected."""
    batch = batch_of((0, 3.0, 0.0), (1, 0.0, 0.5), (0, 3.0, 8.0))
    gradient, logged = gradient_of(batch)
    assert gradient.tolist() == pytest.approx([0.3, 0.65])
    assert logged["plain/slope"].item() == pytest.approx((2 + 1) / 2), "the mean over patients"


def test_gradients_treat_cases_of_a_patient_as_one():
    gradient, _ = gradient_of(batch_of((2, 30.0, 0.0), (3, 30.0, 0.0)))
    assert gradient.tolist() == pytest.approx([0.5, 0])


@pytest.mark.parametrize("gone", [0, 1, 2])
@pytest.mark.parametrize("size", [1.0, 1e6, math.inf])
def test_gradients_sensitivity_to_one_patient_is_bounded_by_clip_norm(gone, size):
    rng = np.random.default_rng(0)
    rows = [(case, *(rng.normal(size=2) * 3)) for case in (0, 1, 2, 3, 0, 1)]
    patient_of = privacy().patient_of
    rows = [(case, *(size * x for x in xs)) if patient_of[case] == gone else (case, *xs) for case, *xs in rows]
    without = [row for row in rows if patient_of[row[0]] != gone]
    one, other = (gradient_of(batch_of(*kept), clip_norm=0.7)[0] for kept in (rows, without))
    assert np.linalg.norm(one - other) * 2.0 <= 0.7 + 1e-5
    assert np.isfinite(one).all()


def test_gradients_without_patients_are_noise_only():
    """z C / expected = 3 * 0.5 / 2."""
    wide = [nn.Parameter(torch.zeros(100, 100)), nn.Parameter(torch.zeros(5))]
    entropy = np.random.default_rng(0).bytes
    mechanism = privacy(noise_multiplier=3.0, clip_norm=0.5, entropy=entropy)
    assert mechanism.gradients(batch_of(), wide, lambda part: pytest.fail("no patient is sampled")) == {}
    assert wide[0].grad.std().item() == pytest.approx(0.75, rel=0.05)
    assert (wide[1].grad != 0).all()


def test_gradients_add_noise_to_unused_parameter():
    unused, used = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2))

    def backpropagate(part):
        (used * 2).sum().backward()
        return {}

    privacy(entropy=np.random.default_rng(0).bytes).gradients(batch_of((0, 0.0, 0.0)), [unused, used], backpropagate)
    assert (unused.grad != 0).all()


def test_train_step_uses_noised_gradient():
    system = SlopeSystem()
    state = state_of(system)
    logged = train_step(system, PLAIN, batch_of((0, 3.0, 4.0)), config(), state, World(), privacy())
    (moments,) = state.optimizers["first"].state.values()
    assert moments["exp_avg"].tolist() == pytest.approx([0.1 * 0.3, 0.1 * 0.4])
    assert logged["plain/slope"].item() == 0


# Sampling


def private_config(debug_config, **changes):
    fields = {"system.gan": False, "train.keep": "last", "train.privacy.noise_multiplier": 1.0, "train.epochs": 2}
    return override(debug_config, {**fields, "train.privacy.patients_per_step": 2.0, **changes})


def batches_of(settings, data, entropy=None):
    system = build_system(settings)
    mechanism = PatientPrivacy.of(settings, system, data.train, World())
    mechanism = mechanism if entropy is None else replace(mechanism, entropy=entropy)
    return PatientBatches(settings, system.stages[0], data.train, system.sample, World(), mechanism), mechanism


def test_patient_batches_sample_patients_independently_with_equal_rate(debug_config, stage_data):
    settings = private_config(debug_config, **{"train.privacy.slices_per_patient": 1})
    batches, mechanism = batches_of(settings, stage_data, np.random.default_rng(0).bytes)
    batches.steps = 400
    assert mechanism.rate == pytest.approx(2 / mechanism.patients)
    sampled = np.zeros((400, mechanism.patients), bool)
    for step, batch in enumerate(batches.epoch(0)):
        sampled[step, mechanism.patient_of[batch.case.numpy()]] = True
        assert len(batch.image) == sampled[step].sum(), "one slice of each"
    deviation = math.sqrt(mechanism.rate * (1 - mechanism.rate) / 400)
    assert np.abs(sampled.mean(0) - mechanism.rate).max() < 4 * deviation
    together = np.corrcoef(sampled.T)[np.triu_indices(mechanism.patients, 1)]
    assert np.abs(together).max() < 4 / math.sqrt(400)
    assert (sampled.sum(1) == 0).any(), "a step may be empty"


def test_patient_privacy_steps_cover_each_patient_once_per_epoch_on_average(debug_config, stage_data):
    _, mechanism = batches_of(private_config(debug_config), stage_data)
    assert mechanism.patients == len({case.patient for case in stage_data.train.cases})
    assert mechanism.steps == round(mechanism.patients / 2)


def test_patient_batches_limit_slices_per_patient_and_blank_rate(debug_config, stage_data):
    changes = {"train.privacy.slices_per_patient": 3, "data.blank_rate": 0.0}
    batches, mechanism = batches_of(private_config(debug_config, **changes), stage_data)
    batches.steps = 30
    for batch in batches.epoch(0):
        counts = np.bincount(mechanism.patient_of[batch.case.numpy()], minlength=mechanism.patients)
        assert counts.max(initial=0) <= 3
        assert (batch.regions.flatten(1).sum(1) > 0).all()


def test_patient_batches_do_not_follow_from_seed(debug_config, stage_data):
    batches, _ = batches_of(private_config(debug_config), stage_data)
    batches.steps = 20
    one, other = ([batch.case.tolist() for batch in batches.epoch(0)] for _ in range(2))
    assert one != other


# Accounting


def test_spent_matches_opacus_accountant(debug_config, stage_data):
    _, mechanism = batches_of(private_config(debug_config), stage_data)
    accountant = opacus.accountants.RDPAccountant()
    for _ in range(mechanism.steps):
        accountant.step(noise_multiplier=1.0, sample_rate=mechanism.rate)
    assert mechanism.spent(0, 1) == pytest.approx(accountant.get_epsilon(1e-5))
    assert mechanism.spent(0, 2) > mechanism.spent(0, 1)


def test_spent_depends_on_total_epochs_of_stages():
    mechanism = privacy(epochs=(3, 5))
    assert mechanism.spent(1, 2) == mechanism.spent(0, 5)


def test_patient_privacy_derives_noise_from_epsilon(debug_config, stage_data):
    changes = {"train.privacy.noise_multiplier": None, "train.privacy.epsilon": 6.0}
    _, mechanism = batches_of(private_config(debug_config, **changes), stage_data)
    assert 5.9 < mechanism.spent(0, 2) <= 6.0


def test_patient_privacy_rejects_unreachable_epsilon(debug_config, stage_data):
    changes = {"train.privacy.noise_multiplier": None, "train.privacy.epsilon": 1e-9}
    with pytest.raises(ConfigError, match=r"^train.privacy.epsilon: no noise"):
        batches_of(private_config(debug_config, **changes), stage_data)


# A run


def test_trainer_records_epsilon_of_private_training(debug_config, stage_data):
    settings = private_config(debug_config)
    system = build_system(settings)
    state = prepare_state(system, settings, World())
    before = {name: value.clone() for name, value in system.networks["segmenter"].state_dict().items()}
    Trainer(system, system.stages[0], stage_data, settings, state).fit()
    epsilons = [record.scores["epsilon"] for record in state.position.history]
    _, mechanism = batches_of(settings, stage_data)
    assert epsilons == [mechanism.spent(0, 1), mechanism.spent(0, 2)]
    moved = system.networks["segmenter"].state_dict()
    assert all((moved[name] != value).any() for name, value in before.items())


# Validation


def privacy_error(settings, system, world=World()):  # noqa: B008
    with pytest.raises(ConfigError) as caught:
        validate_patient_privacy(settings, system, world)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_validate_patient_privacy_rejects_gan_with_remedy(debug_config):
    settings = private_config(debug_config, **{"system.gan": True})
    message = privacy_error(settings, build_system(settings))
    assert message.startswith("train.privacy: stage healthy has the phases generator, discriminator")
    assert message.endswith("set system.gan=false")


def test_validate_patient_privacy_rejects_score_dependent_settings(debug_config):
    settings = private_config(debug_config, **{"train.keep": "best"})
    assert privacy_error(settings, build_system(settings)).startswith("train.keep: best is chosen by scores")
    early = Toy(stage(phases=(PLAIN,), monitor=Monitor(("accuracy",), patience=3)))
    assert "stop early" in privacy_error(private_config(debug_config), early)
    balanced = replace(PLAIN, balance=Balance("first.value", reference="slope"))
    assert "gradient norms" in privacy_error(private_config(debug_config), Toy(stage(phases=(balanced,))))


def test_validate_patient_privacy_rejects_several_workers(debug_config):
    settings = private_config(debug_config)
    assert "--workers 1" in privacy_error(settings, build_system(settings), World(0, 2))


def test_patient_privacy_rejects_more_patients_per_step_than_exist(debug_config, stage_data):
    with pytest.raises(ConfigError, match=r"^train.privacy.patients_per_step: 50 of"):
        batches_of(private_config(debug_config, **{"train.privacy.patients_per_step": 50.0}), stage_data)


@pytest.mark.parametrize("name", ["dl_gan_cnn_debug", "gan_detector_debug", "gan_osmosis_debug"])
def test_validate_patient_privacy_accepts_control_and_rejects_gan_arm(name):
    fields = {"data.modalities": ["t1"], "data.regions": ["wt"], "data.classes": ["no lesion", "lesion"]}
    fields |= {"train.keep": "last", "train.privacy.noise_multiplier": 1.0}
    plain = override(recipe(name), {**fields, "system": recipe(name).system.control().model_dump(mode="json")})
    validate_patient_privacy(plain, build_system(plain), World())
    gan = override(recipe(name), fields)
    assert "system.gan=false" in privacy_error(gan, build_system(gan))
