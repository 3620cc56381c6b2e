"""Messages round-trip between both ends; malformed ones raise an error."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

from ganseg_dist.errors import FederationError
from ganseg_dist.federation.flower import arrays_of, numbers_of, pack_instruction, pack_reply, unpack_instruction
from ganseg_dist.federation.protocol import RoundInstruction

INSTRUCTION = RoundInstruction("run", 1, 0, 0, 2, config="{}")
WEIGHTS = {"segmenter/w": np.arange(6, dtype=np.float32).reshape(2, 3)}


def test_pack_instruction_round_trips():
    content = pack_instruction(INSTRUCTION, WEIGHTS)
    assert unpack_instruction(content) == INSTRUCTION
    np.testing.assert_array_equal(arrays_of(content)["segmenter/w"], WEIGHTS["segmenter/w"])


def test_pack_reply_round_trips():
    content = pack_reply(WEIGHTS, {"num-examples": 3, "loss": 0.5})
    assert numbers_of(content) == {"num-examples": 3, "loss": 0.5}
    np.testing.assert_array_equal(arrays_of(content)["segmenter/w"], WEIGHTS["segmenter/w"])


@pytest.mark.parametrize(
    ("read", "content"),
    [
        (unpack_instruction, RecordDict()),
        (arrays_of, RecordDict()),
        (numbers_of, RecordDict()),
        (numbers_of, RecordDict({"metrics": MetricRecord({"num-examples": [1, 2]})})),
        (arrays_of, RecordDict({"arrays": ArrayRecord({"w": Array("float32", (1,), "numpy.ndarray", b"\x80\x04N.")})})),
        (arrays_of, RecordDict({"arrays": ArrayRecord({"w": Array("float32", (1,), "numpy.ndarray", b"")})})),
        (arrays_of, RecordDict({"arrays": ArrayRecord({"w": Array("float32", (1,), "another", b"")})})),
    ],
    ids=["no order", "no arrays", "no numbers", "lists", "a pickle", "no bytes", "another kind"],
)
def test_unpacking_rejects_malformed_content(read, content):
    with pytest.raises(FederationError, match="cannot be read"):
        read(content)
