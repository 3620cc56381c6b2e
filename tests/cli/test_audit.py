"""`ganseg audit`: a person's way to see what left a hospital."""

import json

import numpy as np
import pytest

from ganseg_dist.federation.manifest import START, Content, digest, seal, written
from tests.cli.conftest import assert_refused

WEIGHTS = {
    "networks.segmenter.encoder.weight": np.zeros((2, 3), np.float32),
    "networks.segmenter.encoder.bias": np.zeros(3, np.float32),
}
BIAS = {"networks.segmenter.encoder.bias": np.zeros(3, np.float32)}
MESSAGES = (
    ("preflight", 0, {}, {"patients": 12}),
    ("train", 1, WEIGHTS, {"num-examples": 30, "loss": 0.5}),
    ("train", 2, WEIGHTS, {"num-examples": 30, "loss": 0.25}),
    ("train", 4, BIAS | {"averages.painter.weight": np.zeros(1, np.float16)}, {"num-examples": 30, "loss": 0.125}),
    ("evaluate", 4, {}, {"num-examples": 5, "dice": 0.75}),
)
BYTES = 36 + 36 + 14


@pytest.fixture
def manifest(tmp_path):
    lines = []
    for kind, round, arrays, metrics in MESSAGES:
        content = Content.of(kind, "lgg", round, arrays, metrics)
        lines.append(written(seal(content, digest(lines[-1]) if lines else START)))
    file = tmp_path / "egress.jsonl"
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    return file


def lines_of(manifest):
    return manifest.read_bytes().splitlines(keepends=True)


def test_a_whole_manifest_is_summed_up(ganseg, manifest):
    first, *_, last = map(json.loads, lines_of(manifest))
    told = ganseg("audit", manifest)
    assert told.code == 0, told.err
    assert told.out.splitlines() == [
        f"{manifest}: 5 messages, an unbroken chain",
        "messages: 3 train, 1 preflight, 1 evaluate",
        "rounds of lgg: 0-2, 4",
        f"time: {first['time']} to {last['time']}",
        f"bytes in tensors: {BYTES}",
        "tensors of networks.segmenter: 1 sent 3 times (encoder.bias); 1 sent 2 times (encoder.weight)",
        "tensors of averages.painter: 1 sent 1 times (weight)",
        "metrics: dice, loss, num-examples, patients",
        f"head: {last['hash']}",
    ]
    assert "--head" in told.err


def test_it_says_so_in_json_too(ganseg, manifest):
    first, *_, last = map(json.loads, lines_of(manifest))
    told = ganseg("audit", manifest, "--json")
    assert told.code == 0, told.err
    assert json.loads(told.out) == {
        "file": str(manifest),
        "lines": 5,
        "head": last["hash"],
        "faults": [],
        "summary": {
            "messages": {"preflight": 1, "train": 3, "evaluate": 1},
            "rounds": {"lgg": [0, 1, 2, 4]},
            "first": first["time"],
            "last": last["time"],
            "bytes": BYTES,
            "tensors": {
                "networks.segmenter": {"encoder.weight": 2, "encoder.bias": 3},
                "averages.painter": {"weight": 1},
            },
            "metrics": ["dice", "loss", "num-examples", "patients"],
        },
    }


def test_a_broken_chain_is_told_line_by_line(ganseg, manifest):
    lines = lines_of(manifest)
    lines[1] = lines[1].replace(b'"loss":0.5', b'"loss":0.1')
    del lines[3]
    manifest.write_bytes(b"".join(lines))
    told = ganseg("audit", manifest)
    assert told.code == 1
    altered, removed, total = told.out.splitlines()
    assert altered.startswith("error: line 2: altered: ")
    assert removed.startswith("error: line 4: removed: ")
    assert total == f"{manifest}: 4 lines, 2 faults"
    in_json = ganseg("audit", manifest, "--json")
    assert in_json.code == 1
    said = json.loads(in_json.out)
    assert [(fault["line"], fault["kind"]) for fault in said["faults"]] == [(2, "altered"), (4, "removed")]
    assert said["summary"] is None, "what was altered is not summed up"


def test_a_power_cut_is_no_tampering(ganseg, manifest):
    manifest.write_bytes(manifest.read_bytes()[:-30])
    told = ganseg("audit", manifest)
    assert told.code == 1
    assert told.out.startswith("error: line 5: half written, as a power cut leaves it, not altered")
    manifest.write_bytes(b'{"bytes":')
    told = ganseg("audit", manifest)
    assert told.code == 1
    assert told.out.startswith("error: line 1: half written")


def test_lines_cut_off_the_end_show_with_the_head(ganseg, manifest):
    lines = lines_of(manifest)
    head = json.loads(lines[-1])["hash"]
    right = ganseg("audit", manifest, "--head", head)
    assert (right.code, right.err) == (0, "")
    manifest.write_bytes(b"".join(lines[:-1]))
    assert ganseg("audit", manifest).code == 0
    cut = ganseg("audit", manifest, "--head", head)
    assert cut.code == 1
    assert cut.out.startswith("error: line 4: head: ")


def test_a_manifest_before_its_first_message(ganseg, tmp_path):
    (tmp_path / "egress.jsonl").touch()
    told = ganseg("audit", tmp_path / "egress.jsonl")
    assert told.code == 0
    assert told.out.splitlines() == [f"{tmp_path / 'egress.jsonl'}: 0 messages, an unbroken chain", f"head: {START}"]


@pytest.mark.parametrize("place", ["nowhere", "folder", "notes.txt", "picture.png"])
def test_what_is_no_manifest_is_one_line(ganseg, tmp_path, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("of the ward\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20 + b"\n")
    assert_refused(ganseg("audit", tmp_path / place), 2, tmp_path / place)
    assert_refused(ganseg("audit", tmp_path / place, "--json"), 2, tmp_path / place)


@pytest.mark.parametrize("head", ["", "abc", "G" * 64, "0" * 63])
def test_a_head_that_is_no_hash_is_wrong_usage(ganseg, manifest, head):
    assert_refused(ganseg("audit", manifest, "--head", head), 2, "--head")
