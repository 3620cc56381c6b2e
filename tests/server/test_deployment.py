"""A server without data: sites with folders of their own agree on the open fields of the recipe."""

import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flwr.app import Context, Message

from clients.app import app
from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.labels import BRATS
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.errors import ConfigError, FederationError, RunError
from ganseg_dist.federation import egress_manifest
from ganseg_dist.federation.flower import pack_reply, unpack_instruction
from ganseg_dist.federation.policy import SitePolicy
from ganseg_dist.federation.protocol import PREFLIGHT
from ganseg_dist.federation.site_info import SiteInfo
from ganseg_dist.federation.site_settings import SiteSettings
from ganseg_dist.federation.versions import installed
from ganseg_dist.systems import recipe
from server import sites as module
from server.deployment import Deployment, deploy
from server.grids import InProcessGrid
from server.site_registry import Registry
from tests.server.registered import fingerprint, registry

pytestmark = pytest.mark.usefixtures("own_runs")

POLICY = SitePolicy(minimum_patients=2, minimum_group=1, test_fraction=0.0, validation_fraction=0.4)
SHORT = {"system.gan": False, "train.epochs": 2, "data.test_fraction": 0.0, "data.validation_fraction": 0.4}


@pytest.fixture
def hospitals(phantom: Path, tmp_path: Path) -> InProcessGrid:
    patients = read_cohort(phantom).patients
    for place, name in enumerate(("north", "south")):
        (tmp_path / name).mkdir()
        settings = SiteSettings(name=name, data=phantom, patients=patients[place::2], policy=POLICY)
        (tmp_path / name / "site.toml").write_text(settings.to_toml())
    return InProcessGrid(app, {1: {"home": str(tmp_path / "north")}, 2: {"home": str(tmp_path / "south")}})


@pytest.fixture
def registered(tmp_path: Path) -> Registry:
    return registry(tmp_path, {1: "north", 2: "south"})


def label(site: str) -> str:
    return f"{site} ({fingerprint(site)[:19]})"


def deployment(least_sites: int = 2, **changes: object) -> Deployment:
    config: RunConfig = override(recipe("ganet_seg_debug"), SHORT | changes)
    return Deployment(config, "together", least_sites)


def test_deploy_agrees_on_open_fields_and_trains(hospitals, registered, tmp_path):
    lines: list[str] = []
    run = deploy(deployment(), hospitals, registered, tracker=Tracker(), write_line=lines.append)
    answers = ["north has answered after N s; waiting for south", "south has answered after N s; 2 of 2 have"]
    of_a_round = ["asking 2 sites to train", *answers, "asking 2 sites to score", *answers]
    info = [
        "asking 2 nodes whether to take part",
        f"{label('north')} takes part, with 4 patients",
        f"{label('south')} takes part, with 4 patients",
    ]
    assert [re.sub(r"\d+ s;", "N s;", line) for line in lines] == [
        *info,
        "agreed on channels t1, t1ce, t2, flair; regions wt, tc, et",
        *info,
        "asking 2 sites for the fingerprints of their data",
        *answers,
        *(f"round {number} of 2: {line}" for number in (1, 2) for line in of_a_round),
        "asking 2 sites to save their models",
        *answers,
    ]
    assert run.finished
    assert run.config().data.modalities == ("t1", "t1ce", "t2", "flair")
    assert run.config().data.regions == ("wt", "tc", "et")
    assert run.read("data.json")["phantom"], "facts that all sites state of their images are kept"
    assert run.read("data.json")["labels"] == BRATS.to_json(), "and the label scheme that all of them state"
    card = (run.model / "card.md").read_text()
    assert "Values of a mask: 0 background, 1 necrotic core, 2 oedema, 4 enhancing tumour\n" in card
    federation = run.federation()
    assert federation is not None
    assert [sorted(record.sites) for record in federation.rounds] == [["north", "south"]] * 2
    assert {name: site.key for name, site in federation.sites.items()} == {
        name: fingerprint(name) for name in ("north", "south")
    }
    assert {site.versions for site in federation.sites.values()} == {federation.server} == {installed()}
    for record in federation.rounds:
        assert record.started is not None
        assert abs(datetime.now(UTC) - datetime.fromisoformat(record.started)).total_seconds() < 600
        answered = {name: site.seconds for name, site in record.sites.items()}
        assert 0 < answered["north"] <= answered["south"] <= record.seconds
        assert record.unanswered == ()
    assert (tmp_path / "north" / "runs" / "together" / "model" / "config.json").exists()
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "north" / "egress.jsonl").read_text().splitlines()]
    assert kinds[:3] == ["preflight", "preflight", "fingerprint"]
    assert "Sites: north" in (run.model / "card.md").read_text()


