"""`ganseg audit`: summary and verification of an egress manifest."""

import json
import os

import numpy as np
import pytest

from ganseg_dist.federation.egress_manifest import START, Content, digest, seal, to_line
from tests.cli.conftest import assert_error

WEIGHTS = {
    "networks.segmenter.encoder.weight": np.zeros((2, 3), np.float32),
    "networks.segmenter.encoder.bias": np.zeros(3, np.float32),
}
BIAS = {"networks.segmenter.encoder.bias": np.zeros(3, np.float32)}
MESSAGES = (
    ("preflight", 0, {"description": np.zeros(9, np.uint8)}, {"patients": 12}),
    ("fingerprint", 0, {"seen/t1": np.zeros(4, np.int64), "side": np.zeros(2, np.int64)}, {}),
    ("train", 1, WEIGHTS, {"num-examples": 30, "segment/supervised/dice": 0.5}),
    ("train", 2, WEIGHTS, {"num-examples": 30, "segment/supervised/dice": 0.25}),
    ("train", 4, BIAS | {"ema.generator.weight": np.zeros(1, np.float16)}, {"num-examples": 30}),
    ("evaluate", 4, {}, {"num-examples": 5, "dice": 0.75}),
)
BYTES = 9 + 48 + 36 + 36 + 14


def write_egress_manifest(file, messages):
    """The manifest of a federation's messages."""
    lines = []
    for kind, round, arrays, metrics in messages:
        content = Content.of(kind, "lgg", round, arrays, metrics)
        lines.append(to_line(seal(content, digest(lines[-1]) if lines else START)))
    file.write_bytes(b"".join(line + b"\n" for line in lines))


@pytest.fixture
def manifest(tmp_path):
    file = tmp_path / "egress.jsonl"
    write_egress_manifest(file, MESSAGES)
    return file


def lines_of(manifest):
    return manifest.read_bytes().splitlines(keepends=True)


def test_audit_summarizes_intact_manifest(ganseg, manifest):
    first, *_, last = map(json.loads, lines_of(manifest))
    result = ganseg("audit", manifest)
    assert result.code == 0, result.err
    assert result.out.splitlines() == [
        f"{manifest}: 6 messages, an unbroken chain",
        "federation: lgg",
        "joining (before the first round): 1 message: 1 number (patients); names of the site, its channels, regions "
        "and classes",
        "fingerprint (before the first round): 1 message: 2 histograms sent once",
        "training (rounds 1-2, 4): 3 messages: 1 loss (segment/supervised/dice); 1 number (num-examples); "
        "networks.segmenter: 1 tensor sent 3 times, 1 tensor sent twice; ema.generator: 1 tensor sent once",
        "validation (round 4): 1 message: 2 numbers (dice, num-examples)",
        f"time: {first['time']} to {last['time']}",
        f"bytes in tensors: {BYTES}",
        f"head: {last['hash']}",
    ]
    assert "--head" in result.err


def test_audit_verbose_lists_every_tensor_and_number(ganseg, tmp_path):
    file = tmp_path / "egress.jsonl"
    losses = {f"segment/supervised/term{index}": 0.5 for index in range(9)}
    write_egress_manifest(file, [*MESSAGES[:3], ("train", 1, WEIGHTS | {"hidden": np.zeros(2, np.float32)}, losses)])
    short, full = ganseg("audit", file), ganseg("audit", file, "--verbose")
    assert (short.code, full.code) == (0, 0)
    assert "10 losses and their weights; " in short.out
    assert "encoder.bias" not in short.out
    assert "1 other tensor sent once (hidden)" in short.out, "what belongs to no network is never only counted"
    assert "2 histograms sent once (seen/t1, side)" in full.out
    assert "networks.segmenter: 2 tensors sent twice (encoder.weight, encoder.bias)" in full.out
    assert all(name in full.out for name in losses)


def test_audit_separates_federations_and_rounds_of_errors(ganseg, tmp_path):
    file = tmp_path / "egress.jsonl"
    write_egress_manifest(file, [("error", 0, {}, {"code": 1002}), ("error", 3, {}, {"code": 1004})])
    lines = file.read_bytes().splitlines()
    other = seal(Content.of("finish", "hgg", 7, {}, {}), digest(lines[-1]))
    file.write_bytes(file.read_bytes() + to_line(other) + b"\n")
    assert ganseg("audit", file).out.splitlines()[1:5] == [
        "federation: lgg",
        "errors (before the first round and round 3): 2 messages: 1 number (code)",
        "federation: hgg",
        "end (round 7): 1 message: nothing in it",
    ]


def test_audit_json_holds_summary(ganseg, manifest):
    first, *_, last = map(json.loads, lines_of(manifest))
    result = ganseg("audit", manifest, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out) == {
        "file": str(manifest),
        "lines": 6,
        "head": last["hash"],
        "faults": [],
        "summary": {
            "messages": {"preflight": 1, "fingerprint": 1, "train": 3, "evaluate": 1},
            "rounds": {"lgg": [0, 1, 2, 4]},
            "first": first["time"],
            "last": last["time"],
            "bytes": BYTES,
            "tensors": {
                "no network": {"description": 1, "seen/t1": 1, "side": 1},
                "networks.segmenter": {"encoder.weight": 2, "encoder.bias": 3},
                "ema.generator": {"weight": 1},
            },
            "metrics": ["dice", "num-examples", "patients", "segment/supervised/dice"],
        },
    }


