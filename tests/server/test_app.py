"""The settings of `flwr run`, as pyproject.toml lists them, and the request that the server makes of them."""

import logging
import shutil
import tomllib
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.supercore.run import RunNotRunningException

from ganseg_dist.errors import ConfigError, FederationError
from ganseg_dist.runs import Run, named_run
from ganseg_dist.storage.transfer import send
from ganseg_dist.systems import recipe
from server import app as module
from server.app import FlowerRunRequest, assignments
from server.grids import InProcessGrid

ROOT = Path(__file__).parents[2]
KEYS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]


def test_run_request_of_default_keys_is_recipe():
    request = FlowerRunRequest.of(KEYS)
    assert request.config == recipe(KEYS["recipe"])
    assert (request.layout, request.skew, request.data, request.sites) == (None, None, "", "by-hospital")


def test_run_request_applies_keys_and_assignments():
    chosen = {"recipe": "ganet_seg_debug", "rounds": 3, "strategy": "fedmedian", "sites": 4, "set": "train.epochs=7"}
    request = FlowerRunRequest.of(KEYS | chosen)
    assert request.config.federation.rounds == 3
    assert request.config.federation.strategy == "fedmedian"
    assert request.config.train.epochs == 7
    assert request.sites == "4"
    assert (request.labels, FlowerRunRequest.of(KEYS | {"labels": "brats2024-ped"}).labels) == (None, "brats2024-ped")


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", []),
        ("  train.epochs=2  ", ["train.epochs=2"]),
        ("train.epochs=2 data.modalities=t1,flair", ["train.epochs=2", "data.modalities=t1,flair"]),
        ("data.classes=no lesion,lesion seed=3", ["data.classes=no lesion,lesion", "seed=3"]),
        ('federation.local=["critic", "generator"] seed=3', ['federation.local=["critic", "generator"]', "seed=3"]),
    ],
)
def test_assignments_splits_text_at_field_names(text, fields):
    assert assignments(text) == fields


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"recipe": "no_such"}, "no_such"),
        ({"set": "train.epoch=2"}, "train.epochs"),
        ({"set": "epochs"}, "expected FIELD=VALUE"),
        ({"strategy": "best"}, "federation.strategy"),
        ({"least-sites": 0}, "least-sites: 0"),
        ({"least-sites": "two"}, "least-sites: two"),
    ],
)
def test_run_request_rejects_invalid_settings(keys, message):
    with pytest.raises(ConfigError, match=message):
        FlowerRunRequest.of(KEYS | keys)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FederationError("round 1: 0 sites answered"), "error: round 1: 0 sites answered"),
        (ObjectPushError("ab", 1, "cd"), "error: the receiver took the message no more"),
        (RunNotRunningException(), "error: the run was stopped; start it again with the same run.sh to resume"),
    ],
    ids=["of this package", "of Flower", "no Exception"],
)
def test_app_prints_one_line_for_an_error_and_raises_so_that_flower_fails_the_run(monkeypatch, capsys, error, line):
    def fail(*_: object) -> None:
        raise error

    logger = logging.getLogger("flwr")
    monkeypatch.setattr(logger, "filters", [])
    monkeypatch.setattr(module, "_deployed", fail)
    context = Context(1, 0, {}, RecordDict(), KEYS | {"run-name": "first"})
    with pytest.raises(FederationError) as raised:
        module.main(InProcessGrid(lambda message, context: message, {}), context)
    assert capsys.readouterr().out.startswith(line)
    record = logging.LogRecord("flwr", logging.ERROR, "", 1, "raised", (), (type(raised.value), raised.value, None))
    assert not logger.filter(record), "Flower's traceback of it is dropped"


def test_app_leaves_other_errors_to_flower(monkeypatch):
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(logging.getLogger("flwr"), "filters", [])
    monkeypatch.setattr(module, "_deployed", fail)
    with pytest.raises(ZeroDivisionError):
        module.main(InProcessGrid(lambda message, context: message, {}), Context(1, 0, {}, RecordDict(), KEYS))


def test_app_fetches_copy_of_run_before_it_resumes_and_only_once(monkeypatch, tmp_path, remote, capsys):
    monkeypatch.setenv("GANSEG_RUNS", str(tmp_path / "runs"))
    folder = named_run("together").folder
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    send(folder, remote)
    shutil.rmtree(tmp_path / "runs")
    texts = []

    def resume(*_: object) -> Run:
        texts.append((folder / "run.json").read_text())
        return named_run("together")

    monkeypatch.setattr(module, "_deployed", resume)
    context = Context(1, 0, {}, RecordDict(), KEYS | {"run-name": "together"})
    for _ in range(2):
        module.main(InProcessGrid(lambda message, context: message, {}), context)
    assert texts == ["{}", "{}"]
    fetching, finished, again = capsys.readouterr().out.splitlines()
    assert fetching == f"Fetching together from {remote.display_uri}: 2 bytes"
    assert finished == again == f"finished: {folder}"
