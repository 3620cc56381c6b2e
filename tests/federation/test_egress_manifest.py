import hashlib
import io
import json
import re

import numpy as np
import pytest

from ganseg_dist.errors import FederationError
from ganseg_dist.federation import egress_manifest
from ganseg_dist.federation.egress_manifest import (
    START,
    Content,
    digest,
    is_unfinished,
    last_line,
    read,
    seal,
    to_line,
    verify,
)

LINES = 6


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def content(round=1, loss=0.5, **arrays):
    return Content.of("train", "lgg", round, arrays or {"w": np.arange(3, dtype=np.float32)}, {"loss": loss})


def chain(contents):
    lines = []
    for each in contents:
        lines.append(to_line(seal(each, sha256(lines[-1]) if lines else START)))
    return lines


@pytest.fixture
def lines():
    """Of an intact manifest, without their line feeds."""
    return chain(content(round, loss=1 / (round + 1)) for round in range(LINES))


def as_file(lines):
    return b"".join(line + b"\n" for line in lines)


def verified(data, head=None):
    """The verdict on a file's bytes, and the rounds of its intact entries."""
    rounds = []
    verdict = verify(io.BytesIO(data), lambda entry: rounds.append(entry.round), head)
    return verdict, rounds


def faults(data, head=None):
    return [(fault.line, fault.kind) for fault in verified(data, head)[0].faults]


def resealed(line, **changes):
    """A changed line with a matching hash."""
    fields = {**json.loads(line), **changes}
    del fields["hash"]
    return egress_manifest.canonical({**fields, "hash": sha256(egress_manifest.canonical(fields))})


def test_manifest_hash_is_sha256_of_line_without_hash(lines):
    previous = START
    for line in lines:
        (hash_,) = re.findall(rb'"hash":"([0-9a-f]{64})",', line)
        (stored,) = re.findall(rb'"previous":"([0-9a-f]{64})"', line)
        assert sha256(re.sub(rb'"hash":"[0-9a-f]*",', b"", line)) == hash_.decode()
        assert stored.decode() == previous
        previous = sha256(line)


def test_manifest_line_holds_names_digests_and_numbers():
    weights = np.array([[1, 2], [3, 4]], np.uint8)
    made = content(loss=0.25, **{"networks.segmenter.weight": weights}, bias=np.zeros(2, np.float16))
    line = json.loads(to_line(seal(made, START)))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    del line["hash"]
    assert line == {
        "kind": "train",
        "run": "lgg",
        "round": 1,
        "metrics": {"loss": 0.25},
        "noise_multiplier": None,
        "bytes": 8,
        "previous": START,
        "tensors": [
            {"name": "networks.segmenter.weight", "dtype": "uint8", "shape": [2, 2], "bytes": 4,
             "sha256": sha256(b"\1\2\3\4")},
            {"name": "bias", "dtype": "float16", "shape": [2], "bytes": 4, "sha256": sha256(b"\0\0\0\0")},
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
        np.arange(12.0)[::3],
        np.array([True, False, True]),
        np.zeros((0, 4), np.float32),
        np.array(7, np.int64),
        np.arange(3, dtype=">f4"),
    ],
    ids=["fortran", "strided", "bool", "empty", "scalar", "big-endian"],
)
def test_content_hashes_tensors_in_c_order(array):
    (tensor,) = content(w=array).tensors
    assert tensor.sha256 == sha256(array.tobytes("C"))
    assert (tensor.shape, tensor.bytes) == (array.shape, array.nbytes)
    assert np.dtype(tensor.dtype) == array.dtype
    assert faults(as_file(chain([content(w=array)]))) == []


@pytest.mark.parametrize(
    "value", [0, -1, 2**70, 0.0, -0.0, 1.0, 0.1, 1e22, 1e16, 5e-324, 1.7976931348623157e308, 1 / 3]
)
def test_read_returns_finite_numbers_exactly(value):
    data = as_file(chain([content(loss=value)]))
    assert faults(data) == []
    loss = read(data.strip()).metrics["loss"]
    assert repr(loss) == repr(value)


def test_content_accepts_numpy_numbers():
    assert content(loss=np.float32(0.5)).metrics == {"loss": 0.5}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan"), True, "p19", None, [1.0]])
def test_content_rejects_metric_that_is_no_finite_number(value):
    with pytest.raises(FederationError, match=r"^loss: is not a finite number; .*leave a hospital$"):
        content(loss=value)