def test_audit_reports_broken_chain_by_line(ganseg, manifest):
    lines = lines_of(manifest)
    lines[2] = lines[2].replace(b'/dice":0.5', b'/dice":0.1')
    del lines[4]
    manifest.write_bytes(b"".join(lines))
    result = ganseg("audit", manifest)
    assert result.code == 1
    altered, removed, total = result.out.splitlines()
    assert altered.startswith("error: line 3: altered: ")
    assert removed.startswith("error: line 5: removed: ")
    assert total == f"{manifest}: 5 lines, 2 faults"
    in_json = ganseg("audit", manifest, "--json")
    assert in_json.code == 1
    stored = json.loads(in_json.out)
    assert [(fault["line"], fault["kind"]) for fault in stored["faults"]] == [(3, "altered"), (5, "removed")]
    assert stored["summary"] is None, "what was altered is not summed up"


def test_audit_distinguishes_half_written_line_from_altered_line(ganseg, manifest):
    manifest.write_bytes(manifest.read_bytes()[:-30])
    result = ganseg("audit", manifest)
    assert result.code == 1
    assert result.out.startswith("error: line 6: half written by a power cut, not altered")
    manifest.write_bytes(b'{"bytes":')
    result = ganseg("audit", manifest)
    assert result.code == 1
    assert result.out.startswith("error: line 1: half written")


def test_audit_detects_removed_last_lines_with_head(ganseg, manifest):
    lines = lines_of(manifest)
    head = json.loads(lines[-1])["hash"]
    right = ganseg("audit", manifest, "--head", head)
    assert (right.code, right.err) == (0, "")
    manifest.write_bytes(b"".join(lines[:-1]))
    assert ganseg("audit", manifest).code == 0
    cut = ganseg("audit", manifest, "--head", head)
    assert cut.code == 1
    assert cut.out.startswith("error: line 5: head: ")


def test_audit_prints_first_20_faults(ganseg, manifest):
    lines = lines_of(manifest)
    manifest.write_bytes(b"".join(lines[1:]))
    assert ganseg("audit", manifest).out.splitlines()[-1] == f"{manifest}: 5 lines, 1 fault"
    manifest.write_bytes(b"".join(lines) + b"x\n" * 25)
    result = ganseg("audit", manifest)
    assert result.code == 1
    *errors, more, total = result.out.splitlines()
    assert len(errors) == 20
    assert all(line.startswith("error: line ") for line in errors)
    assert (more, total) == ("and 5 more; --json has all", f"{manifest}: 31 lines, 25 faults")
    assert len(json.loads(ganseg("audit", manifest, "--json").out)["faults"]) == 25


def test_audit_accepts_empty_file_only_with_start_head(ganseg, tmp_path):
    file = tmp_path / "egress.jsonl"
    file.touch()
    result = ganseg("audit", file)
    assert result.code == 1, "an emptied file is as empty as one that nothing was written to"
    assert "nothing has left yet, or the file was emptied" in result.out
    assert "unbroken" not in result.out
    (fault,) = json.loads(ganseg("audit", file, "--json").out)["faults"]
    assert (fault["line"], fault["kind"]) == (0, "empty")
    new = ganseg("audit", file, "--head", START)
    assert (new.code, new.err) == (0, "")
    assert new.out.splitlines() == [f"{file}: 0 messages, an unbroken chain", f"head: {START}"]
    emptied = ganseg("audit", file, "--head", "ab" * 32)
    assert emptied.code == 1
    assert emptied.out.startswith("error: head: ")


@pytest.mark.parametrize("place", ["nowhere", "folder", "notes.txt", "picture.png", "image.nii"])
def test_audit_rejects_file_that_is_no_manifest(ganseg, tmp_path, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("of the ward\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20 + b"\n")
    (tmp_path / "image.nii").write_bytes(b"\n\0\x80" * 2000 + b"\0")
    assert_error(ganseg("audit", tmp_path / place), 2, tmp_path / place)
    assert_error(ganseg("audit", tmp_path / place, "--json"), 2, tmp_path / place)


@pytest.mark.timeout(60)
def test_audit_rejects_pipe_and_device(ganseg, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", "/dev/zero"):
        assert_error(ganseg("audit", place), 2, f"{place}: cannot be read", "is not a regular file")


@pytest.mark.parametrize("head", ["", "abc", "G" * 64, "0" * 63])
def test_audit_rejects_invalid_head(ganseg, manifest, head):
    assert_error(ganseg("audit", manifest, "--head", head), 2, "--head")


def test_audit_escapes_control_characters_in_names(ganseg, tmp_path):
    name = "dice\x9b31m\u202e[/x]"
    write_egress_manifest(tmp_path / "egress.jsonl", [("evaluate", 1, {}, {name: 0.5})])
    result = ganseg("audit", tmp_path / "egress.jsonl")
    assert result.code == 0, result.err
    assert r"1 number (dice\x9b31m\u202e[/x])" in result.out
    assert json.loads(ganseg("audit", tmp_path / "egress.jsonl", "--json").out)["summary"]["metrics"] == [name]
