"""Messages round-trip between both ends; malformed ones raise an error."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from ganseg_dist.errors import FederationError
from ganseg_dist.federation.flower import arrays_of, pack_instruction, pack_reply, unpack_instruction, unpack_reply
from ganseg_dist.federation.message_layout import MessageLayout, Range
from ganseg_dist.federation.protocol import RoundInstruction

INSTRUCTION = RoundInstruction("run", 1, 0, 0, 2, config="{}")
WEIGHTS = {"segmenter/w": np.arange(6, dtype=np.float32).reshape(2, 3)}
NUMBERS = {"num-examples": 3, "loss": 0.5}
LAYOUT = MessageLayout(
    "version", {"segmenter/w": (np.float32, (2, 3))}, numbers={"num-examples": Range(0, 10), "loss": Range(0, 1)}
)
NO_ARRAYS = MessageLayout("version", numbers=LAYOUT.numbers)


def array(data: bytes, stype: str = "numpy.ndarray") -> ArrayRecord:
    return ArrayRecord({"segmenter/w": Array("float32", (2, 3), stype, data)})


def test_pack_instruction_round_trips():
    content = pack_instruction(INSTRUCTION, WEIGHTS)
    assert unpack_instruction(content) == INSTRUCTION
    np.testing.assert_array_equal(arrays_of(content)["segmenter/w"], WEIGHTS["segmenter/w"])


def test_pack_reply_round_trips():
    arrays, numbers = unpack_reply(pack_reply(WEIGHTS, NUMBERS), LAYOUT)
    assert numbers == NUMBERS
    np.testing.assert_array_equal(arrays["segmenter/w"], WEIGHTS["segmenter/w"])
    assert unpack_reply(pack_reply({}, NUMBERS), NO_ARRAYS) == ({}, NUMBERS)


def test_pack_reply_sends_fortran_order_as_c():
    turned = {"segmenter/w": np.asfortranarray(WEIGHTS["segmenter/w"])}
    np.testing.assert_array_equal(
        unpack_reply(pack_reply(turned, {}), LAYOUT)[0]["segmenter/w"], WEIGHTS["segmenter/w"]
    )


@pytest.mark.parametrize(
    "record", [ConfigRecord({}), ConfigRecord({"json": 1}), ConfigRecord({"json": ["{}"]}), MetricRecord({}),
               ConfigRecord({"json": INSTRUCTION.to_json(), "more": 1})],
)  # fmt: skip
def test_unpack_instruction_rejects_other_records(record):
    with pytest.raises(FederationError, match="cannot be read"):
        unpack_instruction(RecordDict({"instruction": record, "arrays": ArrayRecord()}))


@pytest.mark.parametrize("content", [RecordDict(), pack_reply({}, {}), pack_reply(WEIGHTS, {})])
def test_unpack_instruction_rejects_other_messages(content):
    for unpack in (unpack_instruction, arrays_of):
        with pytest.raises(FederationError, match="cannot be read"):
            unpack(content)


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        pack_reply({}, NUMBERS),
        RecordDict({"arrays": array(b"")}),
        RecordDict({"metrics": MetricRecord({}), "arrays": MetricRecord({})}),
        RecordDict({"metrics": MetricRecord({}), "arrays": array(b""), "more": MetricRecord({})}),
    ],
    ids=["empty", "no arrays", "no numbers", "another kind of record", "one more record"],
)
def test_unpack_reply_rejects_other_records(content):
    with pytest.raises(FederationError, match="cannot be read"):
        unpack_reply(content, LAYOUT)


def test_unpack_reply_rejects_arrays_where_none_are_expected():
    with pytest.raises(FederationError, match="cannot be read"):
        unpack_reply(pack_reply(WEIGHTS, NUMBERS), NO_ARRAYS)


@pytest.mark.parametrize("record", [array(b"\x80\x04N."), array(b""), array(b"", "another")])
def test_unpack_reply_rejects_arrays_of_other_bytes(record):
    with pytest.raises(FederationError, match=r"segmenter/w: is not float32 \(2, 3\)"):
        unpack_reply(RecordDict({"metrics": MetricRecord({}), "arrays": record}), LAYOUT)
    with pytest.raises(FederationError, match="holds arrays that are no weights"):
        arrays_of(RecordDict({"instruction": ConfigRecord({}), "arrays": record}))
