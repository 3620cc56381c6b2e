"""Evidence that the healthy model has learnt anatomy, and that its feedback carries a signal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import binary_erosion
from skimage.restoration import inpaint_biharmonic
from torchmetrics.functional.image import peak_signal_noise_ratio

from ganseg_dist.data.batch import BACKGROUND
from ganseg_dist.data.formats import Volume
from ganseg_dist.data.holes import cut_holes, draw_holes
from ganseg_dist.data.labels import Labels
from ganseg_dist.metrics.statistics import Interval, bootstrap_mean
from ganseg_dist.metrics.synthesis import ssim
from ganseg_dist.models.inpainting import smooth_fill
from ganseg_dist.systems.ganet_seg import WHOLE_TUMOUR, GANetSeg

MOST_SLICES = 48
EROSION = 3
SHIFT = 8
FEWEST_PATIENTS = 3
SMALLEST_LESION = 80
"""Pixels; a smaller one vanishes when eroded."""


@dataclass(frozen=True, slots=True)
class HoleEvidence:
    """Reconstruction of random holes in held-out tumour-free slices."""

    hole_l1: Interval
    biharmonic_l1: Interval
    """scikit-image's biharmonic inpainting of the same holes."""
    guess_l1: Interval
    """The smooth guess that the generator starts from: what is below it has been learnt."""
    n_holes: int
    psnr: float
    """dB, data range 2, of whole filled slices."""
    ssim: float


@dataclass(frozen=True, slots=True)
class FeedbackEvidence:
    """L_adv of the true mask and of wrong ones, on held-out slices with a lesion."""

    losses: dict[str, Interval]
    """true, eroded, shifted, empty (scored on the true mask's edge)."""
    margins: dict[str, Interval]
    """Wrong less true, slice by slice: above 0 where the feedback points to the truth."""

    @property
    def signal(self) -> bool | None:
        """Whether the true mask is preferred to every wrong one, by intervals that exclude 0; none: too few patients.

        An interval over one or two patients is hardly wider than its mean.
        """
        if self.losses["true"].n < FEWEST_PATIENTS:
            return None
        return all(margin.low > 0 for margin in self.margins.values())


def hole_evidence(system: GANetSeg, seed: int, image: Volume, owners: list[str]) -> HoleEvidence:
    """Fill drawn holes in tumour-free slices (N, C', size, size) and compare with biharmonic inpainting.

    Args:
        owners: each slice's patient; intervals resample patients.
    """
    chosen = _spread(len(image))
    planes = torch.from_numpy(np.ascontiguousarray(image[chosen]))
    drawn = [draw_holes(system.config.holes, np.random.default_rng([seed, 3, index])) for index in chosen]
    body = (planes > BACKGROUND).any(dim=1, keepdim=True)
    holes = cut_holes(torch.from_numpy(np.stack(drawn)), body)
    with torch.inference_mode():
        device = next(system.networks["generator"].parameters()).device
        filled = system.fill(planes.to(device), holes.to(device))[0].cpu()
    ours = _hole_error(filled, planes, holes)
    smooth = torch.stack([_biharmonic(plane, hole) for plane, hole in zip(planes, holes[:, 0], strict=True)])
    theirs = _hole_error(smooth, planes, holes)
    guess = _hole_error(smooth_fill(planes * (1 - holes), 1 - holes), planes, holes)
    patients = [owners[index] for index in chosen]
    return HoleEvidence(
        bootstrap_mean(ours, patients),
        bootstrap_mean(theirs, patients),
        bootstrap_mean(guess, patients),
        len(chosen) * system.config.holes.count,
        float(peak_signal_noise_ratio(filled, planes, data_range=2.0)),
        float(np.mean([ssim(*pair) for pair in zip(filled.numpy(), planes.numpy(), strict=True)])),
    )


def feedback_evidence(system: GANetSeg, image: Volume, masks: Labels, owners: list[str]) -> FeedbackEvidence | None:
    """L_adv on slices (N, C, size, size) with masks (N, R, size, size); none where no lesion is large enough."""
    truth = masks[:, WHOLE_TUMOUR] > 0
    eroded = np.stack([binary_erosion(mask, iterations=EROSION) for mask in truth]) if len(truth) else truth
    large = np.flatnonzero((truth.sum(axis=(1, 2)) >= SMALLEST_LESION) & eroded.any(axis=(1, 2)))
    if len(large) == 0:
        return None
    chosen = large[_spread(len(large))]
    candidates = {
        "true": truth[chosen],
        "eroded": eroded[chosen],
        "shifted": np.roll(truth[chosen], SHIFT, axis=2),
        "empty": np.zeros_like(truth[chosen]),
    }
    losses = {name: _feedback(system, image[chosen], mask, truth[chosen]) for name, mask in candidates.items()}
    patients = [owners[index] for index in chosen]
    margins = {
        name: bootstrap_mean([wrong - right for wrong, right in zip(values, losses["true"], strict=True)], patients)
        for name, values in losses.items()
        if name != "true"
    }
    return FeedbackEvidence({name: bootstrap_mean(values, patients) for name, values in losses.items()}, margins)


def _feedback(
    system: GANetSeg, image: Volume, mask: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]
) -> list[float]:
    device = next(system.networks["generator"].parameters()).device
    values = []
    with torch.inference_mode():
        for plane, here, edge in zip(image, mask, truth, strict=True):
            shown = torch.from_numpy(plane[system.gan_channels])[None].to(device)
            as_mask = torch.from_numpy(here)[None, None].float().to(device)
            as_edge = torch.from_numpy(edge)[None, None].float().to(device)
            edges_of = as_edge if not here.any() else None
            values.append(float(system.feedback(shown, as_mask, edges_of)))
    return values


def _hole_error(filled: torch.Tensor, planes: torch.Tensor, holes: torch.Tensor) -> list[float]:
    error = ((filled - planes).abs() * holes).flatten(1).sum(1)
    return (error / (holes.flatten(1).sum(1) * planes.shape[1]).clamp(min=1)).tolist()


def _biharmonic(plane: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    filled = inpaint_biharmonic(plane.numpy().astype(np.float64), hole.numpy() > 0, channel_axis=0)
    return torch.from_numpy(np.clip(filled, -1, 1)).float()


def _spread(count: int) -> npt.NDArray[np.intp]:
    """Up to MOST_SLICES indices, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_SLICES)).astype(np.intp))
