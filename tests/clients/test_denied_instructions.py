"""Instructions by which a server would get more from a hospital than its policy permits; none is carried out."""

import json
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from clients import limits
from clients.app import app
from clients.limits import time_limit
from clients.node import SiteNode
from ganseg_dist.config import RunConfig, override
from ganseg_dist.config.privacy import PrivacyDemand
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.errors import PolicyError
from ganseg_dist.federation.flower import pack_instruction
from ganseg_dist.federation.policy import SitePolicy
from ganseg_dist.federation.privacy import Terms
from ganseg_dist.federation.protocol import EVALUATE, FINISH, PREFLIGHT, TRAIN, RoundInstruction
from ganseg_dist.federation.schedule import rounds_of, schedule
from ganseg_dist.federation.shared_parameters import Arrays
from ganseg_dist.federation.site_settings import SiteSettings
from ganseg_dist.systems import build_system, recipe
from server.grids import InProcessGrid
from tests.federation.initial import initial_weights

CHANGES = {
    "data.modalities": ["t1"], "data.regions": ["wt"], "data.size": 32, "system.gan": False, "train.epochs": 2,
    "train.ema": None, "federation.rounds": 2,
}  # fmt: skip
POLICY = SitePolicy(minimum_patients=2, minimum_group=1, validation_fraction=0.3, test_fraction=0.3)
DENIED, BROKEN, UNREADABLE_STATE = 1007, 1003, 1005


@dataclass
class Hospital:
    """A hospital's folder, and a server that may send it anything."""

    node: SiteNode

    def policy(self, data: Path, **changes: object) -> None:
        policy = POLICY.model_copy(update=changes)
        settings = SiteSettings(name="north", data=data, policy=policy)
        (self.node.folder / "site.toml").write_text(settings.to_toml())

    def send(
        self,
        kind: str,
        config: RunConfig,
        position: tuple[int, ...] = (0, 0, 0, 0),
        arrays: Arrays | None = None,
        **fields: object,
    ) -> Message:
        """The hospital's reply to an instruction, by default with the weights of a fresh run."""
        instruction = RoundInstruction(
            **{"run": "first", **fields},
            **dict(zip(("round", "stage", "first", "until"), position, strict=True)),
            config=config.to_json(),
        )
        if arrays is None:
            arrays = initial_weights(config) if kind in (TRAIN, EVALUATE, FINISH) else {}
        grid = InProcessGrid(app, {1: {"home": str(self.node.folder)}})  # it identifies this process to Flower
        message = Message(pack_instruction(instruction, arrays), dst_node_id=1, message_type=kind)
        (reply,) = grid.send_and_receive([message])
        return reply

    def log(self) -> str:
        return (self.node.folder / "site.log").read_text().splitlines()[-1]

    def left(self) -> list[str]:
        return [json.loads(line)["kind"] for line in self.node.manifest.read_text().splitlines()]


def requested(**changes: object) -> RunConfig:
    return override(recipe("ganet_seg_debug"), CHANGES | changes)


def private(**changes: object) -> RunConfig:
    return requested(**{"federation.privacy.where": "site", "federation.privacy.epsilon": 8.0, **changes})


def noise_of(config: RunConfig) -> float:
    return Terms.of(config.federation.privacy, rounds_of(config)).noise_multiplier


@pytest.fixture
def hospital(phantom, tmp_path, store, monkeypatch):
    monkeypatch.setenv("GANSEG_STORE", str(store))
    (tmp_path / "home").mkdir()
    made = Hospital(SiteNode(tmp_path / "home"))
    made.policy(phantom)
    return made


def assert_denied(hospital: Hospital, reply: Message, code: int, logged: str) -> None:
    assert reply.has_error()
    assert reply.error.code == code
    assert logged in hospital.log()


def test_site_trains_no_federation_that_it_has_not_joined(hospital):
    reply = hospital.send(TRAIN, requested(), (1, 0, 0, 1))
    assert_denied(hospital, reply, BROKEN, "is of first, which this site has not joined")


def test_site_carries_out_only_scheduled_rounds(hospital):
    config = requested()
    assert not hospital.send(PREFLIGHT, config).has_error()
    for kind, position in (
        (TRAIN, (3, 0, 2, 3)),
        (TRAIN, (1, 0, 0, 2)),
        (TRAIN, (40, 0, 1, 2)),
        (TRAIN, (1, 1, 0, 1)),
        (EVALUATE, (1, 0, 0, 1)),
        (FINISH, (3, 1, 0, 0)),
    ):
        assert_denied(hospital, hospital.send(kind, config, position), BROKEN, "is not in the schedule of 2 rounds")
    assert hospital.left() == ["preflight"] + ["error"] * 6


