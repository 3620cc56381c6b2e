import numpy as np
import pytest

from ganseg_dist.config import FederationConfig
from ganseg_dist.errors import FederationError, TrainingDiverged
from ganseg_dist.federation.encoding import decode, encode

SHAPES = {"kernel": (4, 3, 3, 3), "bias": (4,), "gain": (), "empty": (0, 3)}
LOSSY = ("fp16", "int8", "topk")


def weights(seed: int, *, size: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: np.asarray(size * rng.normal(size=shape), np.float32) for name, shape in SHAPES.items()}


def plus(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.asarray(one[name] + other[name], np.float32) for name in one}


def tensor(*values: float) -> dict[str, np.ndarray]:
    return {"w": np.array(values, np.float32)}


def message_of(encoding: str, *values: float, kept_share: float = 0.5) -> dict[str, np.ndarray]:
    """The message for a change of one tensor `w` from zeros."""
    zeros = tensor(*np.zeros(len(values)))
    return encode(tensor(*values), zeros, {}, FederationConfig(encoding=encoding, kept_share=kept_share))[0]


def read(message: dict[str, np.ndarray], encoding: str, *, size: int, kept_share: float = 0.5) -> list[float]:
    """The tensor as decoded by the server."""
    return decode(message, tensor(*np.zeros(size)), FederationConfig(encoding=encoding, kept_share=kept_share))[
        "w"
    ].tolist()


def test_fp32_encoding_is_lossless():
    sent, trained = weights(0, size=1e3), weights(1, size=1e-3)
    assert any((sent[name] + (trained[name] - sent[name]) != trained[name]).any() for name in sent)
    message, residual = encode(trained, sent, {}, FederationConfig(encoding="fp32", kept_share=0.1))
    arrived = decode(message, sent, FederationConfig(encoding="fp32", kept_share=0.1))
    assert {name: array.tobytes() for name, array in arrived.items()} == {
        name: array.tobytes() for name, array in trained.items()
    }
    assert residual == {}


def test_fp16_encoding_rounds_and_saturates():
    """1/3 is rounded; 70000 saturates at 65504, and its rest stays in the residual."""
    sent = tensor(0, 0, 0)
    message, residual = encode(tensor(0.5, 1 / 3, 70000), sent, {}, FederationConfig(encoding="fp16", kept_share=1))
    assert message["w"].dtype == np.float16
    assert read(message, "fp16", size=3) == [0.5, 1365 / 4096, 65504]
    assert residual["w"] == pytest.approx([0, 1 / 3 - 1365 / 4096, 4496], rel=1e-3)


def test_int8_encoding_scales_largest_value_to_127():
    """The largest, 12.7, is level 127: a scale of 0.1."""
    message = message_of("int8", 12.7, -6.31, 0.04, 0)
    assert message["w"].tolist() == [127, -63, 0, 0]
    assert message["w"].dtype == np.int8
    assert message["w#scale"] == pytest.approx(0.1)
    assert message["w#scale"].dtype == np.float32
    assert read(message, "int8", size=4) == pytest.approx([12.7, -6.3, 0, 0], rel=1e-6)


def test_topk_encoding_keeps_largest_values():
    """ceil(0.4 * 6) = 3 values; of the two 2s the first."""
    message = message_of("topk", 1, -2, 0, 2, 5, -3, kept_share=0.4)
    assert {name: array.tolist() for name, array in message.items()} == {
        "w#indices": [1, 4, 5],
        "w#values": [-2, 5, -3],
    }
    assert read(message, "topk", size=6, kept_share=0.4) == [0, -2, 0, 0, 5, -3]


def test_topk_encoding_selects_per_tensor():
    trained = {"large": np.array([100, 90], np.float32), "small": np.array([1, 2], np.float32)}
    sent = {name: np.zeros(2, np.float32) for name in trained}
    message, residual = encode(trained, sent, {}, FederationConfig(encoding="topk", kept_share=0.5))
    arrived = decode(message, sent, FederationConfig(encoding="topk", kept_share=0.5))
    assert {name: array.tolist() for name, array in arrived.items()} == {"large": [100, 0], "small": [0, 2]}
    assert {name: array.tolist() for name, array in residual.items()} == {"large": [0, 90], "small": [1, 0]}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [1e-6, 1e-3, 1, 1e3])
