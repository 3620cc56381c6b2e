"""The privacy budget of a sweep, all of whose trials train on the same patients at the same hospitals.

Epsilon, of hospitals (federation.privacy) and of patients (train.privacy), is the budget of all trials together, and
each trial adds the noise that this needs. With k releases per trial, n trials make n k: Gaussian releases compose alike
whether they are of one model or of many. The final run with the best values spends another budget on top.
"""

from __future__ import annotations

from ganseg_dist.config import RunConfig, override
from ganseg_dist.engine.patient_privacy import noise_multiplier_of_runs
from ganseg_dist.errors import ConfigError
from ganseg_dist.federation.accountant import epsilon_of, noise_multiplier_for
from ganseg_dist.federation.schedule import rounds_of
from ganseg_dist.systems import outline_system


def with_sweep_noise(config: RunConfig, trials: int, patients: int) -> RunConfig:
    """The config of one of this many trials, with the noise that keeps all within the budget; unchanged without one.

    A noise multiplier given in `train.privacy` takes precedence over epsilon, as in a single run, and is not changed.

    Raises ConfigError where the given noise multiplier makes the trials exceed the federation's epsilon.
    """
    changes: dict[str, float] = {}
    hospital, patient = config.federation.privacy, config.train.privacy
    if hospital.epsilon is not None:
        releases = rounds_of(config) * trials
        least = noise_multiplier_for(hospital.epsilon, hospital.delta, releases)
        if hospital.noise_multiplier is None:
            changes["federation.privacy.noise_multiplier"] = least
        elif hospital.noise_multiplier < least:
            spent = epsilon_of(hospital.noise_multiplier, releases, hospital.delta)
            raise ConfigError(
                f"federation.privacy.epsilon: {trials} trials, {releases} rounds in all, spend {spent:.3g} together, "
                f"more than {hospital.epsilon:g}; lower --trials, or leave noise_multiplier out"
            )
    if patient.epsilon is not None and patient.noise_multiplier is None:
        epochs = sum(stage.epochs for stage in outline_system(config).stages)
        changes["train.privacy.noise_multiplier"] = noise_multiplier_of_runs(patient, patients, epochs, runs=trials)
    return override(config, changes) if changes else config


def describe_budget(config: RunConfig, trials: int, *, hospitals: bool) -> str | None:
    """The most that all trials together spend, as text; None where no budget is given.

    `federation.privacy` applies only to trials that are federations of `hospitals`.
    """
    hospital, patient = config.federation.privacy, config.train.privacy
    spent = []
    if hospitals and hospital.epsilon is not None:
        spent.append(f"an epsilon of {hospital.epsilon:g} at delta {hospital.delta:g} of any one hospital")
    if patient.epsilon is not None and patient.noise_multiplier is None:
        spent.append(f"an epsilon of {patient.epsilon:g} at delta {patient.delta:g} of any one patient")
    if not spent:
        return None
    return (
        f"all {trials} trials together spend at most {', and '.join(spent)}; training with the best values is charged "
        "on top"
    )