@pytest.mark.parametrize(
    "changes",
    [
        {"federation.local": []},
        {"train.epochs": 40, "federation.rounds": 40},
        {"seed": 3},
        {"data.size": 48},
    ],
    ids=["networks", "rounds", "seed", "data"],
)
def test_site_carries_out_only_config_that_it_joined(hospital, changes):
    assert not hospital.send(PREFLIGHT, requested()).has_error()
    reply = hospital.send(TRAIN, requested(**changes), (1, 0, 0, 1))
    assert_denied(hospital, reply, BROKEN, "differs from what this site agreed to when it joined")


def test_site_accepts_operational_changes_and_no_other_config_after_its_first_update(hospital):
    assert not hospital.send(PREFLIGHT, requested()).has_error()
    patient = requested(**{"federation.deadline_seconds": 5.0})
    assert not hospital.send(TRAIN, patient, (1, 0, 0, 1)).has_error()
    longer = requested(**{"train.epochs": 40})
    assert_denied(
        hospital, hospital.send(PREFLIGHT, longer), BROKEN, "train.epochs: differs from what this site agreed"
    )


def test_site_stops_answering_round_that_is_requested_again_and_again(hospital, phantom):
    hospital.policy(phantom, answers_per_round=2)
    config = requested()
    hospital.send(PREFLIGHT, config)
    replies = [hospital.send(EVALUATE, config, (1, 0, 1, 1)) for _ in range(3)]
    assert [reply.has_error() for reply in replies] == [False, False, True]
    assert_denied(hospital, replies[2], DENIED, "round 1 was answered 2 times, and the policy permits 2")


def test_site_stops_at_its_own_budget_for_any_plan_of_the_server(hospital, phantom):
    """The server sets noise and no budget, and plans one round; every further run would add to what has left."""
    one = {"federation.rounds": 1, "train.epochs": 1}
    hospital.policy(phantom, privacy=PrivacyDemand(epsilon=8.0))
    unlimited = private(**one, **{"federation.privacy.epsilon": None, "federation.privacy.noise_multiplier": 0.9})
    outcomes = []
    for number in range(4):
        run = f"run-{number}"
        joined = hospital.send(PREFLIGHT, unlimited, run=run)
        trained = hospital.send(TRAIN, unlimited, (1, 0, 0, 1), run=run)
        outcomes.append((joined.has_error(), trained.has_error()))
    assert outcomes[0] == (False, False)
    assert outcomes[-1] == (True, True)
    assert hospital.left().count("train") < 4
    hospital.send(PREFLIGHT, unlimited, run="again")
    assert "would raise this site's epsilon" in hospital.log()


@pytest.mark.parametrize("lost", ["deleted", "rolled back", "with its run"])
def test_site_detects_lost_ledger(hospital, phantom, lost):
    config = private()
    hospital.policy(phantom, privacy=PrivacyDemand(epsilon=8.0))
    hospital.send(PREFLIGHT, config)
    run = hospital.node.folder / "runs" / "first"
    assert not hospital.send(TRAIN, config, (1, 0, 0, 1)).has_error()
    shutil.copytree(run / "privacy", hospital.node.folder / "earlier")
    assert not hospital.send(TRAIN, config, (2, 0, 1, 2)).has_error()
    shutil.rmtree(run if lost == "with its run" else run / "privacy")
    if lost == "rolled back":
        shutil.copytree(hospital.node.folder / "earlier", run / "privacy")
    reply = hospital.send(TRAIN, config, (2, 0, 1, 2))
    why = (
        "lacks round 2, which left by egress.jsonl"
        if lost == "rolled back"
        else "is missing, and round 2 of it has left"
    )
    assert_denied(hospital, reply, UNREADABLE_STATE, why)
    if lost == "with its run":  # what it released still counts
        other = hospital.send(PREFLIGHT, config, run="second")
        assert_denied(hospital, other, DENIED, "would raise this site's epsilon")


def test_site_detects_manifest_that_was_cut(hospital, phantom):
    config = private()
    hospital.policy(phantom, privacy=PrivacyDemand(epsilon=8.0))
    hospital.send(PREFLIGHT, config)
    for position in ((1, 0, 0, 1), (2, 0, 1, 2)):
        assert not hospital.send(TRAIN, config, position).has_error()
    lines = hospital.node.manifest.read_bytes().splitlines(keepends=True)
    hospital.node.manifest.write_bytes(lines[0])
    reply = hospital.send(TRAIN, config, (2, 0, 1, 2))
    assert_denied(hospital, reply, UNREADABLE_STATE, "has round 1, which egress.jsonl lacks")


