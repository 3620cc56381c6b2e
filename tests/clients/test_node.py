"""A site's folder: validation of site.toml, and the run that a federation leaves there."""

import errno
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
import tomli_w
from flwr.app import Message, RecordDict

from clients.app import app
from clients.node import SiteNode
from ganseg_dist.config import override
from ganseg_dist.data.cohort import Split
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.errors import DataError, RunError
from ganseg_dist.federation.protocol import RoundInstruction
from ganseg_dist.federation.site_settings import SiteSettings
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import Run
from ganseg_dist.systems import recipe
from server import simulation
from server.grids import InProcessGrid
from server.simulation import Simulation, simulate
from tests.cli.conftest import run_command
from tests.modes import mode

POLICY = {"minimum_patients": 2, "minimum_group": 1, "test_fraction": 0.4, "validation_fraction": 0.3}
CHANGES = {"system.gan": False, "train.epochs": 1, "data.test_fraction": 0.4, "data.validation_fraction": 0.3}


def site_node(folder: Path, policy: Mapping[str, object] = MappingProxyType({}), **settings: object) -> SiteNode:
    (folder / "site.toml").write_text(tomli_w.dumps({"name": "north", **settings, "policy": {**POLICY, **policy}}))
    return SiteNode(folder)


def checked(folder: Path) -> tuple[int, str]:
    done = run_command("site", "check", folder)
    return done.code, done.err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layuot": "brats"}, "layuot: no such field; did you mean layout?"),
        ({"policy": {"minimum_patient": 3}}, "policy.minimum_patient: no such field; did you mean "),
        (
            {"policy": {"privacy": {"epsilon": 8, "wher": "site"}}},
            "policy.privacy.wher: no such field; did you mean policy.privacy.where?",
        ),
        ({"zzz": 3}, "zzz: no such field; the fields are name, data, layout, "),
        ({"data": 3}, "data: "),
        ({"name": "north\u202e"}, "name: "),
        ({"policy": {"minimum_patients": 0}}, "policy.minimum_patients: "),
    ],
    ids=[
        "unknown",
        "unknown in policy",
        "unknown in privacy",
        "unlike any",
        "of another type",
        "a name that cannot be shown",
        "out of range",
    ],
)
def test_node_check_names_invalid_field_in_one_line(settings, message, phantom, tmp_path):
    site_node(tmp_path, **{"data": str(phantom)} | settings)
    code, output = checked(tmp_path)
    assert code == 2
    assert output.startswith(f"error: {tmp_path / 'site.toml'}: {message}")
    assert len(output.splitlines()) == 1


def test_node_check_rejects_pipe_as_site_toml(tmp_path):
    os.mkfifo(tmp_path / "site.toml")
    code, output = checked(tmp_path)
    assert (code, output) == (
        2,
        f"error: {tmp_path / 'site.toml'}: cannot be read (is not a regular file); write one with: ganseg site init\n",
    )


def test_node_check_names_missing_field(tmp_path):
    site_node(tmp_path)
    assert checked(tmp_path) == (2, f"error: {tmp_path / 'site.toml'}: data: is missing\n")


def test_node_check_names_missing_data(tmp_path):
    site_node(tmp_path, data=str(tmp_path / "gone"))
    code, output = checked(tmp_path)
    assert code == 1
    assert output.startswith(f"error: {tmp_path / 'gone'}: no such file or folder")


def test_node_check_prints_patients_and_layout(phantom, tmp_path):
    site_node(tmp_path, data=str(phantom))
    done = run_command("site", "check", tmp_path)
    patients = len(read_cohort(phantom).patients)
    first, second = done.out.splitlines()
    assert first == f"north: {patients} patients in {phantom} ({read_cohort(phantom).layout})"
    assert second == "split: 2 train, 3 validation, 3 test; no federation changes it"
    assert [entry.name for entry in tmp_path.iterdir()] == ["site.toml"]


def test_node_check_makes_site_folder_private(phantom, tmp_path, monkeypatch):
    tmp_path.chmod(0o755)
    site_node(tmp_path, data=str(phantom))
    assert checked(tmp_path) == (0, "")
    assert mode(tmp_path) == 0o700


