"""Fields of differential privacy: a federation's guarantee to hospitals, a hospital's demand of a federation, and the
guarantee of training to patients.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ganseg_dist.config.fields import Count, Frozen, Positive

Where = Literal["server", "site"]


class PrivacyConfig(Frozen):
    """Privacy of a hospital in a federation; off unless `epsilon` or `noise_multiplier` is given.

    What it hides, what it costs and what it does not hide are in docs/decisions/0008-differential-privacy.md.
    """

    epsilon: Positive | None = None
    """Budget of all rounds together, at `delta`. Without `noise_multiplier` the noise is chosen so that the planned
    rounds spend it exactly."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """Probability with which the promise of epsilon may fail; far below one hospital in all there are."""
    noise_multiplier: Positive | None = None
    """z: the noise's standard deviation, as a multiple of one hospital's largest effect on the released update."""
    clip_norm: Positive = 1.0
    """S: a hospital's update of a round, all tensors as one vector, is scaled down to this norm."""
    where: Where = "server"
    """Where noise is added: by a trusted server, once to the mean; or by every site to its update, before sending."""

    @property
    def on(self) -> bool:
        """Whether differential privacy is on."""
        return self.epsilon is not None or self.noise_multiplier is not None


class PrivacyDemand(Frozen):
    """The least privacy that a hospital demands of a federation before it takes part."""

    epsilon: Positive
    """Largest budget of the federation, at `delta`; with `where: site`, together with all earlier ones."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """Probability with which epsilon may be exceeded."""
    where: Where = "site"
    """site: the hospital trusts no server and adds the noise itself; server: it takes either."""


class PatientPrivacyConfig(Frozen):
    """Privacy of a training patient; off unless `epsilon` or `noise_multiplier` is given.

    With it, `train.batch_size` and `data.blank_rate` no longer decide a step's batch: see `patients_per_step`.
    """

    epsilon: Positive | None = None
    """Budget of all epochs together, at `delta`, where `noise_multiplier` is not given."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """Probability with which the promise of epsilon may fail; far below one patient in all there are."""
    noise_multiplier: Positive | None = None
    """z: the noise's standard deviation, as a multiple of one patient's largest effect on a step's gradient."""
    clip_norm: Positive = 1.0
    """C: a patient's gradient of a step, all parameters as one vector, is scaled down to this norm."""
    patients_per_step: Positive = 4.0
    """Mean number of patients in a step; each is drawn independently, with the same probability in every step. An
    epoch has as many steps as show each patient once on average."""
    slices_per_patient: Count = 8
    """Most slices of a drawn patient in a step; tumour-free ones are drawn `data.blank_rate` times as often as those
    with tumour."""

    @property
    def on(self) -> bool:
        """Whether differential privacy is on."""
        return self.epsilon is not None or self.noise_multiplier is not None