def test_site_detects_folder_restored_from_backup_by_what_the_server_received(hospital, tmp_path):
    config = requested()
    hospital.send(PREFLIGHT, config)
    shutil.copytree(hospital.node.folder, tmp_path / "backup")
    hospital.send(TRAIN, config, (1, 0, 0, 1))
    digest = next(iter(hospital.node._sent().updates["first"][1]))
    received = {"north": (1, digest)}
    assert not hospital.send(PREFLIGHT, config, received=received).has_error()
    shutil.rmtree(hospital.node.folder)
    shutil.copytree(tmp_path / "backup", hospital.node.folder)
    reply = hospital.send(PREFLIGHT, config, received=received)
    assert_denied(hospital, reply, UNREADABLE_STATE, "lacks round 1 of first, which the server received")


def test_site_keeps_its_test_patients_whatever_seed_and_fractions_a_server_chooses(hospital):
    folders = []
    for number, changes in enumerate(({}, {"seed": 7}, {"data.test_fraction": 0.0, "data.validation_fraction": 0.1})):
        config = requested(**changes)
        assert not hospital.send(PREFLIGHT, config, run=f"run-{number}").has_error()
        folders.append(hospital.node.prepare(config).cohort)
    assert folders[0] == folders[1] == folders[2]
    stored = json.loads((hospital.node.folder / "split.json").read_text())["parts"]
    assert len(stored) == len(read_cohort(hospital.node.settings.data).patients)
    assert sum(map(len, folders[0].values())) < len(stored), "test patients are not prepared"


def test_site_withholds_numbers_of_few_patients(hospital, phantom):
    hospital.policy(phantom, minimum_group=5)
    config = requested()
    hospital.send(PREFLIGHT, config)
    trained = hospital.send(TRAIN, config, (1, 0, 0, 1))
    scored = hospital.send(EVALUATE, config, (1, 0, 1, 1))
    assert [dict(reply.content.metric_records["metrics"]) for reply in (trained, scored)] == [{}, {}]
    hospital.policy(phantom, minimum_group=2)
    scored = hospital.send(EVALUATE, config, (1, 0, 1, 1))
    assert "dice_wt" in scored.content.metric_records["metrics"]


def test_time_limit_interrupts_with_policy_error():
    with pytest.raises(PolicyError, match=r"takes longer than 0\.0005 minutes"), time_limit(5e-4):
        time.sleep(10)


def test_time_limit_restores_the_timer_before_it():
    before = signal.setitimer(signal.ITIMER_REAL, 200)
    try:
        with time_limit(60):
            assert 3000 < signal.getitimer(signal.ITIMER_REAL)[0] <= 3600
        assert 190 < signal.getitimer(signal.ITIMER_REAL)[0] <= 200
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)


@pytest.mark.parametrize("kind", [PREFLIGHT, TRAIN, EVALUATE, FINISH])
def test_site_ends_message_that_takes_longer_than_policy_permits(hospital, phantom, kind):
    config, first = requested(), {PREFLIGHT: (0, 0, 0, 0), TRAIN: (1, 0, 0, 1), EVALUATE: (1, 0, 1, 1)}
    hospital.send(PREFLIGHT, config)
    hospital.policy(phantom, minutes=1e-4)
    reply = hospital.send(kind, config, first.get(kind, (2, 1, 0, 0)))
    assert_denied(hospital, reply, DENIED, "which the policy permits (policy.minutes)")


def test_site_rejects_federation_when_its_folder_is_full(hospital, phantom):
    hospital.policy(phantom, disk_gib=1e-6)
    (hospital.node.folder / "large").write_bytes(bytes(2**12))
    assert_denied(hospital, hospital.send(PREFLIGHT, requested()), DENIED, "policy.disk_gib")


def test_site_takes_part_in_no_more_runs_than_policy_permits(hospital, phantom):
    hospital.policy(phantom, runs=2)
    config = requested()
    for run in ("first", "second", "third"):
        assert not hospital.send(PREFLIGHT, config, run=run).has_error(), "nothing has left to any of them"
    for run, kind, position in (("first", TRAIN, (1, 0, 0, 1)), ("second", EVALUATE, (1, 0, 1, 1))):
        assert not hospital.send(kind, config, position, run=run).has_error()
    reply = hospital.send(TRAIN, config, (1, 0, 0, 1), run="third")
    assert_denied(hospital, reply, DENIED, "would be run 3 that this site takes part in, and the policy permits 2")
    assert not hospital.send(TRAIN, config, (2, 0, 1, 2), run="first").has_error()


