"""A federation with a failing, lying or dying site: the others train on without it, and the record names it."""

import json
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Error, Message
from safetensors.numpy import load_file

from clients.app import app
from ganseg_dist.config import override
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.errors import FederationError
from ganseg_dist.federation.protocol import PREFLIGHT
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import Run
from ganseg_dist.systems import recipe
from server.grids import InProcessGrid
from server.simulation import Simulation, simulate, simulate_on
from tests.trackers import WarningTracker

pytestmark = pytest.mark.usefixtures("own_runs")

BAD = 3
"""Node id of the misbehaving site, site3."""
SHORT = {"system.gan": False, "train.epochs": 2, "data.test_fraction": 0.3}


def simulated(phantom: Path, spoil=lambda message, reply: reply, **changes) -> Run:
    """A run of three sites; `spoil` changes the train replies of the last."""

    def answer(message: Message, context: Context) -> Message:
        reply = app(message, context)
        return spoil(message, reply) if context.node_id == BAD and message.metadata.message_type == "train" else reply

    config = override(recipe("ganet_seg_debug"), SHORT | changes)
    return simulate(Simulation(TrainingRequest(config, phantom, run_name="f", local=True), "3"), answer)


def changed(reply: Message, change) -> Message:
    arrays = {name: change(array.numpy()) for name, array in reply.content.array_records["arrays"].items()}
    reply.content["arrays"] = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    return reply


def nan(array: np.ndarray) -> np.ndarray:
    return np.full_like(array, np.nan)


def weights(run: Run) -> dict[str, np.ndarray]:
    newest = FolderCheckpoints(run.checkpoints).latest()
    assert newest is not None
    return load_file(newest / "networks.safetensors")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda message, reply: changed(reply, nan), "not finite"),
        pytest.param(
            lambda message, reply: changed(reply, lambda array: (array * 1000).astype(np.float32)),
            "times the usual one",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda message, reply: changed(reply, lambda array: array.astype(np.float64)),
            "message",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda message, reply: Message(Error(3000, "the site's process died"), reply_to=message),
            "died",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["nan", "a thousand times", "another type", "dead"],
)
def test_rounds_quarantine_and_record_bad_site(phantom, spoil, reason):
    run = simulated(phantom, spoil)
    federation = json.loads((run.folder / "federation.json").read_text())
    assert [list(record["sites"]) for record in federation["rounds"]] == [["site1", "site2"]] * 2
    assert [(record["site"], record["round"]) for record in federation["quarantined"]] == [("site3", 1), ("site3", 2)]
    if reason != "message":
        assert all(reason in record["reason"] for record in federation["quarantined"])
    assert all(np.isfinite(array).all() for array in weights(run).values())


@pytest.mark.slow
def test_rounds_leave_out_nan_update_without_firewall(phantom):
    run = simulated(phantom, lambda message, reply: changed(reply, nan), **{"federation.firewall": False})
    federation = json.loads((run.folder / "federation.json").read_text())
    assert [(record["site"], record["round"]) for record in federation["quarantined"]] == [("site3", 1), ("site3", 2)]


@pytest.mark.slow
def test_rounds_raise_when_quorum_is_missed(phantom):
    with pytest.raises(FederationError, match=r"2 sites answered of the 3 that federation.quorum=1 needs"):
        simulated(phantom, lambda message, reply: changed(reply, nan), **{"federation.quorum": 1.0})


@pytest.mark.slow
def test_rounds_repeat_and_raise_with_too_few_answers_for_strategy(phantom):
    """The median of two sites would be their mean, and one of them may lie."""
    tried = []

    def spoil(message, reply):
        tried.append(message.metadata.message_type)
        return changed(reply, nan)

    with pytest.raises(
        FederationError, match=r"2 sites answered of the 3 that federation\.strategy=fedmedian needs, 3 times"
    ):
        simulated(phantom, spoil, **{"federation.strategy": "fedmedian"})
    assert len(tried) == 3


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fedadam", "fedprox", "fedyogi", "fedmedian", "trimmed"])
def test_rounds_merge_all_sites_with_every_strategy(phantom, strategy):
    run = simulated(phantom, **{"federation.strategy": strategy, "federation.trimmed_share": 0.34})
    federation = json.loads((run.folder / "federation.json").read_text())
    assert [len(record["sites"]) for record in federation["rounds"]] == [3, 3]
    assert all(np.isfinite(array).all() for array in weights(run).values())


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["int8", "fp16", "topk"])
def test_rounds_with_coarse_encoding_send_less_and_stay_close(phantom, encoding, tmp_path, monkeypatch):
    """With the smallest networks, array headers, which no encoding shrinks, are a large part of a message."""
    whole = simulated(phantom)
    monkeypatch.setenv("GANSEG_RUNS", str(tmp_path / "coarse"))
    coarse = simulated(phantom, **{"federation.encoding": encoding})
    sent, coarsely_sent = (
        sum(record["bytes_in"] for record in json.loads((run.folder / "federation.json").read_text())["rounds"])
        for run in (whole, coarse)
    )
    assert coarsely_sent < 0.8 * sent
    assert not all(np.array_equal(weights(whole)[name], array) for name, array in weights(coarse).items())
    for name, array in weights(coarse).items():
        assert np.abs(array - weights(whole)[name]).max() < 0.2, name


