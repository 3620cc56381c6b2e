"""Fields of GANet-Seg."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StrictInt, model_validator

from ganseg_dist.config.fields import BelowOne, Count, Fraction, Frozen, NonNegative, Positive, Widths
from ganseg_dist.config.system import SystemConfig
from ganseg_dist.errors import ConfigError


class HoleConfig(Frozen):
    """Random holes in healthy tissue that the generator learns to fill; sizes as a share of the slice's side."""

    count: Annotated[StrictInt, Field(ge=1, le=8)] = 2
    """Holes a slice."""
    smallest_radius: Annotated[float, Field(gt=0, lt=0.5)] = 0.04
    """Smallest radius of a hole's outline, as a share of the slice's side."""
    largest_radius: Annotated[float, Field(gt=0, lt=0.5)] = 0.16
    """Largest radius, as a share of the slice's side."""
    roughness: BelowOne = 0.3
    """Relative wobble of the outline; 0 is an ellipse."""

    @model_validator(mode="after")
    def _ordered(self) -> HoleConfig:
        if self.smallest_radius > self.largest_radius:
            raise ValueError("smallest_radius must not exceed largest_radius")
        return self


class GANetSegConfig(SystemConfig):
    """GANet-Seg: an inpainting GAN of healthy tissue whose discriminator feeds a U-Net."""

    title: ClassVar[str] = "GANet-Seg"
    paper_data: ClassVar[Mapping[str, Any]] = {"data.enhance": "paper", "data.blank_rate": 0.0}

    unet_fields: ClassVar[tuple[str, ...]] = ("widths", "generator_widths")
    patch_fields: ClassVar[tuple[str, ...]] = ("discriminator_widths",)
    ablations: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "no adversarial term": {"system.adversarial_weight": 0.0},
        "no size term": {"system.size_weight": 0.0},
        "no sparsity term": {"system.sparsity_weight": 0.0},
        "no synthetic lesions": {"system.synthetic_lesion_weight": 0.0},
        "no hole L1": {"system.hole_l1_weight": 0.0},
    }
    published: ClassVar[Mapping[str, Mapping[Any, Mapping[str, float]]]] = {
        "thresholds": {  # Table 1; a threshold has a meaning only for its own discriminator
            0.1: {"accuracy": 0.7507, "sensitivity": 0.5124},
            0.2: {"accuracy": 0.7953, "sensitivity": 0.8852},
            0.3: {"accuracy": 0.7640, "sensitivity": 0.9500},
            0.4: {"accuracy": 0.7292, "sensitivity": 0.9811},
        }
    }
    generator_makes: ClassVar[str] = (
        "fills holes in an image with healthy tissue, which ganseg predict --reconstruction writes"
    )

    name: Literal["ganet_seg"] = "ganet_seg"
    widths: Widths = (64, 128, 256, 320)
    """Channels of the segmenting U-Net's levels, finest first."""
    generator_widths: Widths = (64, 128, 256, 320)
    """Channels of the inpainting U-Net's levels."""
    discriminator_widths: Widths = (64, 128, 256)
    """Channels of the PatchGAN's levels; each halves the resolution."""
    healthy_epochs: Count = 30
    """Epochs of pretraining on healthy tissue, at most."""
    healthy_patience: Count = 5
    """Epochs without a better hole reconstruction before pretraining stops."""
    healthy_learning_rate: Positive | None = None
    """Learning rate of the pretraining; none: train.learning_rate."""
    healthy_modalities: tuple[str, ...] | None = None
    """Channels the GAN sees; none: all. ["t1"] for a T1-only healthy cohort such as NFBS."""
    healthy_cohort: bool = False
    """Pretrain on a separate cohort of healthy subjects instead of the training patients' tumour-free slices."""
    discriminator_every: Count = 5
    """Generator steps to one discriminator step."""
    hole_l1_weight: NonNegative = 100.0
    """Weight of the L1 over the holes against the generator's adversarial term of 1."""
    holes: HoleConfig = HoleConfig()
    synthetic_lesion_weight: NonNegative = 1.0
    """Weight of the discriminator's loss on synthetic lesions in healthy tissue. With 0 it only learns to
    distinguish fillings from real tissue, and scores a real tumour as real."""
    supervised_epochs: Annotated[StrictInt, Field(ge=0)] | None = None
    """Epochs of phase 1, cross-entropy and Dice alone; none: a third of train.epochs, as the paper's 10 of 30."""
    adversarial_weight: NonNegative = 0.1
    """Share of the segmentation loss's gradient that the adversarial term is balanced to (Eqs. 9-10)."""
    size_weight: NonNegative = 0.1
    """Share of the gradient for the size term."""
    sparsity_weight: NonNegative = 0.01
    """Share of the gradient for the sparsity term."""
    balance_decay: BelowOne = 0.9
    """Weight of a term's earlier gradient norm in its running mean."""
    balance_clip: tuple[Positive, Positive] = (1e-3, 1e3)
    """Smallest and largest factor that balancing gives a term."""
    score: Literal["mean", "min", "quantile"] = "quantile"
    """How patch realism becomes one score a slice."""
    score_quantile: Fraction = 0.05
    """Which quantile of the patches' realism the score quantile takes; low finds small lesions."""

    @property
    def knows_healthy_tissue(self) -> bool:
        return self.gan

    @property
    def slice_score(self) -> str | None:
        return self.score

    def healthy_fields(
        self, modalities: tuple[str, ...], healthy_modalities: tuple[str, ...] | None, healthy_root: str
    ) -> dict[str, Any]:
        """The GAN may be trained on healthy subjects, in the channels that both cohorts have."""
        if healthy_modalities is None:
            if self.healthy_cohort:
                raise ConfigError(
                    "system.healthy_cohort: is true without a healthy cohort; give ganseg train --healthy DATA, or "
                    "leave it out in a federation, whose sites train on their tumour-free slices"
                )
            return {}
        wanted = list(self.healthy_modalities or (name for name in modalities if name in healthy_modalities))
        if not wanted or any(name not in healthy_modalities for name in wanted):
            has = ", ".join(healthy_modalities) or "none"
            raise ConfigError(f"system.healthy_modalities: {healthy_root} has {has}; name modalities of both cohorts")
        return {"system.healthy_cohort": True, "system.healthy_modalities": wanted}

    @property
    def gan_modalities(self) -> tuple[str, ...] | None:
        return self.healthy_modalities