@pytest.mark.parametrize("message_type", ["train.default", "train.other"])
def test_site_answers_messages_of_the_agreed_types_alone(hospital, message_type):
    """Flower calls the handler of `train` for `train.default` too, which the manifest could not record."""
    config = private()
    hospital.send(PREFLIGHT, config)
    before = hospital.left()
    instruction = RoundInstruction("first", 1, 0, 0, 1, config=config.to_json())
    message = Message(pack_instruction(instruction, initial_weights(config)), dst_node_id=1, message_type=message_type)
    try:
        (reply,) = InProcessGrid(app, {1: {"home": str(hospital.node.folder)}}).send_and_receive([message])
    except ValueError:  # Flower has no handler of this name
        assert hospital.left() == before
    else:
        assert reply.has_error()
        assert hospital.left() == [*before, "error"]
    assert not (hospital.node.folder / "runs" / "first" / "privacy").exists()


def test_site_adds_noise_to_the_fact_that_training_diverged(hospital, phantom, caplog):
    """By an error, which takes no budget, a server would learn of the patients on what data its weights overflow."""
    config = private()
    hospital.policy(phantom, privacy=PrivacyDemand(epsilon=8.0))
    hospital.send(PREFLIGHT, config)
    arrays = {name: np.full_like(array, 1e30) for name, array in initial_weights(config).items()}
    reply = hospital.send(TRAIN, config, (1, 0, 0, 1), arrays=arrays)
    assert not reply.has_error()
    assert "the site sends noise alone" in caplog.text
    assert hospital.node._sent().private["first"] == {1: pytest.approx(noise_of(config))}
    assert not hospital.send(TRAIN, config, (2, 0, 1, 2)).has_error(), "and goes on from the server's next weights"


def test_site_sends_no_loss_of_a_phase_with_few_patients(hospital, phantom):
    """The discriminator steps on the first batch of an epoch alone: one slice of one patient."""
    hospital.policy(phantom, minimum_group=2)
    gan = {"system.gan": True, "system.discriminator_every": 10**6, "train.batch_size": 1, "train.epochs": 2}
    config = requested(**gan)
    assert not hospital.send(PREFLIGHT, config).has_error()
    first = schedule(build_system(config).stages, 2)[0]
    reply = hospital.send(TRAIN, config, (1, 0, first.first, first.until))
    names = set(reply.content.metric_records["metrics"])
    assert any(name.startswith("healthy/generator/") for name in names)
    assert not [name for name in names if name.startswith("healthy/discriminator/")]


def test_site_repeats_only_rounds_that_a_server_resumes_from(hospital):
    config = requested(**{"train.epochs": 5, "federation.rounds": 5})
    hospital.send(PREFLIGHT, config)
    for number in range(1, 5):
        assert not hospital.send(TRAIN, config, (number, 0, number - 1, number)).has_error()
    checkpoints = hospital.node.folder / "runs" / "first" / "checkpoints"
    before = sorted(checkpoints.iterdir())
    assert not hospital.send(EVALUATE, config, (1, 0, 1, 1)).has_error()
    assert sorted(checkpoints.iterdir()) == before, "scoring undoes no training"
    reply = hospital.send(TRAIN, config, (1, 0, 0, 1))
    assert_denied(hospital, reply, BROKEN, "round 1 is requested again after round 4 was sent")
    assert sorted(checkpoints.iterdir()) == before
    assert not hospital.send(TRAIN, config, (2, 0, 1, 2)).has_error()


def test_site_keeps_model_of_finished_run(hospital):
    config = requested()
    hospital.send(PREFLIGHT, config)
    for position in ((1, 0, 0, 1), (2, 0, 1, 2)):
        hospital.send(TRAIN, config, position)
    last = initial_weights(config)
    assert not hospital.send(FINISH, config, (2, 1, 0, 0), arrays=last).has_error()
    model = hospital.node.folder / "runs" / "first" / "model"
    (model / "thresholds.json").write_text("calibrated")
    assert not hospital.send(FINISH, config, (2, 1, 0, 0), arrays=last).has_error(), "a server may repeat a request"
    other = {name: array + np.float32(1) for name, array in last.items()}
    reply = hospital.send(FINISH, config, (1, 1, 0, 0), arrays=other)
    assert_denied(hospital, reply, BROKEN, "first: is finished here, and the server sends other last weights")
    assert (model / "thresholds.json").read_text() == "calibrated"


def test_site_answers_in_one_process_at_a_time(hospital, monkeypatch):
    """Two nodes with one folder would each check the budget before the other has spent it."""
    monkeypatch.setattr(limits, "LONGEST_WAIT_SECONDS", 0.1)
    with limits.one_process(hospital.node.folder):
        reply = hospital.send(PREFLIGHT, requested())
    assert_denied(hospital, reply, UNREADABLE_STATE, "another process answers for this site")
    assert not hospital.send(PREFLIGHT, requested()).has_error()