@pytest.mark.parametrize("array", [np.array(["p19"]), np.array([{}], object), np.array(["2020-01-01"], "M8[D]")])
def test_content_rejects_array_without_numbers(array):
    with pytest.raises(FederationError, match=r"^w: is of .*only numbers leave"):
        content(w=array)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("kind", {"kind": "telemetry"}),
        ("run", {"run": "../other"}),
        ("round", {"round": -1}),
        ("tensors.0.name", {"arrays": {"/home/p19": np.zeros(1)}}),
        ("tensors.0.name", {"arrays": {"C:\\p19": np.zeros(1)}}),
        ("metrics", {"metrics": {"~/p19": 1.0}}),
        ("metrics", {"metrics": {"two\nlines": 1.0}}),
    ],
)
def test_content_rejects_invalid_kind_run_round_and_names(field, changes):
    message = {"kind": "train", "run": "lgg", "round": 1, "arrays": {}, "metrics": {}}
    assert Content.of(**message).bytes == 0
    with pytest.raises(FederationError, match=rf"^a message cannot leave: {field}") as caught:
        Content.of(**message | changes)
    assert "\n" not in str(caught.value)


def test_verify_accepts_intact_manifest(lines):
    verdict, rounds = verified(as_file(lines))
    assert verdict.faults == ()
    assert verdict.lines == verdict.entries == LINES
    assert verdict.head == json.loads(lines[-1])["hash"]
    assert rounds == list(range(LINES))
    assert faults(as_file(lines), head=verdict.head) == []


def test_verify_accepts_empty_manifest():
    assert verified(b"")[0] == egress_manifest.Verdict(0, 0, START, ())
    assert faults(b"", head="a" * 64) == [(0, "head")]


def loss_changed(line):
    return re.sub(rb'"loss":[0-9.]+', b'"loss":7.5', line)


def forged(lines, after):
    return to_line(seal(content(99), sha256(lines[after - 1])))