@pytest.mark.slow
def test_rounds_of_several_epochs_keep_scored_epoch(phantom):
    run = simulated(phantom, **{"train.epochs": 4, "federation.rounds": 2})
    epochs = [record["epoch"] for record in json.loads((run.folder / "history.json").read_text())]
    assert epochs == [1, 3]
    assert run.description().kept["segment"].epoch in epochs


@pytest.mark.slow
def test_rounds_wait_once_for_site_that_never_answers_and_record_it(phantom):
    """It joined, and then it hangs: neither scoring nor the next round waits for it."""
    deadline = 25.0

    class Hanging(InProcessGrid):
        def pull_messages(self, message_ids):
            hung = {
                number
                for number, message in self.waiting.items()
                if message.metadata.dst_node_id == BAD and message.metadata.message_type != PREFLIGHT
            }
            return super().pull_messages(number for number in message_ids if number not in hung)

    changes = SHORT | {"federation.deadline_seconds": deadline, "federation.fingerprint": False}
    request = TrainingRequest(override(recipe("ganet_seg_debug"), changes), phantom, run_name="f", local=True)
    lines: list[str] = []
    run = simulate_on(
        Simulation(request, "3"),
        lambda folders: Hanging(app, {number: {"home": str(folder)} for number, folder in enumerate(folders, start=1)}),
        write_line=lines.append,
    )
    federation = run.federation()
    assert federation is not None
    first, second = federation.rounds
    assert first.seconds is not None
    assert second.seconds is not None
    assert deadline <= first.seconds < 2 * deadline
    assert second.seconds < deadline
    assert [record.unanswered for record in (first, second)] == [("site3",)] * 2
    assert [sorted(record.sites) for record in (first, second)] == [["site1", "site2"]] * 2


def reject_config(log: bool):
    def spoil(message: Message, context: Context) -> Message:
        folder = Path(str(context.node_config["home"]))
        (folder / "requests").open("a").write("x")
        if log:
            (folder / "site.log").write_text(f"2026-01-01T00:00:00+00:00 batch: too large for {folder.name}\n")
        return Message(Error(1002, "the site rejects the config"), reply_to=message)

    return spoil


@pytest.mark.parametrize("log", [True, False])
def test_rounds_raise_at_once_when_all_sites_reject_config(phantom, log, tmp_path):
    """The one-line error quotes each site's log, where there is one."""
    reject = reject_config(log)

    def answer(message: Message, context: Context) -> Message:
        return reject(message, context) if message.metadata.message_type == "train" else app(message, context)

    config = override(recipe("ganet_seg_debug"), SHORT)
    tracker = WarningTracker()
    with pytest.raises(FederationError) as ended:
        simulate(Simulation(TrainingRequest(config, phantom, run_name="f", local=True), "3"), answer, tracker=tracker)
    logged = "site1: batch: too large for site1; site2: batch: too large for site2; site3: batch: too large for site3"
    why = logged if log else "site1, site2, site3; the site.log of each has the reason"
    assert str(ended.value) == f"round 1: 3 of 3 sites reject the config: {why}"
    assert not [line for line in tracker.warnings if "reject" in line]
    assert [(tmp_path / "runs" / "f" / "sites" / f"site{n}" / "requests").read_text() for n in (1, 2, 3)] == ["x"] * 3


def test_rounds_do_not_repeat_request_to_site_that_rejects_config(phantom, tmp_path):
    """A site with non-finite numbers is requested again, as its next numbers may be finite."""
    reject, tried = reject_config(log=True), []

    def answer(message: Message, context: Context) -> Message:
        if message.metadata.message_type != "train" or context.node_id == 1:
            return app(message, context)
        if context.node_id == BAD:
            return reject(message, context)
        tried.append(1)
        reply = app(message, context)
        return changed(reply, nan) if len(tried) == 1 else reply

    config = override(recipe("ganet_seg_debug"), SHORT | {"train.epochs": 1, "federation.quorum": 0.6})
    tracker = WarningTracker()
    simulate(Simulation(TrainingRequest(config, phantom, run_name="f", local=True), "3"), answer, tracker=tracker)
    assert (tmp_path / "runs" / "f" / "sites" / "site3" / "requests").read_text() == "x"
    assert len(tried) == 2
    expected = "round 1: site3: the site rejects the config: batch: too large for site3; left out"
    assert [line for line in tracker.warnings if "site3" in line and "left out" in line] == [expected]
