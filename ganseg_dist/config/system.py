"""What the fields of every system have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from ganseg_dist.config.fields import Frozen
from ganseg_dist.errors import ConfigError


class SystemConfig(Frozen):
    """A published system's fields. Its own class adds `name`, which tells the systems apart in a saved config."""

    title: ClassVar[str]
    """The system's name in print."""
    task: ClassVar[Literal["segmentation", "classification"]] = "segmentation"
    """What its predictions are of: pixels or whole images."""
    paper_data: ClassVar[Mapping[str, Any]] = {}
    """Data settings that the paper's reading implies where they stand at their defaults."""

    generates_from: ClassVar[Literal["masks", "classes"] | None] = None
    """What its generator makes whole images from, by `generate` of its System: the masks of a batch, or classes.
    None: it makes none."""
    generator_makes: ClassVar[str] = "makes no images"
    """What a generator that makes no whole images does instead, as the predicate of a sentence."""

    stays_home: ClassVar[tuple[str, ...]] = ("discriminator",)
    """Networks that never leave a hospital unless `federation.local` says so: a discriminator is what tells best
    who was in the training set (docs/decisions/0007-what-stays-home.md)."""
    of_control: ClassVar[tuple[str, ...]] = ("reading", "widths")
    """Fields that the control arm heeds too."""

    name: str
    """By which the system is registered; its own class narrows it to that one."""
    reading: Literal["corrected", "paper"] = "corrected"
    """paper takes the text's equations literally where they contradict themselves (docs/decisions)."""
    gan: bool = True
    """False is the control that every claim needs: the same schedule without anything a GAN made."""

    def control(self) -> Self:
        """The control arm's fields: what only the GAN heeds stands at its default."""
        return type(self)(gan=False, **{name: getattr(self, name) for name in self.of_control})

    @property
    def knows_healthy_tissue(self) -> bool:
        """Whether it scores how real a slice is, maps what is unlike healthy tissue, and fills lesions with it."""
        return False

    @property
    def synthesises(self) -> bool:
        """Whether a GAN is trained and what it makes is learnt from: what a run is called by."""
        return self.gan

    @property
    def sees_only_real_images(self) -> bool:
        """Whether what it trains to predict with never learnt from a generated image, nor from unknown weights."""
        return not self.synthesises

    @property
    def without_generator(self) -> str | None:
        """Which field leaves the run without a generator, and what to set; None where it has one."""
        return None if self.gan else "system.gan is false; train with system.gan=true"

    def healthy_fields(
        self, modalities: tuple[str, ...], healthy_modalities: tuple[str, ...] | None, healthy_root: str
    ) -> dict[str, Any]:
        """The fields that a separate cohort of healthy subjects decides, by dotted name.

        Args:
            modalities: the run's own.
            healthy_modalities: of the healthy cohort; None where none is given.
            healthy_root: where that cohort lies, for messages.

        Raises ConfigError where a cohort is given that the system cannot use, or none where the config needs one.
        """
        if healthy_modalities is not None:
            raise ConfigError(f"--healthy: {self.title} learns from one cohort; leave it out")
        return {}

    @property
    def gan_modalities(self) -> tuple[str, ...] | None:
        """Channels the GAN sees; none: all."""
        return None

    @property
    def unet_widths(self) -> Mapping[str, tuple[int, ...]]:
        """Widths of its U-Nets, by field; every level but the first halves the slice."""
        return {}

    @property
    def patch_widths(self) -> Mapping[str, tuple[int, ...]]:
        """Widths of its PatchGANs, by field; every level halves the slice."""
        return {}
