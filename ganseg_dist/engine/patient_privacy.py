"""Differential privacy of a training patient: DP-SGD with patients in place of examples
(Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, Algorithm 1).

In each step every patient is drawn independently with probability q, and

    g_p = gradient of the mean loss over some of patient p's slices
    g   = (sum_p g_p min(1, C / |g_p|) + N(0, (z C)^2)) / (q N)

goes to the optimizer. Removing a patient thus changes the sum by C at most, whatever the slices, and steps compose as
Poisson-subsampled Gaussians do (Mironov, Talwar and Zhang, "Renyi Differential Privacy of the Sampled Gaussian
Mechanism", 2019). The guarantee's limits are in docs/decisions/0008-differential-privacy.md.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ganseg_dist.config import RunConfig
from ganseg_dist.config.privacy import PatientPrivacyConfig
from ganseg_dist.data.batch import Batch
from ganseg_dist.data.slices import SliceSet
from ganseg_dist.engine.loader import EXAMPLE, ORDER, Indices, Sampler, StageBatches
from ganseg_dist.engine.noise import Entropy, chosen, normal_noise, secret_key
from ganseg_dist.engine.world import World
from ganseg_dist.errors import ConfigError, MissingDependency
from ganseg_dist.systems.base import Stage, System

Backpropagate = Callable[[Batch], dict[str, Tensor]]
"""Adds the gradient of a batch's loss to the parameters; returns the values to log."""


@dataclass(frozen=True, slots=True)
class PatientPrivacy:
    """The guarantee to the patients of one training set, over all stages of a run."""

    patient_of: npt.NDArray[np.int64]
    """(cases,) index of each case's patient."""
    epochs: tuple[int, ...]
    """Number of epochs of each stage."""
    steps: int
    """Steps of an epoch."""
    expected: float
    """Patients a step, on average: q N."""
    clip_norm: float
    noise_multiplier: float
    delta: float
    entropy: Entropy = os.urandom

    @classmethod
    def of(cls, config: RunConfig, system: System, slices: SliceSet, world: World) -> PatientPrivacy:
        """Raises ConfigError where the guarantee could not hold, and MissingDependency without Opacus."""
        validate_patient_privacy(config, system, world)
        privacy = config.train.privacy
        names, patient_of = np.unique([case.patient for case in slices.cases], return_inverse=True)
        epochs = tuple(stage.epochs for stage in system.stages)
        steps = _steps_of_epoch(privacy, len(names))
        z = privacy.noise_multiplier or noise_multiplier_of_runs(privacy, len(names), sum(epochs))
        return cls(
            patient_of.astype(np.int64), epochs, steps, privacy.patients_per_step, privacy.clip_norm, z, privacy.delta
        )

    @property
    def rate(self) -> float:
        """q: the probability that a step sees a patient."""
        return self.expected / self.patients

    @property
    def patients(self) -> int:
        """N."""
        return int(self.patient_of.max()) + 1

    def spent(self, stage: int, epochs: int) -> float:
        """Epsilon at delta after all stages before this one and `epochs` epochs of it."""
        return epsilon_of_steps(
            self.noise_multiplier, self.rate, self.steps * (sum(self.epochs[:stage]) + epochs), self.delta
        )

    def gradients(
        self, batch: Batch, parameters: Sequence[nn.Parameter], backpropagate: Backpropagate
    ) -> dict[str, Tensor]:
        """Give the parameters the step's noised gradient; returns the drawn patients' means of the logged values.

        Every parameter gets noise, even where no patient was drawn, which must stay secret too. The batch may be empty;
        `backpropagate` is called with one patient's slices after the other.
        """
        sums = [torch.zeros_like(parameter) for parameter in parameters]
        logged: dict[str, list[Tensor]] = {}
        patient = torch.from_numpy(self.patient_of)[batch.case.cpu()]
        for sampled in patient.unique():
            for name, value in backpropagate(batch.of((patient == sampled).to(batch.image.device))).items():
                logged.setdefault(name, []).append(value.float())
            _add_clipped(sums, parameters, self.clip_norm)
        for parameter, total in zip(parameters, sums, strict=True):
            noise = normal_noise(tuple(total.shape), self.noise_multiplier * self.clip_norm, self.entropy)
            noised = total.double() + torch.from_numpy(noise).to(total.device)
            parameter.grad = (noised / self.expected).to(parameter)
        return {name: torch.stack(values).mean() for name, values in logged.items()}


