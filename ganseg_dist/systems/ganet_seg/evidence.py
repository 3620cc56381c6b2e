"""The evaluation of a GANet-Seg run's GAN: how it fills holes, and where its feedback points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ganseg_dist.data.grid import Volume
from ganseg_dist.data.labels import Labels
from ganseg_dist.records import Record
from ganseg_dist.systems.ganet_seg.feedback_evidence import FeedbackEvidence, feedback_evidence
from ganseg_dist.systems.ganet_seg.hole_evidence import HoleEvidence, hole_evidence
from ganseg_dist.systems.ganet_seg.system import GANetSeg


class Evidence(Record):
    """The `evidence` of summary.json."""

    holes: HoleEvidence
    feedback: FeedbackEvidence | None
    """None where no lesion is large enough."""


def evidence(
    system: GANetSeg,
    seed: int,
    healthy: Sequence[tuple[str, Volume]],
    lesions: Sequence[tuple[str, Volume, Labels]],
) -> Evidence | None:
    """Evidence of held-out slices, each with its patient: healthy (C, size, size), and with masks (R, size, size).

    None for the control, which has no GAN, and without tumour-free slices. The seed is that of the drawn holes.
    """
    if not system.config.gan or not healthy:
        return None
    image = np.stack([plane for _, plane in healthy])[:, system.gan_channels]
    holes = hole_evidence(system, seed, image, [patient for patient, _ in healthy])
    feedback = None
    if lesions:
        image, masks = (np.stack(planes) for planes in zip(*[lesion[1:] for lesion in lesions], strict=True))
        feedback = feedback_evidence(system, image, masks, [patient for patient, _, _ in lesions])
    return Evidence(holes=holes, feedback=feedback)