def test_encoding_errors_are_bounded(seed, size):
    sent, step = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}, weights(seed, size=size)
    off = {}
    for encoding in LOSSY:
        message, residual = encode(step, sent, {}, FederationConfig(encoding=encoding, kept_share=0.25))
        arrived = decode(message, sent, FederationConfig(encoding=encoding, kept_share=0.25))
        assert list(arrived) == list(SHAPES)
        assert {name: array.shape for name, array in arrived.items()} == SHAPES
        assert {name: array.shape for name, array in residual.items()} == SHAPES
        off[encoding] = {name: np.abs(arrived[name] - step[name]) for name in step}
    for name, array in step.items():
        largest = np.abs(array).max(initial=0)
        assert (off["fp16"][name] <= np.maximum(2.0**-11 * np.abs(array), 2.0**-25)).all()
        assert (off["int8"][name] <= largest / 254 * (1 + 1e-5)).all()
        left_out = off["topk"][name] > 0
        assert left_out.sum() == array.size - np.ceil(array.size / 4)
        assert (off["topk"][name] == np.where(left_out, np.abs(array), 0)).all()
        assert np.abs(array[left_out]).max(initial=0) <= np.abs(array[~left_out]).min(initial=np.inf)


@pytest.mark.parametrize("encoding", LOSSY)
def test_encode_residual_carries_error_to_later_rounds(encoding):
    """The decoded differences and the last residual sum to the true ones; without the residual they would not."""
    sent = [weights(round_, size=0.1) for round_ in range(20)]
    steps = [weights(100 + round_, size=1e-5) for round_ in range(20)]
    residual: dict[str, np.ndarray] = {}
    truth = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    decoded = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    uncorrected = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for before, step in zip(sent, steps, strict=True):
        trained = plus(before, step)
        message, residual = encode(trained, before, residual, FederationConfig(encoding=encoding, kept_share=0.2))
        arrived = decode(message, before, FederationConfig(encoding=encoding, kept_share=0.2))
        once, _ = encode(trained, before, {}, FederationConfig(encoding=encoding, kept_share=0.2))
        without_residual = decode(once, before, FederationConfig(encoding=encoding, kept_share=0.2))
        for name in SHAPES:
            truth[name] += trained[name].astype(float) - before[name]
            decoded[name] += arrived[name].astype(float) - before[name]
            uncorrected[name] += without_residual[name].astype(float) - before[name]
    rounding = 20 * 2.0**-24
    for name in SHAPES:
        assert decoded[name] + residual[name] == pytest.approx(truth[name], abs=rounding)
    if encoding == "topk":
        assert np.abs(uncorrected["kernel"] - truth["kernel"]).max() > 10 * rounding


