"""Every metric, loss, statistic and accountant against a package that others wrote.

    python -m verification.agreement [--quick]

Each row: what was computed twice, how often, and the largest difference. Conventions that differ on purpose, and for
which a package is asked in another way, are in docs/verification.md.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage, stats

from ganseg_dist.federation.accountant import delta_of, epsilon_of
from ganseg_dist.losses import adversarial, segmentation
from ganseg_dist.losses.wasserstein import gradient_penalty
from ganseg_dist.metrics import detection, statistics, surface, synthesis
from ganseg_dist.metrics.classification import CALIBRATION_BINS, classification_scores
from ganseg_dist.metrics.image_sets import curve_areas
from ganseg_dist.metrics.lesionwise import lesionwise_scores
from ganseg_dist.metrics.segmentation import dice_score, iou_score, sensitivity, specificity

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "metrics"))


@dataclass(frozen=True, slots=True)
class Agreement:
    """One row of the table: a quantity computed by us and by another package."""

    what: str
    other: str
    n: int
    largest: float
    """Largest absolute difference."""
    bound: float
    """Largest difference that rounding allows; a larger one is an error."""

    @property
    def holds(self) -> bool:
        """Whether both numbers agree within `bound`."""
        return self.largest <= self.bound


def compared(what: str, other: str, pairs: Sequence[tuple[float, float]], bound: float) -> Agreement:
    """The row of pairs (ours, reference), each one number computed twice."""
    ours, reference = np.array(pairs, np.float64).T
    return Agreement(what, other, len(pairs), float(np.abs(ours - reference).max()), bound)


def sampled_masks(count: int) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[float, ...]]]:
    """Random 2-D and 3-D predictions, truths and voxel sizes; predictions are shifted, grown, shrunk or have specks."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        shape = (24, 30, 18) if seed % 2 else (48, 40)
        smooth = ndimage.gaussian_filter(rng.normal(size=shape), 1.5 + 1.5 * rng.random())
        truth = smooth > np.quantile(smooth, rng.uniform(0.7, 0.97))
        near = ndimage.gaussian_filter(smooth + 0.6 * smooth.std() * rng.normal(size=shape), 1.0)
        predicted = np.roll(near > np.quantile(near, rng.uniform(0.7, 0.97)), rng.integers(3), axis=0)
        yield predicted, truth, tuple(rng.uniform(0.5, 4.0, len(shape)).round(2).tolist())


