"""What the evaluation of a GANet-Seg run shows of its GAN: how it fills holes, and where its feedback points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ganseg_dist.data.formats import Volume
from ganseg_dist.data.labels import Labels
from ganseg_dist.systems.ganet_seg.feedback_evidence import feedback_evidence
from ganseg_dist.systems.ganet_seg.hole_evidence import hole_evidence
from ganseg_dist.systems.ganet_seg.system import GANetSeg


def evidence(
    system: GANetSeg,
    seed: int,
    healthy: Sequence[tuple[str, Volume]],
    lesions: Sequence[tuple[str, Volume, Labels]],
) -> dict[str, Any] | None:
    """Of held-out slices; None for the control, which has no GAN, and without tumour-free slices.

    Args:
        seed: of the drawn holes.
        healthy: patient and image (C, size, size) of tumour-free slices.
        lesions: patient, image and masks (R, size, size) of slices with a lesion.
    """
    if not system.config.gan or not healthy:
        return None
    image = np.stack([plane for _, plane in healthy])[:, system.gan_channels]
    holes = hole_evidence(system, seed, image, [patient for patient, _ in healthy])
    found: dict[str, Any] = {
        "hole_l1": holes.hole_l1.mean,
        "biharmonic_l1": holes.biharmonic_l1.mean,
        "guess_l1": holes.guess_l1.mean,
        "hole_l1_interval": asdict(holes.hole_l1),
        "biharmonic_l1_interval": asdict(holes.biharmonic_l1),
        "guess_l1_interval": asdict(holes.guess_l1),
        "less_biharmonic": asdict(holes.less_biharmonic),
        "n_holes": holes.n_holes,
        "psnr": holes.psnr,
        "ssim": holes.ssim,
    }
    if lesions:
        image, masks = (np.stack(planes) for planes in zip(*[lesion[1:] for lesion in lesions], strict=True))
        feedback = feedback_evidence(system, image, masks, [patient for patient, _, _ in lesions])
        if feedback is not None:
            found["feedback"] = asdict(feedback)
    return found