def test_topk_residual_accumulates_until_value_is_largest():
    """Every round changes the values by 3 and 1 and sends one value: 3, until the unsent 1s sum to 4."""
    zeros, residual, decoded = tensor(0, 0), {}, []
    for _ in range(4):
        message, residual = encode(tensor(3, 1), zeros, residual, FederationConfig(encoding="topk", kept_share=0.5))
        decoded.append(decode(message, zeros, FederationConfig(encoding="topk", kept_share=0.5))["w"].tolist())
    assert decoded == [[3, 0], [3, 0], [3, 0], [0, 4]]
    assert residual["w"].tolist() == [3, 0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("encoding", ["fp32", *LOSSY])
def test_decode_of_unchanged_weights_is_exact(encoding):
    sent = weights(0)
    message, _ = encode(sent, sent, {}, FederationConfig(encoding=encoding, kept_share=0.1))
    arrived = decode(message, sent, FederationConfig(encoding=encoding, kept_share=0.1))
    assert all(np.array_equal(arrived[name], sent[name]) for name in sent)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("largest", [1e-45, 1e-44, 2.6e-43, 1e-40, 1e-38])
def test_int8_encoding_of_subnormals_keeps_error_in_residual(largest):
    zeros = tensor(0, 0)
    message, residual = encode(tensor(largest, -largest), zeros, {}, FederationConfig(encoding="int8", kept_share=1))
    arrived = decode(message, zeros, FederationConfig(encoding="int8", kept_share=1))["w"]
    assert np.abs(residual["w"]).max() <= np.float32(largest)
    assert (arrived + residual["w"]).tolist() == tensor(largest, -largest)["w"].tolist()


def test_encode_omits_untrained_tensors_from_message_and_residual():
    """A tensor that the site did not train is in neither message nor residual."""
    message, residual = encode(
        tensor(1, 2),
        {**tensor(0, 0), "other": np.ones(3, np.float32)},
        {},
        FederationConfig(encoding="int8", kept_share=1),
    )
    assert set(message) == {"w", "w#scale"}
    assert set(residual) == {"w"}


@pytest.mark.parametrize("encoding", LOSSY)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_encode_raises_for_non_finite_weights(encoding, bad):
    with pytest.raises(TrainingDiverged, match="w: is not finite"):
        message_of(encoding, 1, bad)


def test_message_bytes_counts_each_encoding():
    """100 values: 4 bytes each; 2; 1 and a scale; ceil(0.1 * 100) of them with 8."""
    values = np.arange(100.0)
    counted = {
        name: sum(array.nbytes for array in message_of(name, *values, kept_share=0.1).values())
        for name in ("fp32", "fp16", "int8", "topk")
    }
    assert counted == {"fp32": 400, "fp16": 200, "int8": 104, "topk": 80}


def decode_error(message: dict[str, np.ndarray], encoding: str, *, size: int = 4) -> str:
    with pytest.raises(FederationError) as caught:
        read(message, encoding, size=size)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    return str(caught.value)


@pytest.mark.parametrize("encoding", ["fp32", *LOSSY])
def test_decode_rejects_unknown_missing_and_misshapen_arrays(encoding):
    message = message_of(encoding, 4, 3, 2, 1)
    read(message, encoding, size=4)
    first = min(message)
    assert decode_error({}, encoding).startswith(f"message: lacks {first}")
    for strange in ("w#more", "patient Novak", "a\nb" * 1000):
        problem = decode_error({**message, strange: np.zeros(1, np.float32)}, encoding)
        assert problem.startswith("message: holds arrays that are not expected (1)")
        assert strange not in problem
    for name, array in message.items():
        assert decode_error({**message, name: np.resize(array, array.size + 1)}, encoding).startswith(f"{name}: is ")
        assert decode_error({**message, name: array[None]}, encoding).startswith(f"{name}: is ")
        for dtype in (np.float64, np.int64, np.complex64, object, array.dtype.newbyteorder("S")):
            if np.dtype(dtype) != array.dtype:
                assert decode_error({**message, name: array.astype(dtype)}, encoding).startswith(f"{name}: is ")


def test_decode_rejects_other_encoding_and_kept_share():
    messages = {encoding: message_of(encoding, 4, 3, 2, 1) for encoding in ("fp32", *LOSSY)}
    for encoding in messages:
        for other, message in messages.items():
            if other != encoding:
                assert "federation.encoding" in decode_error(message, encoding)
    assert "(3,)" in decode_error(message_of("topk", 4, 3, 2, 1, kept_share=0.75), "topk")


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, -1.0])
def test_decode_rejects_invalid_scale(scale):
    message = message_of("int8", 4, 3, 2, 1)
    result = decode_error({**message, "w#scale": np.asarray(scale, np.float32)}, "int8")
    assert result.startswith("w#scale: is ")


@pytest.mark.parametrize(
    ("indices", "why"),
    [
        ([0, 4], "are beyond the 4 values"),
        ([0, 2**32 - 1], "are beyond the 4 values"),
        ([1, 1], "doubled"),
        ([2, 1], "out of order"),
    ],
)
def test_decode_rejects_invalid_indices(indices, why):
    message = message_of("topk", 4, 3, 2, 1)
    result = decode_error({**message, "w#indices": np.array(indices, np.uint32)}, "topk")
    assert result.startswith("w#indices: ")
    assert why in result


NOT_FINITE = "w: holds values that are not finite"


@pytest.mark.filterwarnings("error")
def test_decode_rejects_non_finite_values():
    """Of finite parts too: a level times a scale overflows."""
    message = message_of("int8", 4, 3, 2, 1)
    assert decode_error({**message, "w#scale": np.asarray(3e38, np.float32)}, "int8") == NOT_FINITE
    for encoding, name in (("fp32", "w"), ("fp16", "w"), ("topk", "w#values")):
        message = message_of(encoding, 4, 3, 2, 1)
        assert decode_error({**message, name: np.full_like(message[name], np.nan)}, encoding) == NOT_FINITE
