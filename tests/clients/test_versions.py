"""What a site writes of a server that runs other code or another protocol."""

import dataclasses
import json
import logging

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from clients.app import app
from ganseg_dist.federation.protocol import PREFLIGHT, RoundInstruction
from ganseg_dist.federation.versions import PROTOCOL, PROTOCOL_CODES
from server.grids import InProcessGrid

INSTRUCTION = RoundInstruction("run", 0, 0, 0, 0, config="{}")


@pytest.fixture
def preflight(tmp_path):
    """A site's answer to a preflight with this instruction, by a site without images, and its log."""

    def answer(instruction: dict) -> tuple[Message, str]:
        (tmp_path / "site.toml").write_text('name = "north"\ndata = "/unread"\n')
        grid = InProcessGrid(app, {1: {"home": str(tmp_path)}})
        content = RecordDict({"instruction": ConfigRecord({"json": json.dumps(instruction)}), "arrays": ArrayRecord()})
        (reply,) = grid.send_and_receive([Message(content, dst_node_id=1, message_type=PREFLIGHT)])
        return reply, (tmp_path / "site.log").read_text()

    return answer


def test_site_warns_in_its_log_and_output_of_a_server_with_other_code(preflight, caplog):
    caplog.set_level(logging.INFO, "clients")
    instruction = dataclasses.replace(INSTRUCTION, code="ab" * 32, version="0.2.0")
    _, log = preflight(json.loads(instruction.to_json()))
    warning = "warning: the server runs other code (ganseg-dist 0.2.0, code abababababab; here ganseg-dist"
    assert warning in log
    assert warning in caplog.text


def test_site_does_not_warn_of_a_server_with_the_same_code(preflight):
    _, log = preflight(json.loads(INSTRUCTION.to_json()))
    assert "warning" not in log


@pytest.mark.parametrize(
    ("protocol", "remedy"),
    [(PROTOCOL + 1, "upgrade ganseg-dist here to the version of the server"), (PROTOCOL - 1, "upgrade the server to")],
)
def test_site_rejects_a_server_of_another_protocol_and_sends_its_own(preflight, protocol, remedy):
    reply, log = preflight(json.loads(INSTRUCTION.to_json()) | {"protocol": protocol, "config": None, "new": []})
    assert reply.error.code == PROTOCOL_CODES[PROTOCOL]
    assert f"the server runs protocol {protocol}" in log
    assert remedy in log
