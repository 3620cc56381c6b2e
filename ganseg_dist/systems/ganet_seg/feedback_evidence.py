"""Evidence of the adversarial feedback: L_adv of true and wrong masks, and the direction of its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import binary_dilation, binary_erosion
from torch import Tensor

from ganseg_dist.data.batch import BACKGROUND
from ganseg_dist.data.grid import Volume
from ganseg_dist.data.labels import Labels
from ganseg_dist.metrics.masks import Mask
from ganseg_dist.metrics.statistics import Interval, PairedComparison, compare, mean_interval, pseudo_values
from ganseg_dist.sampling import evenly_spaced
from ganseg_dist.systems.ganet_seg.hole_evidence import MOST_SLICES
from ganseg_dist.systems.ganet_seg.system import WHOLE_TUMOUR, GANetSeg
from ganseg_dist.systems.regions import region_probability, segmentation_loss

EROSION, DILATION, SHIFT = 3, 4, 8
"""Pixels by which wrong masks are too small, too large and beside the lesion."""
RING = 2
"""Pixels on either side of the boundary in which the gradient is measured."""
SMALLEST_LESION = 80
"""Pixels; a smaller one vanishes when eroded."""


@dataclass(frozen=True, slots=True)
class FeedbackEvidence:
    """On held-out slices with a lesion; intervals are over patients."""

    losses: dict[str, Interval]
    """L_adv of the true mask and of wrong ones: eroded, dilated, shifted, the whole foreground, empty (scored on the
    true mask's edge)."""
    margins: dict[str, PairedComparison]
    """Wrong less true, slice by slice: above 0 where L_adv prefers the true mask, below 0 where the wrong one."""
    cosine: Interval | None
    """Between the gradients of L_adv and of the segmentation loss at the segmenter's output, for its predictions: 1
    where both move the mask alike, 0 where they are orthogonal. None where a gradient vanishes everywhere."""
    grown: Interval
    """Of a mask too small by RING pixels: the share of the gradient on the missing ring by which a step adds to it."""
    shrunk: Interval
    """Of a mask too large by RING pixels: the share of the gradient on the surplus ring by which a step takes it away.
    Chance is a half."""


def feedback_evidence(system: GANetSeg, image: Volume, masks: Labels, owners: list[str]) -> FeedbackEvidence | None:
    """From the owners' slices (N, C, size, size) with masks (N, R, size, size); None if no lesion is large enough."""
    truth = masks[:, WHOLE_TUMOUR] > 0
    large = [
        index
        for index, mask in enumerate(truth)
        if mask.sum() >= SMALLEST_LESION and binary_erosion(mask, iterations=EROSION).any()
    ]
    if not large:
        return None
    chosen = np.array(large)[evenly_spaced(len(large), MOST_SLICES)]
    image, masks, truth = image[chosen], masks[chosen], truth[chosen]
    patients = [owners[index] for index in chosen]
    losses = {
        name: [_feedback(system, plane, mask, true) for plane, mask, true in zip(image, wrong, truth, strict=True)]
        for name, wrong in _candidates(image, truth)
    }
    cosines = [_cosine(system, plane, regions) for plane, regions in zip(image, masks, strict=True)]
    known = [(cosine, patient) for cosine, patient in zip(cosines, patients, strict=True) if cosine is not None]
    shares = [_shares(system, plane, true) for plane, true in zip(image, truth, strict=True)]
    grown, shrunk = zip(*shares, strict=True)
    return FeedbackEvidence(
        {name: mean_interval(values, patients) for name, values in losses.items()},
        {
            name: compare(pseudo_values(np.subtract(values, losses["true"]), np.array(patients)))
            for name, values in losses.items()
            if name != "true"
        },
        mean_interval(*map(list, zip(*known, strict=True)), bounds=(-1, 1)) if known else None,
        mean_interval(grown, patients, bounds=(0, 1)),
        mean_interval(shrunk, patients, bounds=(0, 1)),
    )


def _candidates(image: Volume, truth: Mask) -> Iterator[tuple[str, Mask]]:
    """True masks and wrong ones, (N, size, size); too large ones stay within the foreground."""
    foreground = np.asarray((image > BACKGROUND).any(axis=1))
    yield "true", truth
    yield "eroded", np.stack([binary_erosion(mask, iterations=EROSION) for mask in truth])
    yield "dilated", np.stack([_grown(mask, DILATION, inside) for mask, inside in zip(truth, foreground, strict=True)])
    yield "shifted", np.roll(truth, SHIFT, axis=2)
    yield "whole foreground", foreground
    yield "empty", np.zeros_like(truth)


def _grown(mask: Mask, pixels: int, foreground: Mask) -> Mask:
    return mask | (np.asarray(binary_dilation(mask, iterations=pixels)) & foreground)


def _feedback(system: GANetSeg, plane: Volume, mask: Mask, truth: Mask) -> float:
    """L_adv; an empty mask has no edge, and is scored on the true one's."""
    with torch.inference_mode():
        edges_of = _tensor(system, truth)[None, None] if not mask.any() else None
        return float(system.feedback(_gan_input(system, plane), _tensor(system, mask)[None, None], edges_of))


def _cosine(system: GANetSeg, plane: Volume, regions: Labels) -> float | None:
    """Cosine of both losses' gradients at the segmenter's logits; None where one of them is 0."""
    device = _device(system)
    with torch.no_grad():
        logits = system.networks["segmenter"](torch.from_numpy(plane)[None].to(device)).float()
    logits.requires_grad_()
    truth = torch.from_numpy(regions)[None].float().to(device)
    mask = region_probability(logits, system.head)[:, [WHOLE_TUMOUR]]
    adversarial = torch.autograd.grad(system.feedback(_gan_input(system, plane), mask), logits)[0]
    supervised = torch.autograd.grad(segmentation_loss(logits, truth, system.head, reduce=system.reduce), logits)[0]
    norms = float(adversarial.norm() * supervised.norm())
    return float((adversarial * supervised).sum()) / norms if norms > 0 else None


def _shares(system: GANetSeg, plane: Volume, truth: Mask) -> tuple[float, float]:
    """Shares of L_adv's gradient by which a step grows a too small mask, and shrinks a too large one."""
    foreground = np.asarray((plane > BACKGROUND).any(axis=0))
    small, large = np.asarray(binary_erosion(truth, iterations=RING)), _grown(truth, RING, foreground)
    # A step goes against the gradient: below 0 it adds to the mask.
    adds, takes = -_gradient(system, plane, small), _gradient(system, plane, large)
    return _share_above_0(adds[truth & ~small]), _share_above_0(takes[large & ~truth])


def _gradient(system: GANetSeg, plane: Volume, mask: Mask) -> Volume:
    """Gradient of L_adv by the mask, (size, size), as in training."""
    soft = _tensor(system, mask)[None, None].requires_grad_()
    return torch.autograd.grad(system.feedback(_gan_input(system, plane), soft), soft)[0][0, 0].cpu().numpy()


def _share_above_0(values: Volume) -> float:
    """A half where all values are 0."""
    total = np.abs(values).sum()
    return float(values[values > 0].sum() / total) if total > 0 else 0.5


def _gan_input(system: GANetSeg, plane: Volume) -> Tensor:
    """(1, C', size, size): the channels that the GAN sees."""
    return torch.from_numpy(plane[system.gan_channels])[None].to(_device(system))


def _tensor(system: GANetSeg, mask: Mask) -> Tensor:
    return torch.from_numpy(mask).float().to(_device(system))


def _device(system: GANetSeg) -> torch.device:
    return next(system.networks["generator"].parameters()).device
