"""A GANet-Seg run's healthy model in the report and the terminal: holes, feedback, anomaly maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ganseg_dist.metrics.statistics import Interval
from ganseg_dist.plots.intervals import interval_chart
from ganseg_dist.plots.save import svg
from ganseg_dist.plural import counted
from ganseg_dist.report import pictures, score_text
from ganseg_dist.report.score_text import between, joined, signed_number
from ganseg_dist.report.section import Chart, PartResults, Section, interval_bar
from ganseg_dist.systems.ganet_seg.evidence import Evidence
from ganseg_dist.systems.ganet_seg.feedback_evidence import RING, FeedbackEvidence
from ganseg_dist.systems.ganet_seg.hole_evidence import HoleEvidence

TEMPLATE = """
{% from "macros.html.j2" import absent, charts, strips %}
{% if view.charts %}
<p>{{ view.holes }}</p>
{{ charts(view.charts) }}
{% endif %}
{% if view.strips %}
<h3>Healthy reconstructions and anomaly maps</h3>
{% if view.scale %}<p class="scale"><span class="quiet">like healthy tissue</span> {{ "%.2f" | format(view.scale.low) }} <img src="{{ view.scale.bar }}" alt="Colour scale of the anomaly maps, dark to bright"> {{ "%.2f" | format(view.scale.high) }} <span class="quiet">unlike it; one scale for all maps</span></p>{% endif %}
{{ strips(view.strips) }}
{% else %}
{{ absent("No reconstructions or anomaly maps were kept.") }}
{% endif %}
"""  # noqa: E501


def healthy_view(results: PartResults) -> dict[str, Any] | None:
    """The template's values; None without evidence and without pictures by the healthy model."""
    evidence, regions = results.evidence(Evidence), results.summary.regions
    scale = pictures.anomaly_scale(results.examples)
    strips = pictures.healthy_strips(results, scale)
    if evidence is None and not strips:
        return None
    description, charts = "", []
    if evidence is not None:
        description = _describe(evidence.holes, results)
        charts.append(_hole_chart(evidence.holes, score_text.lesion_free(regions, results.modalities)))
        if evidence.feedback is not None:
            charts.append(_feedback_chart(evidence.feedback))
    return {"holes": description, "charts": charts, "strips": strips, "scale": scale}


def lines(evidence: Mapping[str, Any]) -> Iterator[str]:
    """The evidence in lines for a terminal."""
    found = Evidence.model_validate(evidence)
    holes = found.holes
    yield (
        f"healthy holes, L1: {holes.hole_l1.mean:.4f} against biharmonic {holes.biharmonic_l1.mean:.4f}; "
        f"smooth guess {holes.guess_l1.mean:.4f}"
    )
    if found.feedback is not None:
        yield "adversarial feedback:"
        yield from (f"  {sentence}" for sentence in feedback_sentences(found.feedback))


def describe_holes(holes: HoleEvidence) -> str:
    """Compare the generator's L1 in holes of healthy tissue with that of biharmonic interpolation."""
    outcome = score_text.verdict(holes.less_biharmonic, "hole_l1") or score_text.TOO_FEW
    outcome = f"the generator is {outcome}" if holes.less_biharmonic.differs else outcome
    levels = f"{holes.hole_l1.mean:.4f} by the generator, {holes.biharmonic_l1.mean:.4f} by biharmonic interpolation"
    return f"Holes in healthy tissue are filled with an L1 of {levels}: {outcome}."


def _describe(holes: HoleEvidence, results: PartResults) -> str:
    description = f"{describe_holes(holes)} PSNR {holes.psnr:.1f} dB, SSIM {score_text.number(holes.ssim)}."
    detection = results.summary.detection
    if detection is None or detection.auroc is None:
        return description
    auroc = score_text.number(detection.auroc)
    return f"{description} The discriminator distinguishes slices with and without a lesion at AUROC {auroc}."


def _hole_chart(holes: HoleEvidence, lesion_free: str) -> Chart:
    bars = [
        interval_bar("generator", holes.hole_l1, emphasised=True),
        interval_bar("biharmonic", holes.biharmonic_l1),
        interval_bar("smooth guess", holes.guess_l1),
    ]
    return Chart(
        "Filling holes in healthy tissue",
        svg(
            interval_chart(bars, axis="L1 in the holes"),
            f"L1 in {holes.n_holes} holes: generator {holes.hole_l1.mean:.4f}, "
            f"biharmonic interpolation {holes.biharmonic_l1.mean:.4f}.",
        ),
        f"{counted(holes.n_holes, 'hole')} in {lesion_free} slices. Biharmonic interpolation knows no "
        "anatomy: a generator that models healthy tissue lies below it.",
    )


def _feedback_chart(feedback: FeedbackEvidence) -> Chart:
    means = ", ".join(f"{name} {value.mean:.3f}" for name, value in feedback.losses.items())
    bars = [interval_bar(name, value, emphasised=name == "true") for name, value in feedback.losses.items()]
    return Chart(
        "Adversarial feedback, L_adv",
        svg(interval_chart(bars, axis="L_adv"), f"Mean adversarial feedback by mask: {means}."),
        f"Lower: more like healthy tissue at the mask's edge. {' '.join(feedback_sentences(feedback))}",
    )


def feedback_sentences(feedback: FeedbackEvidence) -> Iterator[str]:
    """The masks that L_adv prefers, and the direction of its gradient."""
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
        "few": "Too few patients to compare the masks.",
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


SECTION = Section("healthy", "Healthy model", healthy_view, TEMPLATE, lines)