def test_node_check_rejects_open_folder_of_other_owner(phantom, tmp_path, monkeypatch):
    def raise_permission_error(path: Path, mode: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    tmp_path.chmod(0o755)
    site_node(tmp_path, data=str(phantom))
    monkeypatch.setattr(Path, "chmod", raise_permission_error)
    code, output = checked(tmp_path)
    assert code == 2
    assert output.startswith(f"error: {tmp_path}: others may enter it")
    assert len(output.splitlines()) == 1


def test_client_app_makes_site_folder_private_before_reply(tmp_path):
    InProcessGrid(app, {1: {"home": str(tmp_path / "home")}}).send_and_receive(
        [Message(RecordDict(), dst_node_id=1, message_type="query.preflight")]
    )
    assert mode(tmp_path / "home") == 0o700


def test_client_app_logs_rejection_at_site_and_replies_with_code(tmp_path, caplog):
    """Only a code and a sentence leave the site."""
    site_node(tmp_path, data="/unread")
    grid = InProcessGrid(app, {1: {"home": str(tmp_path)}})
    with caplog.at_level(logging.INFO, "clients"):
        (reply,) = grid.send_and_receive([Message(RecordDict(), dst_node_id=1, message_type="query.preflight")])
    assert (reply.error.code, reply.error.reason) == (1003, "the message breaks what was agreed on")
    (line,) = (tmp_path / "site.log").read_text().splitlines()
    assert caplog.messages == [f"error: {line.partition(' ')[2]}"]


def test_site_node_accepts_any_printable_name(phantom, tmp_path):
    for name in ("Spital Ü", "St. Mary/Ward 3", "../north"):
        assert site_node(tmp_path, data=str(phantom), name=name).settings.name == name


def test_create_site_folders_stays_inside_run_for_unsafe_names(phantom, tmp_path, monkeypatch):
    monkeypatch.setenv("GANSEG_RUNS", str(tmp_path / "runs"))
    patients = read_cohort(phantom).patients
    split = Split(patients[:4], patients[4:6], patients[6:])
    members = {"../../x": patients[:2], "Spital Ü": patients[2:3], "Spital-U": patients[3:]}
    request = TrainingRequest(recipe("ganet_seg_debug"), phantom)
    folders = simulation._create_site_folders(Run(tmp_path / "runs" / "f"), request, members, split, ["segmenter"])
    assert {folder.relative_to(tmp_path / "runs" / "f").parts[0] for folder in folders.values()} == {"sites"}
    assert (folders["../../x"].name, folders["Spital-U"].name) == ("x", "Spital-U")
    assert len({folder.name.lower() for folder in folders.values()}) == 3
    assert {name: SiteNode(folder).settings.name for name, folder in folders.items()} == {
        name: name for name in members
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


@pytest.fixture(scope="module")
def simulated(phantom: Path, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A federation of two sites; read it, do not change it."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("simulated")
        patch.setenv("GANSEG_RUNS", str(place / "runs"))
        patch.setenv("GANSEG_STORE", str(store))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place / 'mlflow.db'}")
        config = override(recipe("ganet_seg_debug"), CHANGES)
        return simulate(Simulation(TrainingRequest(config, phantom, run_name="first", local=True), "2"), app)


def of_site(simulated: Run, site: str) -> Run:
    return Run(simulated.folder / "sites" / site / "runs" / "first")


def test_simulate_makes_site_folders_private(simulated):
    assert [mode(folder) for folder in sorted((simulated.folder / "sites").iterdir())] == [0o700, 0o700]


def test_simulate_leaves_complete_run_at_each_site(simulated):
    run = of_site(simulated, "site1")
    assert run.finished
    about = run.description()
    assert about.model_fields_set >= {"name", "recipe", "created", "seconds", "version", "commit", "command"}
    assert (about.name, about.federated) == ("first", True)
    assert 0 < about.seconds < 600
    settings = SiteSettings.load(run.folder.parents[1] / "site.toml")
    assert run.split() == Split.from_dict(settings.split)
    assert {case["patient"] for case in run.read("data.json")["cases"]} == set(settings.patients)
    assert run.read("model/model.json")["phantom"], "made-up images may not pass for patients"
    assert run.config().data.modalities == simulated.config().data.modalities


@pytest.mark.parametrize("site", ["site1", "site2"])
def test_evaluate_scores_test_patients_of_site_run(simulated, site, phantom, monkeypatch):
    monkeypatch.setenv("GANSEG_RUNS", str(simulated.folder.parent))
    run = of_site(simulated, site)
    mine = read_cohort(phantom).of_patients(run.split().test)
    done = run_command("evaluate", run.folder, "--data", phantom)
    assert mine
    assert done.code == 0, done.err
    lines = (run.evaluation("test") / "cases.csv").read_text().splitlines()[1:]
    assert {line.split(",")[0] for line in lines} == {case.id for case in mine}


@pytest.mark.parametrize("args", [("calibrate",), ("report",)])
def test_calibrate_and_report_accept_site_run(simulated, args, monkeypatch):
    monkeypatch.setenv("GANSEG_RUNS", str(simulated.folder.parent))
    done = run_command(*args, of_site(simulated, "site1").folder)
    assert done.code == 0, done.err


def test_site_node_reads_labels_from_site_toml(phantom, tmp_path):
    case = "p19"
    shutil.copytree(phantom / "BraTS20_Training_001", tmp_path / "data" / case)
    for file in list((tmp_path / "data" / case).iterdir()):
        file.rename(file.with_name(file.name.replace("BraTS20_Training_001", case)))
    site_node(tmp_path, data=str(tmp_path / "data"))
    code, output = checked(tmp_path)
    assert (code, "what the values of its mask mean" in output) == (1, True)
    one_part = {"test_fraction": 0.0, "validation_fraction": 0.0}
    site_node(tmp_path, one_part, data=str(tmp_path / "data"), labels="brats")
    assert SiteNode(tmp_path).check()[0].labels == "brats"


@pytest.fixture
def prepared_site(phantom, tmp_path, monkeypatch):
    """A site with prepared slices, and the config of these slices."""
    monkeypatch.setenv("GANSEG_STORE", str(tmp_path / "store"))
    config = override(
        recipe("ganet_seg_debug"), CHANGES | {"data.modalities": ["t1"], "data.regions": ["wt"], "data.size": 16}
    )
    place = tmp_path / "home"
    place.mkdir()
    hospital = site_node(place, data=str(phantom))
    hospital.prepare(config)
    return hospital, config


def test_prepare_restores_damaged_case_between_rounds(prepared_site, tmp_path, caplog):
    hospital, config = prepared_site
    before = hospital.prepare(config)
    (image, *_) = (tmp_path / "store").rglob("image.npy")
    whole = image.read_bytes()
    image.write_bytes(whole[:-1])
    assert hospital.prepare(config) == before
    assert image.read_bytes() == whole
    assert [line.split(";")[0] for line in caplog.messages] == [f"{image}: is damaged (its digest differs)"]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"cohort": {"train": []}}'])
def test_prepare_ignores_damaged_index_of_slices(prepared_site, content):
    hospital, config = prepared_site
    before = hospital.prepare(config)
    (kept,) = hospital.folder.glob("ready-*.json")
    kept.write_bytes(content)
    assert hospital.prepare(config) == before


def test_fingerprint_raises_run_error_when_stored_file_is_damaged(prepared_site):
    hospital, config = prepared_site
    instruction = RoundInstruction("first", 0, 0, 0, 0, config=config.to_json())
    hospital.join(instruction)
    first = hospital.fingerprint(instruction)
    assert hospital.fingerprint(instruction).to_dict() == first.to_dict()
    (kept,) = hospital.folder.glob("fingerprint-of-*.json")
    kept.write_text(kept.read_text().replace('"withheld": ', '"withheld": 1'))
    with pytest.raises(RunError, match=r"fingerprint-of-1-.*\.json: is damaged \(its digest differs\); restore"):
        hospital.fingerprint(instruction)


def test_node_check_names_the_policys_fractions_where_a_part_stays_empty(phantom, tmp_path):
    patients = read_cohort(phantom).patients[:3]
    (tmp_path / "site.toml").write_text(SiteSettings(name="north", data=phantom, patients=patients).to_toml())
    with pytest.raises(DataError, match=r"lower policy\.validation_fraction and policy\.test_fraction"):
        SiteNode(tmp_path).check()
