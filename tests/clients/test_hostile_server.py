"""A server that sends nonsense gets a code; the site writes one entry to its log, and goes on."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict

from clients.app import LONGEST_ENTRY, app
from ganseg_dist.federation.flower import pack_instruction
from ganseg_dist.federation.protocol import (
    EVALUATE,
    FINGERPRINT,
    FINISH,
    LONGEST_INSTRUCTION,
    PREFLIGHT,
    SITE_ERROR_CODES,
    TRAIN,
    RoundInstruction,
)
from ganseg_dist.systems import recipe
from server.grids import InProcessGrid
from tests.federation.hostile.server_attacks import ATTACKS, FORGED, changed


def answered(folder: Path, content: RecordDict, kind: str) -> Message:
    (folder / "site.toml").write_text('name = "north"\ndata = "/unread"\n')
    grid = InProcessGrid(app, {1: {"home": str(folder)}})
    (reply,) = grid.send_and_receive([Message(content, dst_node_id=1, message_type=kind)])
    return reply


@pytest.mark.parametrize("content", ATTACKS.values(), ids=ATTACKS)
def test_site_answers_nonsense_with_code_and_one_entry_of_its_log(content, tmp_path):
    for number, kind in enumerate((PREFLIGHT, FINGERPRINT, TRAIN, EVALUATE, FINISH), start=1):
        reply = answered(tmp_path, content, kind)
        assert reply.has_error()
        assert reply.error.code in SITE_ERROR_CODES
        assert "all/good" not in reply.error.reason
        log = (tmp_path / "site.log").read_text()
        lines = log.splitlines()
        assert len(lines) == number, "one line each"
        assert all(line.isprintable() and len(line) < 600 for line in lines)
        assert len(re.findall(r"^\S+ ", log, re.MULTILINE)) == number
        recorded = [json.loads(line) for line in (tmp_path / "egress.jsonl").read_text().splitlines()]
        assert [line["kind"] for line in recorded] == ["error"] * number


def test_instructions_fit_the_bound_that_sites_have():
    largest = pack_instruction(RoundInstruction("r" * 100, 1, 0, 0, 1, config=recipe("ganet_seg").to_json()), {})
    text = largest["instruction"]["json"]
    assert len(text) < LONGEST_INSTRUCTION / 10


@pytest.mark.parametrize("kind", [TRAIN, EVALUATE, FINISH])
def test_site_repeats_no_name_of_arrays_that_it_rejects(kind, tmp_path):
    arrays = {
        "a pickle": Array("object", (1,), "numpy.ndarray", b"\x80\x04N."),
        "10^6 x 10^6": Array("float32", (10**6, 10**6), "numpy.ndarray", bytes(200)),
        "float64": Array(np.zeros(3)),
    }
    for array in arrays.values():
        content = changed()
        content["arrays"] = ArrayRecord({FORGED: array})
        assert answered(tmp_path, content, kind).has_error()
    assert "all/good" not in (tmp_path / "site.log").read_text()


def test_site_log_indents_and_truncates_traceback_of_an_entry(tmp_path, monkeypatch):
    """An unexpected error's traceback may quote the server."""

    def fail(*_: object) -> None:
        raise RuntimeError(FORGED + "x" * 10**6)

    monkeypatch.setattr("clients.node.SiteNode.join", fail)
    assert answered(tmp_path, changed(), PREFLIGHT).error.code == 1000
    log = (tmp_path / "site.log").read_text()
    assert len(re.findall(r"^\d{4}-", log, re.MULTILINE)) == 1
    assert "\x1b" not in log
    assert len(log) < LONGEST_ENTRY + 100
