"""Whole-image classes: cross-entropy, and the scores of a classifier."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ganseg_dist.systems.base import Ratio

UNKNOWN = -1
"""`Batch.label` of an example that a classifier is not trained on."""


def cross_entropies(logits: Tensor, label: Tensor) -> Tensor:
    """(B,) cross-entropy of each example, 0 where the class is unknown; logits (B, K), label (B,) int64."""
    return F.cross_entropy(logits.float(), label, reduction="none", ignore_index=UNKNOWN)


def classification_ratios(logits: Tensor, label: Tensor) -> dict[str, Ratio]:
    """`accuracy` and `cross_entropy` over the examples whose class is known; logits (B, K), label (B,) int64."""
    known = (label != UNKNOWN).double()
    correct = (logits.argmax(1) == label).double()
    return {
        "accuracy": Ratio(correct, known, known),
        "cross_entropy": Ratio(cross_entropies(logits, label).double(), known, known),
    }