TAMPERED = {
    "a value": (lambda x: [*x[:2], loss_changed(x[2]), *x[3:]], [(3, "altered")]),
    "a value of the last": (lambda x: [*x[:5], loss_changed(x[5])], [(6, "altered")]),
    "a value, with its hash": (
        lambda x: [*x[:2], resealed(loss_changed(x[2])), *x[3:]],
        [(4, "removed")],
    ),
    "spaces": (lambda x: [x[0], x[1].replace(b",", b", "), *x[2:]], [(2, "altered")]),
    "a name given twice": (lambda x: [x[0], b'{"round":9,' + x[1][1:], *x[2:]], [(2, "altered")]),
    "a field of its own": (lambda x: [x[0], resealed(x[1], patient="p19"), *x[2:]], [(2, "altered")]),
    "a wrong total": (lambda x: [x[0], resealed(x[1], bytes=1), *x[2:]], [(2, "altered")]),
    "half a line amid": (lambda x: [*x[:2], x[2][:50], *x[3:]], [(3, "altered")]),
    "not UTF-8": (lambda x: [*x[:2], b"\xff\xfe", *x[3:]], [(3, "altered")]),
    "no line feed amid": (lambda x: [*x[:2], x[2] + x[3], *x[4:]], [(3, "altered")]),
    "one removed": (lambda x: [*x[:2], *x[3:]], [(3, "removed")]),
    "three removed": (lambda x: [*x[:2], *x[5:]], [(3, "removed")]),
    "the first removed": (lambda x: x[1:], [(1, "removed")]),
    "two swapped": (
        lambda x: [*x[:2], x[3], x[2], *x[4:]],
        [(3, "reordered"), (4, "reordered"), (5, "reordered")],
    ),
    "the last put first": (lambda x: [x[5], *x[:5]], [(1, "reordered"), (2, "reordered")]),
    "one forged": (lambda x: [*x[:3], forged(x, 3), *x[3:]], [(5, "inserted")]),
    "one with a wrong hash put in": (
        lambda x: [*x[:3], loss_changed(forged(x, 3)), *x[3:]],
        [(4, "altered"), (5, "inserted")],
    ),
    "one twice": (lambda x: [*x[:3], *x[2:]], [(4, "inserted")]),
    "another manifest before it": (
        lambda x: [*chain([content(7), content(8)]), *x],
        [(3, "inserted")],
    ),
    "an empty line": (lambda x: [*x[:3], b"", *x[3:]], [(4, "altered"), (5, "inserted")]),
    "altered here, removed there": (
        lambda x: [loss_changed(x[0]), *x[1:3], *x[4:]],
        [(1, "altered"), (4, "removed")],
    ),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_verify_reports_tampering_by_line(lines, how):
    tamper, expected = TAMPERED[how]
    assert tamper(lines) != lines
    assert faults(as_file(tamper(lines))) == expected


def test_verify_detects_any_changed_byte():
    data = as_file(chain(content(round) for round in range(3)))
    for place in range(len(data) - 1):
        spoilt = bytearray(data)
        spoilt[place] ^= 1
        found = faults(bytes(spoilt))
        assert found, place
        assert found[0][1] == "altered", place
        assert found[0][0] == data[:place].count(b"\n") + 1, place


def test_verify_detects_removed_last_lines_only_with_head(lines):
    head = json.loads(lines[-1])["hash"]
    for kept in range(LINES):
        cut = as_file(lines[:kept])
        assert faults(cut) == []
        assert faults(cut, head) == [(kept, "head")]


def test_verify_detects_rewritten_manifest_only_with_head(lines):
    anew = as_file(chain(content(round) for round in range(LINES)))
    assert faults(anew) == []
    assert faults(anew, json.loads(lines[-1])["hash"]) == [(LINES, "head")]


def test_verify_names_line_of_earlier_head(lines):
    (fault,) = verified(as_file(lines), json.loads(lines[3])["hash"])[0].faults
    assert (fault.line, fault.kind) == (LINES, "head")
    assert "line 4" in fault.problem


def test_verify_reports_partial_last_line_as_unfinished(lines):
    whole = as_file(lines[:2])
    for length in range(1, len(lines[2])):
        verdict, rounds = verified(whole + lines[2][:length])
        assert [(fault.line, fault.kind) for fault in verdict.faults] == [(3, "unfinished")], length
        assert "not altered" in verdict.faults[0].problem
        assert rounds == [0, 1]
        assert verdict.head == json.loads(lines[1])["hash"]


def test_verify_reports_torn_last_line_as_unfinished():
    line = chain([content()])[0]
    for torn in (line[:50] + bytes(20), bytes(400), line[:50] + bytes(20) + line[70:] + b"\n"):
        assert faults(torn) == [(1, "unfinished")]


def test_verify_accepts_last_line_without_line_feed(lines):
    assert faults(as_file(lines).removesuffix(b"\n")) == []


def test_verify_reports_altered_last_line_without_line_feed(lines):
    data = as_file([*lines[:-1], loss_changed(lines[-1])]).removesuffix(b"\n")
    assert faults(data) == [(LINES, "altered")]


def test_is_unfinished_is_false_for_line_with_line_feed():
    assert not is_unfinished(b'{"bytes":1\n')
    assert is_unfinished(b'{"bytes":1')
    assert is_unfinished(b"[" * 200_000)


@pytest.mark.parametrize("block", [1, 2, 5, 2**20])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", (0, b"")),
        (b"one\n", (0, b"one\n")),
        (b"one", (0, b"one")),
        (b"one\ntwo\n", (4, b"two\n")),
        (b"one\ntwo", (4, b"two")),
        (b"one\n\n", (4, b"\n")),
    ],
)
def test_last_line_returns_offset_and_content(monkeypatch, data, expected, block):
    monkeypatch.setattr(egress_manifest, "BLOCK", block)
    assert last_line(io.BytesIO(data)) == expected


def test_last_line_reads_only_end_of_long_file():
    class Counting(io.BytesIO):
        count = 0

        def read(self, size=-1):
            self.count += size
            assert size >= 0
            return super().read(size)

    line = b"x" * 999 + b"\n"
    file = Counting(line * 10_000)
    assert last_line(file) == (9_999_000, line)
    assert file.count <= egress_manifest.BLOCK


def test_digest_is_sha256():
    assert digest(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_arrays_digest_depends_on_names_and_values_alone():
    one, two = np.arange(3, dtype=np.float32), np.ones((2, 2), np.float16)
    sent = Content.of("train", "lgg", 4, {"a": one, "b": two}, {"loss": 0.5})
    received = Content.of("train", "lgg", 5, {"b": two.copy(), "a": one.copy()}, {})
    assert sent.arrays_digest == received.arrays_digest
    for other in ({"a": one, "c": two}, {"a": one + 1, "b": two}, {"a": one}):
        assert Content.of("train", "lgg", 4, other, {}).arrays_digest != sent.arrays_digest
