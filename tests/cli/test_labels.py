"""What a mask's values mean, stated with `--labels` once and remembered with the run."""

import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest

from ganseg_dist.cli.words import LABELS
from ganseg_dist.data.labels import SCHEMES
from ganseg_dist.planning.request import TrainingRequest
from tests.cli.conftest import assert_refused, drawn_run
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


def test_values_that_names_do_not_tell_must_be_stated(ganseg, children):
    told = ("BraTS-PED-00000-000", "--labels SCHEME", *SCHEMES)
    assert_refused(ganseg("check", children), 1, *told)
    assert_refused(ganseg("train", "ganet_seg_debug", "--data", children, "--local"), 1, *told)
    assert_refused(ganseg("check", children, "--labels", "brats2024-pedd"), 2, "did you mean brats2024-ped?")
    checked = ganseg("check", children, "--labels", "brats2024-ped")
    assert checked.code == 0, checked.err
    assert "regions wt, tc, et; labels 0 background, 1 enhancing tumour, 2 non-enhancing tumour" in checked.out
    as_json = json.loads(ganseg("check", children, "--labels", "brats2024-ped", "--json").out)
    assert as_json["labels"]["labels"]["enhancing tumour"] == 1


def test_a_scheme_of_ones_own_is_stated_in_a_file(ganseg, children, tmp_path, monkeypatch):
    file = tmp_path / "children.json"
    file.write_text(json.dumps(SCHEMES["brats2024-ped"].to_json()))
    stated = ganseg("check", children, "--labels", file, "--json")
    assert json.loads(stated.out)["labels"] == SCHEMES["brats2024-ped"].to_json()
    file.write_text(json.dumps({"labels": {"background": 0, "anterior": 1}, "regions": {"anterior": ["anterior"]}}))
    assert_refused(ganseg("check", children, "--labels", file), 1, str(file), "regions: anterior", "name wt, tc, et")
    assert_refused(ganseg("check", children, "--labels", tmp_path / "no.json"), 1, str(tmp_path / "no.json"))
    monkeypatch.chdir(tmp_path)
    assert LABELS.callback("children.json") == str(file)  # a run goes on from another folder


def test_a_stated_scheme_is_remembered_with_the_run(ganseg, children, phantom, tmp_path):
    run = drawn_run("ganet_seg_debug", children, tmp_path, labels="brats2024-ped")
    assert run.description().request.labels == "brats2024-ped"
    assert TrainingRequest.of_run(run).labels == "brats2024-ped"
    assert ganseg("calibrate", run.name).code == 0
    scored = ganseg("evaluate", run.name, "--data", children)
    assert scored.code == 0, scored.err
    other = shutil.copytree(children / "BraTS-PED-00000-000", tmp_path / "others" / "BraTS-PED-00099-000")
    for file in list(other.iterdir()):
        file.rename(other / file.name.replace("00000", "00099"))
    told = ganseg("evaluate", run.name, "--data", tmp_path / "others", "--part", "all")
    assert_refused(told, 1, "BraTS-PED-00099-000", "--labels SCHEME")
    assert ganseg("predict", run.name, tmp_path / "others", "--out", tmp_path / "masks").code == 0


def test_a_sweep_is_gone_on_with_as_it_was_begun(ganseg):
    assert_refused(ganseg("train", "--resume", "r", "--labels", "brats"), 2, "takes everything from the run")
    assert_refused(ganseg("tune", "--resume", "s", "--labels", "brats"), 2, "takes everything from the sweep")
    assert_refused(ganseg("calibrate", "r", "--from-sweep", "s", "--labels", "brats"), 1, "r")
