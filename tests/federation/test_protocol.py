"""Validation of messages at both ends of a federation."""

import json
from typing import get_args

import numpy as np
import pytest

from ganseg_dist.errors import ConfigError, DataError, FederationError, PolicyError
from ganseg_dist.federation import protocol
from ganseg_dist.federation.egress_manifest import Kind
from ganseg_dist.federation.protocol import RoundInstruction, Scores, check_arrays, describe_error, kind_of

EXPECTED = {"head": (np.float32, (2, 2)), "body": (np.float32, (4,))}
ARRAYS = {name: np.zeros(shape, dtype) for name, (dtype, shape) in EXPECTED.items()}
INSTRUCTION = RoundInstruction("run", 1, 0, 0, 2, config="{}", received={"Brno, St. Anne's": (4, "0f" * 32)})


def problem(**changes):
    arrays = {name: array for name, array in (ARRAYS | changes).items() if array is not None}
    with pytest.raises(FederationError) as caught:
        check_arrays(arrays, EXPECTED, "version")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_check_arrays_accepts_expected_arrays():
    check_arrays(ARRAYS, EXPECTED, "version")


def test_check_arrays_names_missing_array():
    assert problem(head=None) == "message: lacks head; both ends must run the same version"


def test_check_arrays_counts_unknown_arrays_without_names():
    strange = {"patient Novak": np.zeros(2, np.float32)}
    assert problem(**strange).startswith("message: holds arrays that are not expected (1);")


def test_check_arrays_rejects_wrong_shape():
    assert problem(head=np.zeros(4, np.float32)).startswith("head: is float32 (4,) where float32 (2, 2) is expected;")


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, object])
def test_check_arrays_rejects_wrong_dtype(dtype):
    assert problem(body=np.ones(4, dtype)).startswith(f"body: is {np.dtype(dtype)} (4,) where float32 (4,)")


@pytest.mark.parametrize(
    "change",
    [{"run": "../elsewhere"}, {"run": 1}, {"round": -1}, {"stage": True}, {"first": 1.0}, {"until": None},
     {"best": "perhaps"}, {"config": {}}, {"more": 1}, {"received": {"a\nb": [1, "0f" * 32]}},
     {"received": {"a": [-1, "0f" * 32]}}, {"received": {"a": [1, "0f"]}}],
)  # fmt: skip
def test_round_instruction_rejects_changed_fields(change):
    assert RoundInstruction.from_json(INSTRUCTION.to_json()) == INSTRUCTION
    with pytest.raises(FederationError, match="instruction: is not one of this version"):
        RoundInstruction.from_json(json.dumps(json.loads(INSTRUCTION.to_json()) | change))


@pytest.mark.parametrize("text", ["", "[]", "1", "null", "{}", "{", "[" * 10**5])
def test_round_instruction_rejects_other_text(text):
    with pytest.raises(FederationError, match="instruction: is not one of this version"):
        RoundInstruction.from_json(text)


def test_scores_round_trip_with_examples():
    scores = Scores(3, {"loss": 0.5})
    assert Scores.from_numbers(scores.to_numbers()) == scores
    assert Scores.from_numbers({"loss": 0.5}).examples is None


def test_describe_error_hides_text_of_error():
    assert describe_error(DataError("/home/patients/Novak")) == (1001, "the site's data do not pass its checks")
    assert {describe_error(kind("no"))[0] for kind in (ConfigError, PolicyError)} == protocol.REJECTIONS
    assert describe_error(ZeroDivisionError()) == (1000, "the site failed; its log has the reason")
    assert all(code in protocol.SITE_ERROR_CODES for code, _ in protocol.SITE_ERRORS.values())


def test_kind_of_covers_manifest_kinds():
    types = (protocol.PREFLIGHT, protocol.FINGERPRINT, protocol.TRAIN, protocol.EVALUATE, protocol.FINISH)
    assert {*map(kind_of, types), "error"} == set(get_args(Kind))
