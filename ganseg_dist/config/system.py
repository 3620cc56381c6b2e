"""Config fields that all systems share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from ganseg_dist.config.fields import Frozen
from ganseg_dist.errors import ConfigError


class SystemConfig(Frozen):
    """Fields of a published system. A subclass narrows `name`, which identifies the system in a saved config."""

    title: ClassVar[str]
    """The system's name in print."""
    task: ClassVar[Literal["segmentation", "classification"]] = "segmentation"
    """Whether it predicts for pixels or for whole images."""
    paper_data: ClassVar[Mapping[str, Any]] = {}
    """Data settings that the paper's reading implies where they are left at their defaults."""

    generates_from: ClassVar[Literal["masks", "classes"] | None] = None
    """What `generate` of its System makes whole images from: the masks of a batch, or classes. None: it makes none."""
    example_label: ClassVar[str] = "generated"
    """Label of the generated picture in a row of example pictures."""
    example_note: ClassVar[str] = "Validation images, and what the generator makes of them."
    """The origin of that picture, in sentences."""
    generator_makes: ClassVar[str] = "makes no images"
    """The output of a generator that makes no whole images, as the predicate of a sentence."""

    ablations: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    """Rows of `ganseg experiment ablation`: the fields that switch one term off."""
    baselines: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    """Arms of `ganseg experiment classifiers`, the system first: the fields of each, by a name fit for a folder."""
    augmentation_arms: ClassVar[tuple[str, ...]] = ()
    """Values of its field `augmentation`, the arms of `ganseg experiment augmentation`; the first is the reference."""
    published: ClassVar[Mapping[str, Mapping[Any, Mapping[str, float]]]] = {}
    """The paper's figures by experiment and row: of other images, and no target."""

    unet_fields: ClassVar[tuple[str, ...]] = ()
    """Fields with the widths of its U-Nets."""
    patch_fields: ClassVar[tuple[str, ...]] = ()
    """Fields with the widths of its PatchGANs."""
    local_networks: ClassVar[tuple[str, ...]] = ("discriminator",)
    """Networks that never leave a hospital unless `federation.local` overrides it: a discriminator reveals most about
    who was in the training set (docs/decisions/0007-what-stays-home.md)."""
    of_control: ClassVar[tuple[str, ...]] = ("reading", "widths")
    """Fields that the control arm uses too."""

    name: str
    """The name by which the system is registered; its class narrows the type to that one."""
    reading: Literal["corrected", "paper"] = "corrected"
    """paper takes the text's equations literally where they contradict themselves (docs/decisions)."""
    gan: bool = True
    """False is the control arm: the same schedule without a GAN and its images."""

    def control(self) -> Self:
        """The control arm's config: fields that only the GAN uses are at their defaults."""
        return type(self)(gan=False, **{name: getattr(self, name) for name in self.of_control})

    @property
    def arm(self) -> str:
        """The name in tables of a run with these fields."""
        return self.title

    @property
    def knows_healthy_tissue(self) -> bool:
        """Whether it scores a slice's realism, maps deviations from healthy tissue, and fills lesions with it."""
        return False

    @property
    def synthesises(self) -> bool:
        """Whether a GAN is trained and its images are trained on; reports name a run by it."""
        return self.gan

    @property
    def sees_only_real_images(self) -> bool:
        """Whether its predictor is trained on real images alone, and not from weights of unknown origin."""
        return not self.synthesises

    @property
    def slice_score(self) -> str | None:
        """The rule by which it scores a slice's realism; None where it does not."""
        return None

    @property
    def without_generator(self) -> str | None:
        """The field that leaves the run without a generator, and what to set; None where it has one."""
        return None if self.gan else "system.gan is false; train with system.gan=true"

    def healthy_fields(
        self, modalities: tuple[str, ...], healthy_modalities: tuple[str, ...] | None, healthy_root: str
    ) -> dict[str, Any]:
        """Values of the fields that a separate cohort of healthy subjects determines, by dotted name.

        Args:
            modalities: the run's.
            healthy_modalities: of the healthy cohort; None without one.
            healthy_root: path of that cohort, for messages.

        Raises ConfigError for a cohort that the system cannot use, or without one that the config needs.
        """
        if healthy_modalities is not None:
            raise ConfigError(f"--healthy: {self.title} trains on one cohort; leave it out")
        return {}

    @property
    def gan_modalities(self) -> tuple[str, ...] | None:
        """Channels of the GAN's images; None: all."""
        return None

    @property
    def unet_widths(self) -> Mapping[str, tuple[int, ...]]:
        """Widths of its U-Nets, by field; every level but the first halves the slice."""
        return {name: getattr(self, name) for name in self.unet_fields}

    @property
    def patch_widths(self) -> Mapping[str, tuple[int, ...]]:
        """Widths of its PatchGANs, by field; every level halves the slice."""
        return {name: getattr(self, name) for name in self.patch_fields}
