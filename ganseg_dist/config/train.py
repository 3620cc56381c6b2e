"""Fields of the training engine."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictInt

from ganseg_dist.config.fields import OPERATIONAL, BelowOne, Count, Frozen, NonNegative, Positive
from ganseg_dist.config.privacy import PatientPrivacyConfig


class TrainConfig(Frozen):
    """Settings of the training engine; they mean the same for every system."""

    epochs: Count = 30
    """Epochs of the system's main stage."""
    batch_size: Count = 80
    """Examples per step over all workers together."""
    learning_rate: Positive = 6e-5
    """Adam's, at the first epoch."""
    learning_rate_power: NonNegative = 0.75
    """lr(e) = learning_rate * (1 - e / epochs) ** power."""
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    """Adam's decay of the gradient's mean and of its square's."""
    weight_decay: NonNegative = 1e-4
    """Adam's: added to the gradient, as a share of the weights."""
    clip_norm: Positive | None = 10.0
    """Largest gradient norm of one network; none: no clipping."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of the averaged weights that are validated and kept, less over the first steps; none: the raw weights."""
    proximal_weight: NonNegative = 0.0
    """mu: adds mu / 2 * |w - w0|^2 to every loss, w0 the weights that training (in a federation: the round) began with
    (FedProx, Li et al. 2020, Eq. 2); 0: off."""
    keep: Literal["best", "last"] = "best"
    """Which epoch's weights a stage hands on, by its validation score."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto is bf16 autocast on a GPU and fp32 on a CPU, where bf16 is slower."""
    threads: Annotated[Count, OPERATIONAL] = 1
    """CPU threads per worker. Bitwise promises hold at a fixed count: sums differ in the last bit between counts."""
    loaders: Annotated[StrictInt, Field(ge=0), OPERATIONAL] = 0
    """Loader processes per worker; 0 reads the memory-mapped store in the training process."""
    balance_every: Count = 10
    """Steps between two readings of the gradient norms that balance a phase's terms."""
    examples_every: Annotated[Count, OPERATIONAL] = 5
    """Epochs between two sets of example overlays."""
    privacy: PatientPrivacyConfig = PatientPrivacyConfig()
    """Limits what the weights reveal about any one patient; off by default."""
