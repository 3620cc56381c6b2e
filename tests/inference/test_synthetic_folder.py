import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ganseg_dist.data.readers import read_cohort
from ganseg_dist.inference.audit import audit
from ganseg_dist.inference.generation import Generated
from ganseg_dist.inference.synthetic_folder import Evidence, write_classes


def written(folder, channels, classes, modalities):
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (len(classes), channels, 16, 16)).astype(np.float32)
    training = rng.uniform(-1, 1, (9, channels, 16, 16)).astype(np.float32)
    evidence = Evidence(audit(image, training), {"classes": {}}, Figure(), {"run": "r"})
    write_classes(folder, Generated(image, classes), modalities, evidence)
    return image


@pytest.mark.parametrize(
    ("modalities", "file"),
    [
        (("grey",), "glioma/synthetic_00001.png"),
        (("red", "green", "blue"), "glioma/synthetic_00001.png"),
        (("t1", "flair"), "glioma/synthetic_00001_flair.png"),
    ],
)
def test_every_kind_of_image_has_a_file_in_its_class(tmp_path, modalities, file):
    image = written(tmp_path / "out", len(modalities), ("glioma", "none"), modalities)
    pixels = np.asarray(Image.open(tmp_path / "out" / file), float) / 127.5 - 1
    stored = pixels if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    assert stored == pytest.approx(image[0] if pixels.ndim == 3 else image[0, -1], abs=0.01)
    cohort = read_cohort(tmp_path / "out")
    assert set(cohort.modalities) == set(modalities)
    assert [(case.id, case.class_name) for case in cohort.cases] == [
        ("synthetic_00001", "glioma"),
        ("synthetic_00002", "none"),
    ]
    if "t1" not in modalities:
        assert read_cohort(tmp_path / "out", "class_folder").classes == ("glioma", "none")
    assert json.loads((tmp_path / "out" / "SYNTHETIC.json").read_text()) == {"synthetic": True, "n": 2, "run": "r"}


def test_a_class_that_no_folder_can_be_called_after_stays_inside_and_keeps_its_name(tmp_path):
    classes = ("../up", "a/b", "..", "grade II, IDH*")
    written(tmp_path / "deep" / "out", 1, classes, ("grey",))
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"out"}
    cohort = read_cohort(tmp_path / "deep" / "out")
    assert tuple(case.class_name for case in cohort.cases) == classes
    assert all(source.files[0].is_file() for case in cohort.cases for source in case.images.values())
