"""References for synthetic images: the generator's training images, held-out real images as the floor, two controls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from ganseg_dist.data.slices import SliceSet
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.metrics.synthesis import FEWEST_IMAGES, Images, diversity, structural_similarity
from ganseg_dist.sampling import evenly_spaced
from ganseg_dist.synthesis.encoder import Encoder, distribution_distances
from ganseg_dist.synthesis.generate import Generated, GeneratedSlices
from ganseg_dist.synthesis.memorisation import Audit
from ganseg_dist.synthesis.results import Floor, FromMasksQuality, Quality
from ganseg_dist.systems.base import GeneratesFromClasses

MOST_IMAGES = 4000
"""About a gigabyte of four modalities."""

HELD_OUT = "held-out real images"
"""Name of real images of patients on which the generator was not trained."""


@dataclass(frozen=True, slots=True)
class RealImages:
    """Real slices, such as a generator may have memorised."""

    image: npt.NDArray[np.float32]
    """(M, C, size, size) in [-1, 1]; where training flips its images, their flipped copies follow them."""
    patients: tuple[str, ...]
    """(M,)"""
    classes: tuple[str | None, ...]
    """(M,) where the system has classes."""
    flipped: bool = False
    """Whether half of them are flipped copies."""
    sides_known: bool = False
    """Whether the columns of all run from the patient's left to right."""

    def where(self, chosen: npt.NDArray[np.int64]) -> RealImages:
        """Those at these places."""
        patients, classes = ([values[index] for index in chosen] for values in (self.patients, self.classes))
        return RealImages(self.image[chosen], tuple(patients), tuple(classes), self.flipped, self.sides_known)

    def of_class(self, name: str) -> RealImages:
        """Those of a class."""
        return self.where(np.flatnonzero([own == name for own in self.classes]))


HeldOut = RealImages | str
"""Held-out real images, or why there are none."""


def training_images(predictor: Predictor, slices: SliceSet, *, most: int = MOST_IMAGES) -> RealImages:
    """The slices that the generator was trained on, at most `most`, evenly spread.

    Where training flips its images, a flipped copy counts as a copy.
    """
    system, config = predictor.system, predictor.config
    from_masks = config.system.generates_from == "masks"
    trained_on = np.arange(len(slices)) if from_masks else _of_generated_classes(predictor, slices)
    real = _read(predictor, slices, trained_on, most)
    augmented = any(stage.augmented for stage in system.stages if "generator" in stage.networks)
    if not augmented or not config.data.augment.flip:
        return real
    both = np.concatenate([real.image, real.image[..., ::-1]])
    return RealImages(both, real.patients * 2, real.classes * 2, flipped=True)


def held_out_images(predictor: Predictor, slices: SliceSet, *, most: int = MOST_IMAGES) -> RealImages:
    """Of slices that the generator was not trained on, at most `most` of the kind that it generates, evenly spread.

    With a lesion where it generates images from masks, else of the classes that it generates.
    """
    from_masks = predictor.config.system.generates_from == "masks"
    kind = np.flatnonzero(slices.has_lesion) if from_masks else _of_generated_classes(predictor, slices)
    return _read(predictor, slices, kind, most)


def generated_quality(
    generated: GeneratedSlices, training: RealImages, held_out: HeldOut, audited: Audit, encoder: Encoder
) -> FromMasksQuality:
    """How near the generated images are to the training images."""
    quality = _beside_floor_and_controls("generated images", generated.image, training.image, held_out, encoder)
    return FromMasksQuality(
        **dict(quality),
        median_percentile=audited.median_percentile,
        flipped=training.flipped,
        ssim=structural_similarity(generated.image, generated.real, generated.patients),
    )


def class_quality(
    generated: Generated, training: RealImages, held_out: HeldOut, encoder: Encoder
) -> dict[str, Quality]:
    """How near each class's generated images are to its training images."""
    classes = {}
    for name in dict.fromkeys(generated.classes):
        synthetic = generated.image[[own == name for own in generated.classes]]
        real = training.of_class(name).image
        floor = held_out if isinstance(held_out, str) else held_out.of_class(name)
        n_synthetic, n_real = len(synthetic), len(real)
        classes[name] = (
            _beside_floor_and_controls("generated", synthetic, real, floor, encoder)
            if min(n_synthetic, n_real) >= FEWEST_IMAGES
            else Quality(n_synthetic=n_synthetic, n_real=n_real, distances=None, held_out=None, diversity=None)
        )
    return classes


def _of_generated_classes(predictor: Predictor, slices: SliceSet) -> npt.NDArray[np.int64]:
    generated = cast("GeneratesFromClasses", predictor.system).generated_classes
    return np.flatnonzero([name in generated for name in _classes(predictor, slices)])


def _classes(predictor: Predictor, slices: SliceSet) -> list[str | None]:
    names = predictor.config.data.classes or ()
    return [names[label] if names and label >= 0 else None for label in slices.label]


def _read(predictor: Predictor, slices: SliceSet, some: npt.NDArray[np.int64], most: int) -> RealImages:
    chosen = some[evenly_spaced(len(some), most)]
    image, _ = slices.read(chosen)
    classes = _classes(predictor, slices)
    patients = tuple(slices.cases[slices.case_of[index]].patient for index in chosen)
    known = bool(slices.sides_known[chosen].all())
    return RealImages(image, patients, tuple(classes[index] for index in chosen), sides_known=known)


def _beside_floor_and_controls(
    name: str, synthetic: Images, real: Images, held_out: HeldOut, encoder: Encoder
) -> Quality:
    """Distances of distributions, each with its n, and diversity; `name` is that of the synthetic images.

    The floor is the distance of real images of other patients: no generator can be expected to come nearer. Two
    controls that any generator must beat are uniform noise, and the mean real image (with a thousandth of noise, as a
    distribution of one image has no covariance), as many of each.
    """
    rng = np.random.default_rng(0)
    mean = np.broadcast_to(real.mean(axis=0), synthetic.shape) + 1e-3 * rng.standard_normal(synthetic.shape)
    images, floor = _floor(held_out, len(synthetic))
    candidates = {
        name: synthetic,
        **({} if images is None else {HELD_OUT: images}),
        "control: noise": rng.uniform(-1, 1, synthetic.shape).astype(np.float32),
        "control: mean image": mean.clip(-1, 1).astype(np.float32),
    }
    return Quality(
        n_synthetic=len(synthetic),
        n_real=len(real),
        distances={each: distribution_distances(encoder, images, real) for each, images in candidates.items()},
        held_out=floor,
        diversity=diversity(synthetic, real),
    )


def _floor(held_out: HeldOut, most: int) -> tuple[Images | None, Floor]:
    """The held-out images that are measured, and how many of how many patients, or why none is.

    No more than there are synthetic images: Frechet distances compare only at equal n.
    """
    if isinstance(held_out, str):
        return None, Floor(n=0, patients=0, left_out=held_out)
    some = held_out.where(evenly_spaced(len(held_out.image), most))
    few = len(some.image) < FEWEST_IMAGES
    why = f"too few for a distance, which needs {FEWEST_IMAGES}" if few else None
    return None if few else some.image, Floor(n=len(some.image), patients=len(set(some.patients)), left_out=why)
