"""Evidence of the feedback on synthetic slices; L_adv is set, not learnt."""

import numpy as np
import pytest
import torch

from ganseg_dist.systems.ganet_seg.feedback_evidence import DILATION, EROSION, RING, feedback_evidence
from tests.inference.untrained import predictor

ROWS, COLUMNS = np.mgrid[:48, :48]
FOREGROUND = (ROWS - 24) ** 2 + (COLUMNS - 24) ** 2 < 22**2
TRUTH = (ROWS - 24) ** 2 + (COLUMNS - 22) ** 2 < 8**2


@pytest.fixture
def system(tmp_path):
    return predictor(tmp_path / "model", ("t1", "flair"), ("wt",)).system


def evidence(system, slices=14, patients=7):
    image = np.where(FOREGROUND, 0.25, -1.0).astype(np.float32)[None, None].repeat(slices, 0).repeat(2, 1)
    image += 0.01 * np.random.default_rng(0).normal(size=image.shape).astype(np.float32) * FOREGROUND
    masks = np.broadcast_to(TRUTH.astype(np.uint8), (slices, 1, 48, 48))
    return feedback_evidence(system, image, masks, [f"p{index % patients}" for index in range(slices)])


def evidence_with_loss(system, loss, monkeypatch):
    """The evidence with L_adv replaced by `loss(mask, truth)`, scaled by each slice's brightness."""
    truth = torch.from_numpy(TRUTH).float()

    def feedback(image, mask, edges_of=None):
        return loss(mask, truth) * (1 + image.mean())

    monkeypatch.setattr(system, "feedback", feedback)
    return evidence(system)


def test_feedback_evidence_prefers_true_mask_for_informed_loss(system, monkeypatch):
    found = evidence_with_loss(system, lambda mask, truth: ((mask - truth) ** 2).mean(), monkeypatch)
    assert found.losses.keys() == {"true", "eroded", "dilated", "shifted", "whole foreground", "empty"}
    assert {name: margin.differs for name, margin in found.margins.items()} == dict.fromkeys(found.margins, True)
    assert all(margin.difference.mean > 0 for margin in found.margins.values())
    assert found.losses["true"].mean == 0
    assert (found.grown.mean, found.shrunk.mean) == (1, 1)
    assert found.cosine.mean > 0.9


def test_feedback_evidence_exposes_loss_that_prefers_large_masks(system, monkeypatch):
    found = evidence_with_loss(system, lambda mask, truth: -mask.mean(), monkeypatch)
    sides = {name: (margin.differs, margin.difference.mean > 0) for name, margin in found.margins.items()}
    assert sides["dilated"] == sides["whole foreground"] == (True, False)
    assert sides["eroded"] == sides["empty"] == (True, True)
    assert sides["shifted"] == (False, False)
    assert (found.grown.mean, found.shrunk.mean) == (1, 0)


def test_feedback_evidence_has_no_direction_for_constant_loss(system, monkeypatch):
    found = evidence_with_loss(system, lambda mask, truth: 0 * mask.mean() + 1, monkeypatch)
    assert [margin.differs for margin in found.margins.values()] == [False] * 5
    assert found.cosine is None
    assert (found.grown.mean, found.shrunk.mean) == (0.5, 0.5)


def test_feedback_evidence_perturbs_masks_by_stated_sizes(system, monkeypatch):
    """The loss is the mask's area, from which each perturbed mask's size follows."""
    found = evidence_with_loss(system, lambda mask, truth: mask.sum(), monkeypatch)
    area = {name: loss.mean / (found.losses["true"].mean / TRUTH.sum()) for name, loss in found.losses.items()}
    assert area["eroded"] == pytest.approx(np.pi * (8 - EROSION) ** 2, rel=0.25)
    assert area["dilated"] == pytest.approx(np.pi * (8 + DILATION) ** 2, rel=0.25)
    assert area["shifted"] == pytest.approx(TRUTH.sum())
    assert area["whole foreground"] == pytest.approx(FOREGROUND.sum(), rel=1e-4)
    assert area["empty"] == 0
    assert (found.grown.mean, found.shrunk.mean) == (0, 1)


def test_feedback_evidence_of_untrained_system_is_finite(system):
    found = evidence(system, slices=3, patients=2)
    assert all(np.isfinite(loss.mean) and loss.mean > 0 for loss in found.losses.values())
    assert [margin.differs for margin in found.margins.values()] == [None] * 5, "two patients are too few"
    assert -1 <= found.cosine.mean <= 1
    assert 0 <= found.grown.mean <= 1


def test_feedback_evidence_is_none_for_lesions_that_erode_away(system):
    image = np.zeros((2, 2, 48, 48), np.float32)
    masks = np.zeros((2, 1, 48, 48), np.uint8)
    masks[:, :, 20:22, :] = 1
    assert feedback_evidence(system, image, masks, ["a", "b"]) is None
    assert RING < EROSION