def interrupt_in_second_round(hospitals: InProcessGrid, registered: Registry, request: Deployment) -> None:
    deadly = {"rounds": 0}

    class Killed(InProcessGrid):
        def push_messages(self, messages):
            wanted = list(messages)
            deadly["rounds"] += wanted[0].metadata.message_type == "train"
            if deadly["rounds"] == 2:
                raise KeyboardInterrupt
            return super().push_messages(wanted)

    with pytest.raises(KeyboardInterrupt):
        deploy(request, Killed(hospitals.answer, hospitals.nodes), registered, tracker=Tracker())


def test_deploy_resumes_with_agreed_config(hospitals, registered):
    interrupt_in_second_round(hospitals, registered, deployment())
    lines: list[str] = []
    run = deploy(deployment(), hospitals, registered, tracker=Tracker(), write_line=lines.append)
    assert "together: resumes from round 2 of 2" in lines
    federation = run.federation()
    assert federation is not None
    assert [record.round for record in federation.rounds] == [1, 2]


@pytest.mark.slow
def test_deploy_sends_each_node_the_last_update_received_of_it_alone(hospitals, registered, tmp_path):
    received: dict[int, list[dict]] = {1: [], 2: []}

    def answer(message, context):
        if message.metadata.message_type == PREFLIGHT:
            received[context.node_id].append(dict(unpack_instruction(message.content).received))
        return app(message, context)

    grid = InProcessGrid(answer, hospitals.nodes)
    interrupt_in_second_round(grid, registered, deployment())
    deploy(deployment(), grid, registered, tracker=Tracker())
    for node, name in {1: "north", 2: "south"}.items():
        entries = map(egress_manifest.read, (tmp_path / name / "egress.jsonl").read_bytes().splitlines())
        (sent,) = [entry.arrays_digest for entry in entries if (entry.kind, entry.round) == ("train", 1)]
        assert received[node] == [{}, {}, {name: (1, sent)}]


@pytest.mark.slow
def test_deploy_never_waits_for_silent_node_in_a_round(hospitals, registered, monkeypatch):
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.0)

    class Silent(InProcessGrid):
        """Node 3 is connected and never answers."""

        def pull_messages(self, message_ids):
            nodes = {number: message.metadata.dst_node_id for number, message in self.waiting.items()}
            return super().pull_messages(number for number in message_ids if nodes.get(number) != 3)

    lines: list[str] = []
    request = deployment(**{"federation.deadline_seconds": 120.0})
    began = time.monotonic()
    run = deploy(
        request, Silent(app, {**hospitals.nodes, 3: {}}), registered, tracker=Tracker(), write_line=lines.append
    )
    assert time.monotonic() - began < 120, "neither a start nor a round lasted until the deadline"
    assert run.config().federation.site_batch_size == run.config().train.batch_size // 2, "it has not joined"
    assert [bool(re.search(rf"^round {number} of 2: begins without node 3 \(\d+ s\), not joined yet$",
            "\n".join(lines), re.MULTILINE)) for number in (1, 2)] == [True, True]  # fmt: skip


@pytest.mark.slow
def test_deploy_fixes_site_batch_size_by_sites_that_begin_not_by_least_sites(hospitals, registered, caplog):
    """A resume with another gate, deadline and quorum trains on as before."""
    interrupt_in_second_round(hospitals, registered, deployment(least_sites=1))
    resumed = deployment(2, **{"federation.deadline_seconds": 1800.0, "federation.quorum": 1.0})
    run = deploy(resumed, hospitals, registered, tracker=Tracker())
    assert run.finished
    assert run.config().federation.site_batch_size == run.config().train.batch_size // 2
    assert run.config().federation.deadline_seconds == 1800.0
    changes = "federation.deadline_seconds was 3600.0, is 1800.0; federation.quorum was 0.5, is 1.0"
    assert f"together: resumes with another config ({changes}); it changes no result" in caplog.messages