def masks(count: int) -> Iterator[Agreement]:
    """Compare overlap, surface and lesion scores."""
    import medpy.metric.binary as medpy
    import surface_distance
    from monai.metrics import compute_hausdorff_distance
    from plain_lesionwise import plain_lesionwise
    from sklearn.metrics import jaccard_score, recall_score

    cases = list(sampled_masks(count))
    yield compared(
        "Dice",
        "surface-distance, compute_dice_coefficient",
        [(dice_score(p, t), surface_distance.compute_dice_coefficient(t, p)) for p, t, _ in cases],
        1e-12,
    )
    yield compared("Dice", "medpy, dc", [(dice_score(p, t), medpy.dc(p, t)) for p, t, _ in cases], 1e-12)
    flat = [(p.ravel(), t.ravel()) for p, t, _ in cases]
    yield compared(
        "IoU",
        "scikit-learn, jaccard_score",
        [(iou_score(p, t), jaccard_score(t, p)) for p, t in flat],
        1e-12,
    )
    for name, ours, label in (("sensitivity", sensitivity, 1), ("specificity", specificity, 0)):
        pairs = [(ours(p, t), recall_score(t, p, pos_label=label)) for p, t in flat]
        yield compared(name.capitalize(), "scikit-learn, recall_score", pairs, 1e-12)

    def by_monai(predicted: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> float:
        tensors = [torch.from_numpy(mask)[None, None] for mask in (predicted, truth)]
        return float(compute_hausdorff_distance(*tensors, percentile=95, spacing=list(spacing)))

    yield compared(
        "HD95, mm",
        "MONAI, compute_hausdorff_distance",
        [(surface.hd95(p, t, s), by_monai(p, t, s)) for p, t, s in cases],
        1e-4,
    )
    yield compared(
        "HD95 over both sides' distances at once",
        "medpy, hd95",
        [(_pooled_hd95(p, t, s), medpy.hd95(p, t, voxelspacing=s)) for p, t, s in cases],
        1e-9,
    )
    yield compared(
        "Lesion-wise Dice and HD95 of BraTS 2023",
        "the definition, transcribed on whole volumes",
        [
            pair
            for p, t, s in cases
            if p.ndim == 3
            for ours, (dice, hd95, *_) in [(lesionwise_scores(p, t, s), plain_lesionwise(p, t, s))]
            for pair in ((ours.dice, dice), (ours.hd95, hd95))
        ],
        1e-9,
    )


def _pooled_hd95(predicted: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> float:
    """HD95 as in medpy: the 95th percentile of all distances together, where ours is the larger of two percentiles."""
    predicted_points, truth_points = (
        surface.points_of(surface.surface_voxels(mask), spacing) for mask in (predicted, truth)
    )
    distances = [
        np.linalg.norm(a[:, None] - b, axis=2).min(axis=1)
        for a, b in ((predicted_points, truth_points), (truth_points, predicted_points))
    ]
    return float(np.percentile(np.hstack(distances), 95))


def classification(count: int) -> Iterator[Agreement]:
    """Compare rates, areas and thresholds."""
    from sklearn.metrics import (
        accuracy_score,
        average_precision_score,
        balanced_accuracy_score,
        f1_score,
        precision_score,
        recall_score,
        roc_auc_score,
        roc_curve,
    )
    from torchmetrics.functional.classification import multiclass_calibration_error

    rows: dict[str, list[tuple[float, float]]] = {}
    for seed in range(count):
        rng = np.random.default_rng(seed)
        truth = np.r_[0, 1, rng.integers(2, size=rng.integers(8, 60))]
        weights = rng.random((len(truth), 2)) + 0.3 * np.eye(2)[truth]
        probability = (weights / weights.sum(axis=1, keepdims=True)).round(rng.integers(1, 6))
        probability[:, 0] = 1 - probability[:, 1]
        predicted = probability.argmax(axis=1)
        scores = classification_scores(truth, probability, [f"p{i // 2}" for i in range(len(truth))], ("a", "b"))
        pairs_by_name: dict[str, tuple[Any, float]] = {
            "Accuracy": (scores.accuracy, accuracy_score(truth, predicted)),
            "Balanced accuracy": (scores.balanced_accuracy, balanced_accuracy_score(truth, predicted)),
            "Macro precision": (scores.precision, precision_score(truth, predicted, average="macro", zero_division=0)),
            "Macro recall": (scores.recall, recall_score(truth, predicted, average="macro")),
            "Macro F1": (scores.f1, f1_score(truth, predicted, average="macro")),
            "AUROC": (scores.auroc, roc_auc_score(truth, probability[:, 1])),
            "AUPRC": (scores.auprc, average_precision_score(truth, probability[:, 1])),
        }
        for name, (ours, reference) in pairs_by_name.items():
            rows.setdefault(name, []).append((ours.mean, float(reference)))
        # Confidences off the bins' edges: on an edge, ours counts in the lower bin, torchmetrics in the upper.
        unrounded = weights / weights.sum(axis=1, keepdims=True)
        ours = classification_scores(truth, unrounded, list(map(str, range(len(truth)))), ("a", "b"))
        reference_error = multiclass_calibration_error(
            torch.from_numpy(unrounded), torch.from_numpy(truth), 2, CALIBRATION_BINS
        )
        rows.setdefault(CALIBRATION, []).append((ours.expected_calibration_error.mean, float(reference_error)))
        score, abnormal = probability[:, 0], truth == 1
        rows.setdefault("AUROC of slices by low scores", []).append(
            (detection.auroc(score, abnormal) or 0.0, float(roc_auc_score(abnormal, -score)))
        )
        false, true, _ = roc_curve(abnormal, -score)
        best = detection.youden_optimal_threshold(score, abnormal)
        (row,) = detection.threshold_table(score, abnormal, [best or 0.0])
        rows.setdefault("Largest Youden's J", []).append((row.youden_j or 0.0, float((true - false).max())))
        weight = rng.random(len(truth))
        area = curve_areas(abnormal, -score, np.arange(len(truth)))(weight[None])["auroc"][0]
        rows.setdefault("AUROC of weighted images", []).append(
            (float(area), float(roc_auc_score(abnormal, -score, sample_weight=weight)))
        )
    for name, pairs in rows.items():
        if name == CALIBRATION:
            yield compared(name, "torchmetrics, float32", pairs, 1e-6)
        else:
            yield compared(name, "scikit-learn", pairs, 1e-9)


CALIBRATION = "Expected calibration error"


def images(count: int) -> Iterator[Agreement]:
    """Compare similarities of images and of sets of features."""
    from scipy.linalg import sqrtm
    from scipy.spatial.distance import pdist
    from sklearn.metrics.pairwise import polynomial_kernel
    from torchmetrics.functional.image import structural_similarity_index_measure
    from torchmetrics.image.kid import poly_mmd

    ssim, frechet, kernel, apart_within = [], [], [], []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        real = np.clip(ndimage.gaussian_filter(rng.normal(size=(2, 40, 32)), (0, 2, 2)) * 3, -1, 1)
        other = np.clip(real + 0.2 * rng.normal(size=real.shape), -1, 1)
        pair = [torch.from_numpy(array)[None] for array in (other, real)]
        _, full = structural_similarity_index_measure(*pair, data_range=2.0, return_full_image=True)
        ssim.append((synthesis.ssim(other, real), float(full[..., 5:-5, 5:-5].mean())))
        first, second = rng.normal(size=(60, 8)), rng.normal(size=(50, 8)) @ rng.normal(size=(8, 8))
        spread = [np.cov(features.T) for features in (first, second)]
        apart = ((first.mean(axis=0) - second.mean(axis=0)) ** 2).sum()
        plain = apart + np.trace(spread[0] + spread[1] - 2 * np.real(sqrtm(spread[0] @ spread[1])))
        frechet.append((synthesis.frechet_distance(first, second).value, float(plain)))
        subsets = first[:50], second
        within = [polynomial_kernel(features, degree=3, gamma=1 / 8, coef0=1) for features in subsets]
        between = polynomial_kernel(*subsets, degree=3, gamma=1 / 8, coef0=1).mean()
        plain = sum((k.sum() - np.trace(k)) / (50 * 49) for k in within) - 2 * between
        kernel.append((float(poly_mmd(*map(torch.from_numpy, subsets))), float(plain)))
        apart_within.append((synthesis.diversity(first, second).synthetic, float(pdist(first).mean())))
    yield compared("SSIM", "torchmetrics, windows within the image", ssim, 1e-9)
    yield compared("Frechet distance", "scipy, sqrtm of the covariances", frechet, 1e-7)
    yield compared("Kernel distance of a subset", "scikit-learn, polynomial_kernel", kernel, 1e-7)
    yield compared("Diversity", "scipy, pdist", apart_within, 1e-9)


def losses(count: int) -> Iterator[Agreement]:
    """Compare losses and their operators, in float32."""
    from monai.losses import DiceLoss, PatchAdversarialLoss
    from torch.nn import functional as F

    rows: dict[tuple[str, str], list[tuple[float, float]]] = {}

    def add(what: str, other: str, ours: torch.Tensor, theirs: torch.Tensor) -> None:
        rows.setdefault((what, other), []).append((float(ours), float(theirs)))

    dice = DiceLoss(smooth_nr=1.0, smooth_dr=1.0)
    real_or_fake = PatchAdversarialLoss(criterion="bce", no_activation_leastsq=True)
    for seed in range(count):
        torch.manual_seed(seed)
        logits, truth = torch.randn(3, 2, 16, 12), (torch.rand(3, 2, 16, 12) > 0.7).float()
        probability = torch.sigmoid(logits)
        add("Dice loss", "MONAI, DiceLoss", segmentation.dice_loss(probability, truth), dice(probability, truth))
        add(
            "Binary cross-entropy",
            "torch, of probabilities",
            segmentation.binary_cross_entropy_loss(logits, truth),
            F.binary_cross_entropy(probability, truth),
        )
        classes = torch.randint(2, (3, 16, 12))
        add(
            "Categorical cross-entropy",
            "torch, of log-softmax",
            segmentation.categorical_cross_entropy_loss(logits, classes),
            F.nll_loss(torch.log_softmax(logits, 1), classes),
        )
        real, fake, everywhere = torch.randn(3, 1, 5, 5), torch.randn(3, 1, 5, 5), torch.ones(3, 1, 5, 5)
        theirs = real_or_fake(real, True, True) + real_or_fake(fake, False, True)
        ours = adversarial.discriminator_loss(real, fake, everywhere)
        add("Discriminator's loss, all patches", "MONAI, PatchAdversarialLoss", ours, theirs)
        ours, theirs = adversarial.generator_loss(fake, everywhere), real_or_fake(fake, True, False)
        add("Generator's loss, all patches", "MONAI, PatchAdversarialLoss", ours, theirs)
        image = torch.rand(1, 1, 14, 11)
        plain = torch.from_numpy(ndimage.laplace(image[0, 0].numpy(), mode="nearest"))
        add("Laplacian", "scipy, laplace", (adversarial.laplacian(image)[0, 0] - plain).abs().max(), torch.tensor(0.0))
        weight = torch.randn(2 * 6 * 6)
        pair = torch.randn(2, 4, 2, 6, 6)
        penalty = gradient_penalty(
            lambda x, weight=weight: x.flatten(1) @ weight, pair[0], pair[1], torch.rand(4), torch.ones(4)
        )
        expected = (weight.norm() - 1) ** 2  # the gradient of a linear critic is its weight
        add("Gradient penalty", "a linear critic's slope", penalty, expected)
    for (what, other), pairs in rows.items():
        yield compared(what, other, pairs, 2e-5)


def tests(count: int) -> Iterator[Agreement]:
    """Compare statistics of differences."""
    t, flips, ranks, interval = [], [], [], []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        differences = rng.normal(rng.normal(), 1, rng.integers(6, 12))
        result = statistics.compare(differences[None])
        t.append((result.p_t or 0.0, float(stats.ttest_1samp(differences, 0).pvalue)))
        ranks.append((result.p_wilcoxon or 0.0, float(stats.wilcoxon(differences).pvalue)))
        permutation = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=9999)
        flips.append((result.p_sign_flip or 0.0, float(permutation.pvalue)))
        even = np.r_[differences, -differences]
        low, high = stats.t.interval(0.95, len(even) - 1, loc=even.mean(), scale=stats.sem(even))
        ours = statistics.mean_interval(even.tolist())
        interval += [(ours.low, float(low)), (ours.high, float(high))]
    yield compared("Paired t, p", "scipy, ttest_1samp", t, 1e-12)
    yield compared("Sign flips, p", "scipy, permutation_test", flips, 1e-12)
    yield compared("Wilcoxon, p", "scipy, wilcoxon", ranks, 1e-12)
    yield compared("Interval of symmetric values", "scipy, t.interval", interval, 1e-12)


def accountants(count: int) -> Iterator[Agreement]:
    """Compare privacy accountants."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant
    from dp_accounting.rdp import RdpAccountant

    from ganseg_dist.engine.patient_privacy import epsilon_of_steps

    settings = list(product((0.8, 1.5, 4.0), (1, 12, 60), (1e-5, 1e-7)))[: max(count // 8, 4)]
    exact, closed, patients = [], [], []
    for noise, releases, delta in settings:
        epsilon = epsilon_of(noise, releases, delta)
        pld = PLDAccountant(value_discretization_interval=1e-4)
        pld.compose(GaussianDpEvent(noise), releases)
        exact.append((epsilon, float(pld.get_epsilon(delta))))
        mu = np.sqrt(releases) / noise
        closed.append((delta_of(epsilon, mu), delta))
        rdp = RdpAccountant(RDP_ORDERS)
        rdp.compose(PoissonSampledDpEvent(0.1, GaussianDpEvent(noise)), releases)
        patients.append((epsilon_of_steps(noise, 0.1, releases, delta), float(rdp.get_epsilon(delta))))
    yield compared("Epsilon of releases to hospitals", "dp-accounting, PLDAccountant", exact, 2e-3)
    yield compared("Delta at that epsilon", "the delta asked for", closed, 1e-9)
    yield compared("Epsilon of a patient (Opacus, RDP)", "dp-accounting, RdpAccountant", patients, 0.05)


RDP_ORDERS = [1 + x / 10.0 for x in range(1, 100)] + list(range(12, 64))
"""The orders of Opacus: an epsilon from Renyi divergences is the minimum over the given orders."""

SECTIONS: dict[str, Callable[[int], Iterator[Agreement]]] = {
    "Masks": masks,
    "Classification and detection": classification,
    "Images and features": images,
    "Losses": losses,
    "Statistics": tests,
    "Accountants": accountants,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table. Returns 1 where two packages disagree."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="a few of each: shows that all run")
    count = 8 if options.parse_args(arguments).quick else 300
    warnings.simplefilter("ignore")  # deprecation warnings of other packages
    logging.getLogger("absl").setLevel(logging.ERROR)  # dp-accounting logs the orders that it skips
    wrong = 0
    print("| what | against | n | largest difference | |\n|---|---|---|---|---|")
    for title, section in SECTIONS.items():
        print(f"| **{title}** | | | | |")
        for row in section(count):
            wrong += not row.holds
            print(f"| {row.what} | {row.other} | {row.n} | {row.largest:.1g} | {'' if row.holds else 'DISAGREES'} |")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
