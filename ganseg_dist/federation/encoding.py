"""How a site's weights travel to the server: whole, or as a coarse difference to what the server sent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ganseg_dist.config.federation import Encoding
from ganseg_dist.errors import FederationError, TrainingDiverged

Weights = npt.NDArray[np.float32]
Parts = Mapping[str, npt.NDArray[Any]]
"""A message's arrays by name, of whatever types its encoding makes."""
Shape = tuple[int, ...]
Layout = Mapping[str, tuple[type[np.generic], Shape]]
"""Type and shape of each array, by name."""

SAME, SCALE, INDICES, VALUES = "", "#scale", "#indices", "#values"
"""What follows a tensor's name in the names of a message's arrays; nothing where the array has the tensor's shape."""

LARGEST_HALF = float(np.finfo(np.float16).max)
LARGEST_LEVEL = 127


def encode(
    trained: Mapping[str, Weights],
    sent: Mapping[str, Weights],
    residual: Mapping[str, Weights],
    *,
    encoding: Encoding,
    kept_share: float,
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Weights]]:
    """The site's side: the message to the server, and what the site keeps for its next one.

    `fp32` sends the weights themselves, as a + (b - a) is not b in floating point: a federation of one site is then
    training at home, to the bit. The others send the difference to what the server sent, with error feedback: what
    an encoding lost is added to the next difference, so that it arrives late instead of never.

        wanted_t = trained_t - sent_t + residual_(t-1)
        residual_t = wanted_t - decoded_t

    Over rounds the decoded differences and the last residual sum to the site's differences (Seide et al., 1-bit
    stochastic gradient descent, Interspeech 2014; Karimireddy et al., Error feedback fixes SignSGD, ICML 2019,
    Algorithm 2, whose learning rate is inside the difference here).

    Args:
        trained: by name, after the site's epochs.
        sent: what the server sent: the same names and shapes, or more.
        residual: as this returned it a round before; what is missing counts as zeros. It ends with the stage, as
            what later stages train begins elsewhere.
        encoding: what is sent of each difference: `fp16`, halves; `int8`, 255 levels (`_Levels`); `topk`, the largest
            values (`_Largest`).
        kept_share: the share of a tensor's values that `topk` sends, in (0, 1].

    Returns:
        Arrays by name, those of `fp32` being `trained`'s own, and the residual of each tensor, of none for `fp32`.

    Raises TrainingDiverged where a difference is not finite: error feedback would keep it for ever. `fp32` keeps
    nothing and does not look.
    """
    if encoding == "fp32":
        return dict(trained), {}
    code = _code(encoding, kept_share)
    message: dict[str, npt.NDArray[Any]] = {}
    kept: dict[str, Weights] = {}
    for name, weights in trained.items():
        wanted = np.asarray(weights - sent[name] + residual.get(name, np.float32(0)), np.float32)
        if not np.isfinite(wanted).all():
            raise TrainingDiverged(f"{name}: is not finite after this round's training; lower the learning rates")
        parts = code.pack(wanted)
        message |= {name + part: array for part, array in parts.items()}
        kept[name] = np.asarray(wanted - code.unpack(parts, wanted.shape), np.float32)
    return message, kept


def decode(message: Parts, sent: Mapping[str, Weights], *, encoding: Encoding, kept_share: float) -> dict[str, Weights]:
    """The server's side: a site's weights by name, in the order of `sent`.

    Nothing in a message is believed. Names, types and shapes must be those that `sent` and the encoding lead to,
    so none makes the server allocate more than the tensors it expects. Whether the weights are finite and of a
    sensible size is a question to every encoding alike, for whoever averages them.

    Args:
        message: arrays by name, such as `encode` makes.
        sent: what the server sent, of the tensors that it expects back.
        encoding: the site's.
        kept_share: the site's.

    Raises FederationError for an array that is missing, not expected, or of another type or shape; for a scale that
    is negative or not finite; for indices out of range, doubled or out of order.
    """
    shapes = {name: np.shape(weights) for name, weights in sent.items()}
    if encoding == "fp32":
        _check(message, {name: (np.float32, shape) for name, shape in shapes.items()})
        return {name: message[name] for name in sent}
    code = _code(encoding, kept_share)
    layouts = {name: code.layout(shape) for name, shape in shapes.items()}
    _check(message, {name + part: form for name, layout in layouts.items() for part, form in layout.items()})
    weights: dict[str, Weights] = {}
    for name, layout in layouts.items():
        try:
            with np.errstate(over="ignore"):
                difference = code.unpack({part: message[name + part] for part in layout}, shapes[name])
                weights[name] = np.asarray(sent[name] + difference, np.float32)
        except ValueError as error:
            raise FederationError(f"{name}{error}; the message is damaged or forged, look at its site") from None
    return weights


def message_bytes(message: Parts) -> int:
    """Bytes of a message's values, without names and framing."""
    return sum(array.nbytes for array in message.values())


class _Code(Protocol):
    """What of a tensor is sent; every array is named by what follows the tensor's name."""

    def layout(self, shape: Shape) -> Layout:
        """The arrays of a tensor of this shape."""
        ...

    def pack(self, difference: Weights) -> dict[str, npt.NDArray[Any]]:
        """The arrays of a finite difference, laid out as `layout` has it."""
        ...

    def unpack(self, parts: Parts, shape: Shape) -> Weights:
        """The difference that was packed, as far as it survived; of arrays laid out as `layout` has it.

        Raises ValueError for a scale or indices that cannot be.
        """
        ...


