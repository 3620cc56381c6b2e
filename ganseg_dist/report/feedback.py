"""The report's sentences on the adversarial feedback L_adv."""

from __future__ import annotations

from collections.abc import Iterator

from ganseg_dist.metrics.statistics import Interval
from ganseg_dist.plural import counted
from ganseg_dist.report.labels import between, joined, signed_number
from ganseg_dist.systems.ganet_seg.feedback_evidence import RING, FeedbackEvidence


def feedback_sentences(feedback: FeedbackEvidence) -> Iterator[str]:
    """Which masks L_adv prefers, and where its gradient points."""
    yield from _preferences(feedback)
    if feedback.cosine is not None:
        cosine = f"{signed_number(feedback.cosine.mean)} ({_bounds(feedback.cosine)})"
        yield (
            "At the segmenter's output, the gradients of L_adv and of the segmentation loss have a cosine of "
            f"{cosine}: 1 is the same direction, 0 none in common."
        )
    grown, shrunk = (_percent(share) for share in (feedback.grown, feedback.shrunk))
    yield (
        f"Of a mask {RING} pixels too small, {grown} of the gradient on the missing ring adds to it; of one {RING} "
        f"pixels too large, {shrunk} on the surplus ring takes it away (chance: 50%)."
    )


def _preferences(feedback: FeedbackEvidence) -> Iterator[str]:
    """A mask with a lower L_adv is preferred, because the segmenter is trained to lower it."""
    n = feedback.losses["true"].n
    margins = {
        name: f"{name} {signed_number(margin.difference.mean)} ({_bounds(margin.difference)})"
        for name, margin in feedback.margins.items()
    }
    yield f"L_adv less that of the true mask, {counted(n, 'patient')}: {', '.join(margins.values())}."
    groups: dict[str, list[str]] = {}
    for name, margin in feedback.margins.items():
        groups.setdefault(_preferred(margin.differs, margin.difference.mean), []).append(name)
    sentences = {
        "true": "The true mask is preferred to: {}.",
        "wrong": "Preferred to the true mask, so that training is led away from it: {}.",
        "none": "No preference is shown between the true mask and: {}.",
        "few": "Too few patients to tell which mask is preferred.",
    }
    for kind, sentence in sentences.items():
        if kind in groups:
            yield sentence.format(joined(groups[kind]))


def _preferred(differs: bool | None, margin: float) -> str:
    if differs is None:
        return "few"
    if not differs:
        return "none"
    return "true" if margin > 0 else "wrong"


def _bounds(interval: Interval) -> str:
    return f"95% {between(interval, signed=True)}" if interval.known else f"n = {interval.n}"


def _percent(share: Interval) -> str:
    bounds = f" (95% {100 * share.low:.0f} to {100 * share.high:.0f})" if share.known else ""
    return f"{100 * share.mean:.0f}%{bounds}"
