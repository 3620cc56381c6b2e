"""Fields of the data: input channels, preparation and split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictInt, model_validator

from ganseg_dist.config.fields import OPERATIONAL, BelowOne, Fraction, Frozen, Positive


class AugmentConfig(Frozen):
    """Ranges of the random training transforms; all zero switches augmentation off."""

    flip: Fraction = 0.5
    """Probability of a left-right flip."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 17.0
    """Rotation is drawn from [-rotation_degrees, rotation_degrees]."""
    scale: BelowOne = 0.15
    """Zoom is drawn from [1 - scale, 1 + scale]."""
    gain: BelowOne = 0.1
    """Per-modality contrast factor, from [1 - gain, 1 + gain]."""
    shift: BelowOne = 0.1
    """Per-modality brightness offset, from [-shift, shift] on the [-1, 1] scale."""


class DataConfig(Frozen):
    """Input channels, preparation, and the split of the patients."""

    modalities: tuple[str, ...] | None = None
    """Input channels in order; none named: every modality that all cases have."""
    regions: tuple[Literal["wt", "tc", "et"], ...] | None = None
    """Heads of the segmenter; none named: all that the cohort's labels allow."""
    classes: tuple[str, ...] | None = None
    """Classes of a classifier; none named: those of the cohort, or of its masks, lesion or none. Of two the second is
    the positive one: the cohort's are put in that order where the name of one means no, normal or healthy."""
    size: Annotated[StrictInt, Field(ge=16, le=512, multiple_of=8)] = 128
    """Slices are size x size pixels."""
    spacing_mm: Positive = 1.5
    """In-plane pixel size; a head too large for the window is given coarser pixels rather than cut."""
    intensities: Literal["auto", "tissue", "colour"] = "auto"
    """Meaning of the range -1 to 1. tissue: the foreground is found and its middle intensities span the range; colour:
    0 to 255 as displayed, the whole picture being foreground. auto: colour for the modalities red, green and blue."""
    enhance: Literal["off", "corrected", "paper"] = "off"
    """Contrast enhancement of GANet-Seg's Appendix C; paper is Eq. 16 as printed, which inverts contrast."""
    equalise: Literal["off", "global", "clahe"] = "off"
    """Histogram equalisation of DL-GAN-CNN, channel by channel: over the whole scan, or contrast-limited in
    neighbourhoods of a slice."""
    clusters: Annotated[StrictInt, Field(ge=2, le=8)] | None = None
    """Clusters of k-means, the brightest of which becomes one more channel, the initial mask of DL-GAN-CNN; none:
    no such channel."""
    cluster_by: Literal["intensity", "coordinates"] = "intensity"
    """Feature of k-means; coordinates is DL-GAN-CNN's Eq. 4 as printed."""
    skull_stripped: Annotated[bool, OPERATIONAL] = True
    """Whether the recipe expects brains without skulls; whole heads then give a warning."""
    blank_rate: Fraction = 0.35
    """Share of the tumour-free slices kept, drawn anew each epoch: a segmenter trained without
    healthy slices predicts tumours there. 0 drops all, as the GANet-Seg paper does."""
    validation_fraction: BelowOne = 0.15
    """Share of the patients that choose epochs and thresholds."""
    test_fraction: BelowOne = 0.2
    """Share of the patients who are only tested on; where the data set's authors named test cases, those are
    the test part, and validation_fraction is a share of the other patients."""
    augment: AugmentConfig = AugmentConfig()

    @property
    def made_channels(self) -> tuple[str, ...]:
        """Channels that preparation appends to the modalities."""
        return () if self.clusters is None else ("kmeans",)

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels of a prepared slice under a resolved config: the modalities, then `made_channels`."""
        return (*(self.modalities or ()), *self.made_channels)

    @model_validator(mode="after")
    def _leaves_patients_to_train_on(self) -> DataConfig:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction + test_fraction must stay below 1, to leave training patients")
        return self
