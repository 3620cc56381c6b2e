import pytest

from ganseg_dist.studies.experiments.robustness import STRENGTHS
from ganseg_dist.studies.experiments.table import describe_subjects, row_title


@pytest.mark.parametrize(
    ("labels", "title"),
    [
        ({"perturbation": "as they are", "strength": ""}, "images as they are"),
        ({"perturbation": "Gaussian noise", "strength": 0.1}, "Gaussian noise, 0.1 of the range"),
        ({"perturbation": "bias field", "strength": 0.4}, "bias field, gain up to 1.49"),
        ({"perturbation": "gamma", "strength": 0.8}, "gamma, exponent 2.23 or 0.45"),
        ({"perturbation": "without t1ce", "strength": ""}, "without T1ce"),
        ({"arm": "gan"}, "GAN"),
        ({"site": "Ulm", "arm": "both"}, "Ulm, both"),
        ({"fold": "all", "arm": "model"}, "all folds"),
        ({"fold": 2, "arm": "model"}, "fold 2"),
    ],
)
def test_row_title_names_labels(labels, title):
    assert row_title(labels) == title


def test_row_title_gives_unit_of_every_strength():
    for kind, strengths in STRENGTHS.items():
        for strength in strengths:
            assert row_title({"perturbation": kind, "strength": strength}) not in (kind, f"{kind}, {strength}")


def test_describe_subjects_counts_patients_or_images():
    assert describe_subjects(1, patients_known=True) == "1 test patient"
    assert describe_subjects(4, patients_known=True) == "4 test patients"
    assert describe_subjects(200, patients_known=False) == "200 test images, patients unknown"