class PatientBatches(StageBatches):
    """Batches of patients: each is drawn in each step with the same probability, and shows some of its slices.

    Nothing depends on the run's seed, which is public: that the drawn patients are secret is part of the guarantee.
    A run that was killed samples anew, and no weights of the lost steps were ever kept.
    """

    def __init__(
        self, config: RunConfig, stage: Stage, slices: SliceSet, sampler: Sampler, world: World, privacy: PatientPrivacy
    ) -> None:
        super().__init__(config, stage, slices, sampler, world)
        self.privacy, self.steps = privacy, privacy.steps
        weight = np.where(self.slices.has_lesion, 1.0, config.data.blank_rate)
        if stage.examples == "tumour_free":
            weight = np.where(self.slices.has_lesion, 0.0, 1.0)
        owner = privacy.patient_of[self.slices.case_of]
        weighted = [np.flatnonzero((owner == patient) & (weight > 0)) for patient in range(privacy.patients)]
        self.slices_of = [(own, weight[own]) for own in weighted]

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The epoch's steps; one in which no patient was drawn is an empty batch."""
        privacy = self.privacy
        key = secret_key(privacy.entropy)
        sampled = chosen((self.steps, privacy.patients), privacy.rate, privacy.entropy)
        rng = np.random.default_rng([key, ORDER, epoch])
        batches = []
        for row in sampled:
            slices = [self._some_slices(patient, rng) for patient in np.flatnonzero(row).tolist()]
            batches.append(np.concatenate([np.zeros(0, np.int64), *slices]))
        return self._load(batches, [key, EXAMPLE, epoch], augmented=self.stage.augmented)

    def _some_slices(self, patient: int, rng: np.random.Generator) -> Indices:
        own, weight = self.slices_of[patient]
        most = self.config.train.privacy.slices_per_patient
        if len(own) <= most:
            return own
        return rng.choice(own, most, replace=False, p=weight / weight.sum())


def validate_patient_privacy(config: RunConfig, system: System, world: World) -> None:
    """Raises ConfigError for a run whose weights would reveal more about a patient than the steps' noise allows."""
    several = next((stage for stage in system.stages if len(stage.phases) > 1), None)
    if several is not None:
        phases = ", ".join(phase.name for phase in several.phases)
        raise ConfigError(
            f"train.privacy: stage {several.name} has the phases {phases}, which train on each other's networks, and "
            "one step's noise does not cover several; set system.gan=false"
        )
    if any(phase.balance is not None for stage in system.stages for phase in stage.phases):
        raise ConfigError(
            "train.privacy: the terms' weights follow gradient norms, which are the patients' and without noise; set "
            "system.gan=false"
        )
    if config.train.keep == "best":
        raise ConfigError(
            "train.keep: best is chosen by scores of patients, which have no noise; with train.privacy set it to last"
        )
    if any(stage.monitor.patience is not None for stage in system.stages):
        raise ConfigError(
            "train.privacy: a stage would stop early by scores of patients, which have no noise; set system.gan=false"
        )
    if world.size > 1:
        raise ConfigError("train.privacy: works with one worker, and there are several; set --workers 1")


def _add_clipped(sums: Sequence[Tensor], parameters: Sequence[nn.Parameter], norm: float) -> None:
    """Move one patient's gradients, scaled down to the norm as one vector, into the sums; if not finite, nothing."""
    gradients = [parameter.grad for parameter in parameters]
    known = [gradient.float() for gradient in gradients if gradient is not None]
    size = float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g.double()) for g in known])))
    for total, parameter, gradient in zip(sums, parameters, gradients, strict=True):
        if gradient is not None and np.isfinite(size):
            total.add_(gradient, alpha=min(1.0, norm / size) if size else 1.0)
        parameter.grad = None


def noise_multiplier_of_runs(config: PatientPrivacyConfig, patients: int, epochs: int, *, runs: int = 1) -> float:
    """The smallest z, to 1 per cent of epsilon, with which `runs` runs over the same patients spend it together.

    Raises ConfigError where no noise is enough, and MissingDependency without Opacus.
    """
    assert config.epsilon is not None
    steps = _steps_of_epoch(config, patients) * epochs * runs
    rate = config.patients_per_step / patients
    try:
        with _without_advice():
            found = _opacus().utils.get_noise_multiplier(
                target_epsilon=config.epsilon, target_delta=config.delta, sample_rate=rate, steps=steps,
                accountant="rdp", epsilon_tolerance=config.epsilon / 100,
            )  # fmt: skip
    except ValueError:
        raise ConfigError(
            f"train.privacy.epsilon: no noise brings {steps} steps down to {config.epsilon:g} at "
            f"delta={config.delta:g}; raise it"
        ) from None
    return float(found)


def _steps_of_epoch(config: PatientPrivacyConfig, patients: int) -> int:
    """The number of steps that shows each patient once on average."""
    if config.patients_per_step > patients:
        raise ConfigError(
            f"train.privacy.patients_per_step: {config.patients_per_step:g} of {patients} patients cannot be drawn; "
            f"lower it to {patients} or less"
        )
    return max(1, round(patients / config.patients_per_step))


def epsilon_of_steps(noise_multiplier: float, rate: float, steps: int, delta: float) -> float:
    """Epsilon of a patient who is drawn with probability `rate` in each of the steps, by Renyi divergences."""
    accountant = _opacus().RDPAccountant()
    accountant.history = [(noise_multiplier, rate, steps)]
    with _without_advice():
        return float(accountant.get_epsilon(delta))


@contextmanager
def _without_advice() -> Iterator[None]:
    """Without Opacus's advice to try more orders: its result is a bound with these too."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Optimal order", UserWarning)
        yield


def _opacus() -> Any:
    try:
        import opacus.accountants.utils
    except ImportError:
        raise MissingDependency("train.privacy: needs the privacy extra: pip install 'ganseg-dist[privacy]'") from None
    return opacus.accountants
