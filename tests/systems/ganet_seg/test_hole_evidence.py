"""Evidence of an untrained healthy model on synthetic slices."""

import numpy as np
import pytest

from ganseg_dist.systems.ganet_seg.hole_evidence import MOST_SLICES, hole_evidence
from tests.inference.untrained import predictor


def test_hole_evidence_of_flat_tissue_favours_guess_and_biharmonic(tmp_path):
    model = predictor(tmp_path / "model", ("t1", "flair"), ("wt",))
    rows, columns = np.mgrid[:32, :32] - 15.5
    foreground = rows**2 + columns**2 < 15**2
    planes = np.where(foreground, 0.25, -1.0).astype(np.float32)[None, None].repeat(60, 0).repeat(2, 1)
    found = hole_evidence(model.system, 0, planes, [f"p{index % 5}" for index in range(60)])
    assert found.n_holes == MOST_SLICES * model.config.system.holes.count
    assert found.hole_l1.n == 5
    assert found.hole_l1.mean > 0.02  # untrained
    assert found.guess_l1.mean < found.hole_l1.mean
    assert found.less_biharmonic.difference.mean == pytest.approx(found.hole_l1.mean - found.biharmonic_l1.mean)
    assert found.less_biharmonic.differs is None, "five patients are too few"
    assert 0 < found.ssim <= 1
