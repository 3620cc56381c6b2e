"""Checks of classes before a classifier is trained."""

import numpy as np
import pytest
from PIL import Image

from ganseg_dist.data.cohort import Split
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.errors import DataError
from ganseg_dist.studies.experiments.run import check_classes
from ganseg_dist.systems import recipe
from tests.tiny import resolved


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """Three bars and three discs."""
    monkeypatch.setenv("GANSEG_STORE", str(tmp_path / "store"))
    rows, columns = np.mgrid[:48, :48] - 24
    for name, inside in (("bar", np.abs(rows) < 6), ("disc", np.hypot(rows, columns) < 14)):
        (tmp_path / "shapes" / name).mkdir(parents=True)
        for number in range(3):
            pixels = (40 + number + 150 * inside).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "shapes" / name / f"{name}{number}.png")
    return read_cohort(tmp_path / "shapes")


def test_check_classes_requires_both_classes_in_validation_and_test(shapes):
    config = resolved(recipe("gan_detector_debug"), shapes)
    bars, discs = ([case.patient for case in shapes.cases if case.class_name == name] for name in ("bar", "disc"))
    both = (bars[0], discs[0])
    check_classes(config, shapes, Split((), both, (bars[1], discs[1])))
    with pytest.raises(DataError, match="its test patients have images of disc alone"):
        check_classes(config, shapes, Split((), both, (discs[1], discs[2])))
    with pytest.raises(DataError, match="its validation patients have no image of a known class"):
        check_classes(config, shapes, Split((), (), both))
