"""`--labels`: the label scheme of masks, which a run stores."""

import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest

from ganseg_dist.cli.options import LABELS
from ganseg_dist.data.labels import SCHEMES
from ganseg_dist.planning.request import TrainingRequest
from tests.cli.conftest import assert_error, untrained_run
from tests.data.cohorts import FILES_2023


@pytest.fixture(scope="module")
def children(phantom, tmp_path_factory):
    """The phantom under the names of BraTS-PEDs 2024, with its label values."""
    root = tmp_path_factory.mktemp("children")
    for number, folder in enumerate(sorted(phantom.glob("BraTS20_*"))):
        case = f"BraTS-PED-{number:05d}-000"
        (root / case).mkdir()
        for name, new in FILES_2023.items():
            os.link(folder / f"{folder.name}_{name}.nii.gz", root / case / f"{case}-{new}.nii.gz")
        mask = nib.load(folder / f"{folder.name}_seg.nii.gz")
        values = np.array([0, 2, 4, 0, 1], np.uint8)[np.asanyarray(mask.dataobj)]
        nib.save(nib.Nifti1Image(values, mask.affine), root / case / f"{case}-seg.nii.gz")
    return root


def test_check_and_train_require_labels_for_ambiguous_mask_values(ganseg, children):
    messages = ("BraTS-PED-00000-000", "--labels SCHEME", *SCHEMES)
    assert_error(ganseg("check", children), 1, *messages)
    assert_error(ganseg("train", "ganet_seg_debug", "--data", children, "--local"), 1, *messages)
    assert_error(ganseg("check", children, "--labels", "brats2024-pedd"), 2, "did you mean brats2024-ped?")
    checked = ganseg("check", children, "--labels", "brats2024-ped")
    assert checked.code == 0, checked.err
    assert "regions wt, tc, et; labels 0 background, 1 enhancing tumour, 2 non-enhancing tumour" in checked.out
    as_json = json.loads(ganseg("check", children, "--labels", "brats2024-ped", "--json").out)
    assert as_json["labels"]["labels"]["enhancing tumour"] == 1


def test_check_reads_custom_label_scheme_from_file(ganseg, children, tmp_path, monkeypatch):
    file = tmp_path / "children.json"
    file.write_text(json.dumps(SCHEMES["brats2024-ped"].to_json()))
    stated = ganseg("check", children, "--labels", file, "--json")
    assert json.loads(stated.out)["labels"] == SCHEMES["brats2024-ped"].to_json()
    file.write_text(json.dumps({"labels": {"background": 0, "anterior": 1}, "regions": {"anterior": ["anterior"]}}))
    assert_error(ganseg("check", children, "--labels", file), 1, str(file), "regions: anterior", "name wt, tc, et")
    assert_error(ganseg("check", children, "--labels", tmp_path / "no.json"), 1, str(tmp_path / "no.json"))
    monkeypatch.chdir(tmp_path)
    assert LABELS.callback("children.json") == str(file)  # a run goes on from another folder


def test_run_stores_label_scheme_for_calibrate_evaluate_and_predict(ganseg, children, phantom, tmp_path):
    run = untrained_run("ganet_seg_debug", children, tmp_path, labels="brats2024-ped")
    assert run.description().request.labels == "brats2024-ped"
    assert TrainingRequest.of_run(run).labels == "brats2024-ped"
    assert ganseg("calibrate", run.name).code == 0
    scored = ganseg("evaluate", run.name, "--data", children)
    assert scored.code == 0, scored.err
    other = shutil.copytree(children / "BraTS-PED-00000-000", tmp_path / "others" / "BraTS-PED-00099-000")
    for file in list(other.iterdir()):
        file.rename(other / file.name.replace("00000", "00099"))
    result = ganseg("evaluate", run.name, "--data", tmp_path / "others", "--part", "all")
    assert_error(result, 1, "BraTS-PED-00099-000", "--labels SCHEME")
    assert ganseg("predict", run.name, tmp_path / "others", "--out", tmp_path / "masks").code == 0


def test_resume_and_from_sweep_reject_labels_option(ganseg):
    assert_error(ganseg("train", "--resume", "r", "--labels", "brats"), 2, "takes everything from the run")
    assert_error(ganseg("tune", "--resume", "s", "--labels", "brats"), 2, "takes everything from the sweep")
    assert_error(ganseg("calibrate", "r", "--from-sweep", "s", "--labels", "brats"), 1, "r")
