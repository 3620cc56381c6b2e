"""What synthetic images are measured against: the images that their generator learnt from, and two controls."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ganseg_dist.data.slices import SliceSet
from ganseg_dist.inference.encoder import Encoder, distribution_distances
from ganseg_dist.inference.generation import Generated, learnt_classes
from ganseg_dist.inference.painting import Paintings
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.metrics.synthesis import FEWEST_IMAGES, Images, diversity, structural_similarity
from ganseg_dist.systems.gan_detector import GANDetector

MOST_TRAINING_IMAGES = 4000
"""About a gigabyte of four modalities."""


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """What a generator may have memorised."""

    image: npt.NDArray[np.float32]
    """(M, C, size, size) in [-1, 1]; where training flips its images, their flipped copies stand behind them."""
    patients: tuple[str, ...]
    """(M,)"""
    classes: tuple[str | None, ...]
    """(M,) where the system tells classes apart."""
    flipped: bool
    """Whether half of them are flipped copies."""


def training_images(predictor: Predictor, slices: SliceSet, *, most: int = MOST_TRAINING_IMAGES) -> TrainingImages:
    """The slices that the generator learnt from, at most `most`, evenly spread.

    Training that flips its images makes a flipped copy a copy.
    """
    system, config = predictor.system, predictor.config
    names = config.data.classes or ()
    classes = [names[label] if names and label >= 0 else None for label in slices.label]
    learnt = np.arange(len(slices))
    if isinstance(system, GANDetector):
        learnt = np.flatnonzero([name in learnt_classes(system) for name in classes])
    chosen = learnt[np.unique(np.linspace(0, len(learnt) - 1, min(len(learnt), most)).astype(np.int64))]
    image, _ = slices.read(chosen)
    patients = tuple(slices.cases[slices.case_of[index]].patient for index in chosen)
    kinds = tuple(classes[index] for index in chosen)
    augmented = any(stage.augmented for stage in system.stages if "generator" in stage.networks)
    if not augmented or not config.data.augment.flip:
        return TrainingImages(image, patients, kinds, flipped=False)
    return TrainingImages(np.concatenate([image, image[..., ::-1]]), patients * 2, kinds * 2, flipped=True)


def painting_quality(paintings: Paintings, training: TrainingImages, encoder: Encoder, seed: int = 0) -> dict[str, Any]:
    """How near the paintings are to the training images; SSIM is with the real image of each one's mask."""
    return {
        "flipped": training.flipped,
        **_against_controls("paintings", paintings.image, training.image, encoder, seed),
        "ssim": asdict(structural_similarity(paintings.image, paintings.real, paintings.patients)),
    }


def class_quality(generated: Generated, training: TrainingImages, encoder: Encoder, seed: int = 0) -> dict[str, Any]:
    """How near each class's generated images are to its training images; None where either are too few."""
    said: dict[str, Any] = {}
    for name in dict.fromkeys(generated.classes):
        ours, theirs = (images.image[[own == name for own in images.classes]] for images in (generated, training))
        enough = min(len(ours), len(theirs)) >= FEWEST_IMAGES
        said[name] = {"n_synthetic": len(ours), "n_real": len(theirs), "distances": None, "diversity": None} | (
            _against_controls("generated", ours, theirs, encoder, seed) if enough else {}
        )
    return {"flipped": training.flipped, "classes": said}


def _against_controls(name: str, synthetic: Images, real: Images, encoder: Encoder, seed: int) -> dict[str, Any]:
    """Distances of distributions, each with its n, and diversity; `name` is what the synthetic images are called.

    Two controls that any generator must beat are beside them: uniform noise, and the mean real image (with a
    thousandth of noise, for a distribution of one image has no covariance), as many of each.
    """
    rng = np.random.default_rng(seed)
    mean = np.broadcast_to(real.mean(axis=0), synthetic.shape) + 1e-3 * rng.standard_normal(synthetic.shape)
    candidates = {
        name: synthetic,
        "control: noise": rng.uniform(-1, 1, synthetic.shape).astype(np.float32),
        "control: mean image": mean.clip(-1, 1).astype(np.float32),
    }
    return {
        "distances": {each: distribution_distances(encoder, images, real) for each, images in candidates.items()},
        "diversity": asdict(diversity(synthetic, real)),
    }