def test_deploy_rejects_another_site_batch_size_on_resume(hospitals, registered):
    interrupt_in_second_round(hospitals, registered, deployment())
    other = deployment(**{"federation.site_batch_size": 3, "federation.quorum": 1.0})
    batch_size = other.config.train.batch_size // 2
    with pytest.raises(RunError) as rejected:
        deploy(other, hospitals, registered, tracker=Tracker())
    assert str(rejected.value) == (
        f"together: was started with another config (federation.site_batch_size was {batch_size}, is 3, which changes "
        "the result; federation.quorum was 0.5, is 1.0, which may change); choose another --run-name"
    )


@pytest.mark.slow
def test_deploy_rejects_other_fields_than_agreed_on_resume(hospitals, registered):
    deploy(deployment(**{"data.modalities": ["t1", "flair"]}), hospitals, registered, tracker=Tracker())
    with pytest.raises(ConfigError, match="t2 is not in"):
        deploy(deployment(**{"data.modalities": ["t2"]}), hospitals, registered, tracker=Tracker())


def test_deploy_raises_with_reasons_when_too_few_sites_join(hospitals, registered, tmp_path):
    (tmp_path / "south" / "site.toml").write_text("")
    why = r"1 of 2 required sites joined \(north\); south \(SHA256:.*\): the site rejects"
    with pytest.raises(FederationError, match=why):
        deploy(deployment(**{"federation.deadline_seconds": 1.0}), hospitals, registered, tracker=Tracker())
    assert not (tmp_path / "runs" / "together").exists()


def test_deploy_excludes_site_without_requested_modality(hospitals, registered):
    named = {"data.modalities": ["swi"], "federation.deadline_seconds": 1.0}
    with pytest.raises(FederationError, match="0 of "):
        deploy(deployment(**named), hospitals, registered, tracker=Tracker())


@pytest.mark.slow
def test_deploy_admits_site_after_site_toml_is_corrected(hospitals, registered, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ASK_AGAIN_SECONDS", 0.1)
    file = tmp_path / "south" / "site.toml"
    good = file.read_text()
    file.write_text("")
    warned: list[str] = []

    class Engineer(Tracker):
        """At south, corrects the file after the server's warning."""

        def warn(self, step: int, warning: str) -> None:
            warned.append(warning)
            file.write_text(good)

    run = deploy(deployment(), hospitals, registered, tracker=Engineer())
    assert run.finished
    assert warned == [f"{label('south')}: takes no part: the site rejects the config"]


class SomeModalities:
    """The hospitals' app, and a third site's, which states T1 alone whenever it joins, and trains on request."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def __call__(self, message: Message, context: Context) -> Message:
        if context.node_id != 3:
            return app(message, context)
        self.kinds.append(message.metadata.message_type)
        info = SiteInfo("west", 3, 3, 30, ("swi",), ("wt",), (), BRATS.of_regions(("wt",)))
        return Message(pack_reply({"description": info.description()}, info.counts()), reply_to=message)


def test_deploy_sends_nothing_more_to_site_that_cannot_train_with_the_others(hospitals, tmp_path):
    keys, answer = registry(tmp_path, {1: "north", 2: "south", 3: "west"}), SomeModalities()
    grid = InProcessGrid(answer, {**hospitals.nodes, 3: {}})
    lines: list[str] = []
    run = deploy(deployment(), grid, keys, tracker=Tracker(), write_line=lines.append)
    assert answer.kinds == ["query.preflight"]
    assert run.config().data.modalities == ("t1", "t1ce", "t2", "flair")
    assert lines.count(f"{label('west')} takes part, with 3 patients") == 1, "before the agreement"


@pytest.mark.slow
def test_deploy_resumes_without_a_site_that_lacks_what_was_agreed_on(hospitals, tmp_path):
    keys, answer = registry(tmp_path, {1: "north", 2: "south", 3: "west"}), SomeModalities()
    interrupt_in_second_round(hospitals, keys, deployment())
    run = deploy(deployment(), InProcessGrid(answer, {**hospitals.nodes, 3: {}}), keys, tracker=Tracker())
    assert answer.kinds == ["query.preflight"]
    federation = run.federation()
    assert federation is not None
    assert sorted(federation.sites) == ["north", "south"]
