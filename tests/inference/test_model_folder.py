"""The model folder: its label scheme is saved and loaded, and another format names its version."""

import json

import pytest

from ganseg_dist import __version__
from ganseg_dist.data.labels import BRATS_2023
from ganseg_dist.digests import read_sealed, sealed
from ganseg_dist.errors import RunError
from ganseg_dist.inference.model_folder import FORMAT, load_model
from tests.inference.untrained import model_folder


@pytest.fixture
def folder(tmp_path):
    return model_folder(tmp_path / "model", ("t1",), ("wt", "tc", "et"), scheme=BRATS_2023)


def change_model_json(folder, **values):
    file = folder / "model.json"
    file.write_text(json.dumps(sealed(read_sealed(file) | values)))


def load_error(folder):
    with pytest.raises(RunError) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_load_model_restores_label_scheme(folder):
    assert load_model(folder).scheme == BRATS_2023


def test_load_model_of_other_format_names_version(folder):
    change_model_json(folder, format=1, ganseg="0.0.9")
    assert load_error(folder) == (
        f"{folder / 'model.json'}: model format 1, and ganseg-dist {__version__} reads {FORMAT}; use the version that "
        "wrote it, 0.0.9, or export or train the model again"
    )


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (None, "is no label scheme"),
        (BRATS_2023.of_regions(("wt", "tc")).to_json(), "has no region et; it has wt, tc"),
        (BRATS_2023.to_json() | {"labels": {"background": 1}}, "is no label scheme"),
    ],
)
def test_load_model_rejects_labels_that_do_not_fit_config(folder, labels, problem):
    change_model_json(folder, labels=labels)
    assert load_error(folder).startswith(f"{folder / 'model.json'}: labels: {problem}")
