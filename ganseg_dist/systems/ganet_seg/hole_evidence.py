"""Evidence of the healthy model's knowledge of anatomy: how well it fills holes in held-out slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from skimage.restoration import inpaint_biharmonic
from torchmetrics.functional.image import peak_signal_noise_ratio

from ganseg_dist.data.batch import BACKGROUND
from ganseg_dist.data.grid import Volume
from ganseg_dist.metrics.statistics import Interval, PairedComparison, compare, mean_interval, pseudo_values
from ganseg_dist.metrics.synthesis import ssim
from ganseg_dist.sampling import evenly_spaced
from ganseg_dist.systems.ganet_seg.holes import cut_holes, sample_holes
from ganseg_dist.systems.ganet_seg.networks import smooth_fill
from ganseg_dist.systems.ganet_seg.system import GANetSeg

MOST_SLICES = 48


@dataclass(frozen=True, slots=True)
class HoleEvidence:
    """Reconstruction of random holes in held-out tumour-free slices."""

    hole_l1: Interval
    biharmonic_l1: Interval
    """scikit-image's biharmonic inpainting of the same holes."""
    less_biharmonic: PairedComparison
    """The generator's less the biharmonic, slice by slice: below 0 where it predicts more than smoothness."""
    guess_l1: Interval
    """The smooth guess that the generator starts from: training is what lowers the L1 below it."""
    n_holes: int
    psnr: float
    """dB, data range 2, of whole filled slices."""
    ssim: float


def hole_evidence(system: GANetSeg, seed: int, image: Volume, owners: list[str]) -> HoleEvidence:
    """Fill drawn holes in the owners' tumour-free slices (N, C', size, size) and compare with biharmonic inpainting."""
    chosen = evenly_spaced(len(image), MOST_SLICES)
    planes = torch.from_numpy(np.ascontiguousarray(image[chosen]))
    samples = [sample_holes(system.config.holes, np.random.default_rng([seed, 3, index])) for index in chosen]
    foreground = (planes > BACKGROUND).any(dim=1, keepdim=True)
    holes = cut_holes(torch.from_numpy(np.stack(samples)), foreground)
    with torch.inference_mode():
        device = next(system.networks["generator"].parameters()).device
        filled = system.fill(planes.to(device), holes.to(device))[0].cpu()
    generated = _hole_error(filled, planes, holes)
    smooth = torch.stack([_biharmonic(plane, hole) for plane, hole in zip(planes, holes[:, 0], strict=True)])
    biharmonic = _hole_error(smooth, planes, holes)
    guess = _hole_error(smooth_fill(planes * (1 - holes), 1 - holes), planes, holes)
    patients = [owners[index] for index in chosen]
    return HoleEvidence(
        mean_interval(generated, patients),
        mean_interval(biharmonic, patients),
        compare(pseudo_values(np.subtract(generated, biharmonic), np.array(patients))),
        mean_interval(guess, patients),
        len(chosen) * system.config.holes.count,
        float(peak_signal_noise_ratio(filled, planes, data_range=2.0)),
        float(np.mean([ssim(*pair) for pair in zip(filled.numpy(), planes.numpy(), strict=True)])),
    )


def _hole_error(filled: torch.Tensor, planes: torch.Tensor, holes: torch.Tensor) -> list[float]:
    error = ((filled - planes).abs() * holes).flatten(1).sum(1)
    return (error / (holes.flatten(1).sum(1) * planes.shape[1]).clamp(min=1)).tolist()


def _biharmonic(plane: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    filled = inpaint_biharmonic(plane.numpy().astype(np.float64), hole.numpy() > 0, channel_axis=0)
    return torch.from_numpy(np.clip(filled, -1, 1)).float()