def _code(encoding: Literal["fp16", "int8", "topk"], kept_share: float) -> _Code:
    match encoding:
        case "fp16":
            return _Halves()
        case "int8":
            return _Levels()
        case "topk":
            return _Largest(kept_share)


class _Halves:
    """float16, 2 bytes a value. What is beyond its range arrives as its largest number.

    A value is off by at most 2^-11 of itself or, where halves are subnormal, by 2^-25.
    """

    def layout(self, shape: Shape) -> Layout:
        return {SAME: (np.float16, shape)}

    def pack(self, difference: Weights) -> dict[str, npt.NDArray[Any]]:
        return {SAME: np.clip(difference, -LARGEST_HALF, LARGEST_HALF).astype(np.float16)}

    def unpack(self, parts: Parts, shape: Shape) -> Weights:
        return parts[SAME].astype(np.float32)


class _Levels:
    """One of 255 evenly spaced levels, 1 byte a value, and a scale for each tensor.

        scale = max |difference| / 127,    level = round(difference / scale)

    A value is off by at most half a scale, plus float rounding.
    """

    def layout(self, shape: Shape) -> Layout:
        return {SAME: (np.int8, shape), SCALE: (np.float32, ())}

    def pack(self, difference: Weights) -> dict[str, npt.NDArray[Any]]:
        scale = np.float32(np.abs(difference).max(initial=0) / LARGEST_LEVEL)
        if scale == 0:  # all zeros, or so small that 1/127 of it is no float
            levels = np.zeros(difference.shape, np.float32)
        else:  # a scale that lost digits below the normal floats would lead beyond the levels
            levels = np.clip(np.rint(difference / scale), -LARGEST_LEVEL, LARGEST_LEVEL)
        return {SAME: np.asarray(levels, np.int8), SCALE: np.asarray(scale)}

    def unpack(self, parts: Parts, shape: Shape) -> Weights:
        scale = parts[SCALE]
        if not np.isfinite(scale) or scale < 0:
            raise ValueError(f"{SCALE}: is {scale}, no finite number of 0 or more")
        return np.asarray(parts[SAME].astype(np.float32) * scale, np.float32)


@dataclass(frozen=True, slots=True)
class _Largest:
    """The values of largest magnitude and where they stand, 8 bytes each: above a share of 1/2 more than all of them.

    They are chosen in each tensor by itself, k = ceil(kept_share * n) of its n values. Chosen over all tensors at
    once they would be nearer to the difference as a whole, but the networks of a GAN differ in learning rate and so
    in the size of their differences: the slower one would hardly ever be sent, and the balance between the two that
    the site trained with would not be the one that the server averages. It also tells the server every array's length
    beforehand.
    """

    kept_share: float

    def layout(self, shape: Shape) -> Layout:
        kept = self._kept(math.prod(shape))
        return {INDICES: (np.uint32, (kept,)), VALUES: (np.float32, (kept,))}

    def pack(self, difference: Weights) -> dict[str, npt.NDArray[Any]]:
        flat = difference.ravel()
        indices = _largest_first_of_ties(np.abs(flat), self._kept(flat.size))
        return {INDICES: indices.astype(np.uint32), VALUES: flat[indices]}

    def unpack(self, parts: Parts, shape: Shape) -> Weights:
        indices, values = parts[INDICES].astype(np.int64), parts[VALUES]
        flat = np.zeros(math.prod(shape), np.float32)
        if indices.size and indices.max() >= flat.size:
            raise ValueError(f"{INDICES}: holds {indices.max()} where a tensor has {flat.size} values")
        if (np.diff(indices) <= 0).any():
            raise ValueError(f"{INDICES}: are doubled or out of order")
        flat[indices] = values
        return flat.reshape(shape)

    def _kept(self, size: int) -> int:
        return math.ceil(self.kept_share * size)


def _largest_first_of_ties(magnitudes: Weights, kept: int) -> npt.NDArray[np.int64]:
    """Where the `kept` largest stand, ascending; of equal ones the first, so that every machine chooses alike."""
    if kept == 0:
        return np.zeros(0, np.int64)
    least = np.partition(magnitudes, magnitudes.size - kept)[magnitudes.size - kept]
    above = np.flatnonzero(magnitudes > least)
    equal = np.flatnonzero(magnitudes == least)
    return np.sort(np.concatenate([above, equal[: kept - above.size]]))


def _check(message: Parts, expected: Layout) -> None:
    """Raises FederationError unless the message has just these arrays. Names of a stranger's choice are cut short."""
    remedy = "both ends must run the same version, recipe and federation.encoding"
    missing, strange = expected.keys() - message.keys(), message.keys() - expected.keys()
    if missing or strange:
        which = f"lacks {min(missing)}" if missing else f"holds {min(strange)[:80]!r}, which is not expected"
        raise FederationError(f"message: {which}; {remedy}")
    for name, (dtype, shape) in expected.items():
        array = message[name]
        if array.dtype != dtype or array.shape != shape:
            given = f"{str(array.dtype)[:20]} {array.shape}"
            raise FederationError(f"{name}: is {given} where {np.dtype(dtype)} {shape} is expected; {remedy}")
