"""Encodes a site's weights for the server: whole, or as a coarse difference from the weights that the server sent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ganseg_dist.config.federation import FederationConfig
from ganseg_dist.errors import FederationError, TrainingDiverged
from ganseg_dist.federation.protocol import Layout, check_arrays

Weights = npt.NDArray[np.float32]
Parts = Mapping[str, npt.NDArray[Any]]
"""A message's arrays by name; their types depend on the encoding."""
Shape = tuple[int, ...]

SAME, SCALE, INDICES, VALUES = "", "#scale", "#indices", "#values"
"""Suffixes of a tensor's name in the names of a message's arrays; SAME is the array with the tensor's shape."""

LARGEST_HALF = float(np.finfo(np.float16).max)
LARGEST_LEVEL = 127
AGREED = "version, recipe and federation.encoding"
"""Must be equal at both ends."""


def encode(
    trained: Mapping[str, Weights],
    sent: Mapping[str, Weights],
    residual: Mapping[str, Weights],
    federation: FederationConfig,
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Weights]]:
    """The site's side: the message to the server, and the residual that the site keeps for its next one.

    `fp32` sends the weights themselves, as a + (b - a) is not b in floating point: a federation of one site then equals
    local training to the bit. The others send the difference from the server's weights, with error feedback: what
    an encoding lost is added to the next difference, so that it arrives later.

        wanted_t = trained_t - sent_t + residual_(t-1)
        residual_t = wanted_t - decoded_t

    Over rounds the decoded differences and the last residual sum to the site's differences (Seide et al., 1-bit
    stochastic gradient descent, Interspeech 2014; Karimireddy et al., Error feedback fixes SignSGD, ICML 2019,
    Algorithm 2, whose learning rate is inside the difference here).

    Args:
        trained: by name, after the site's epochs.
        sent: the server's weights, with the same names and shapes, or more.
        residual: as returned in the round before; missing names count as zeros. It ends with the stage, as later
            stages train other weights.
        federation: its encoding of each difference: `fp16`, half precision; `int8`, 255 levels (`_Levels`); `topk`,
            the largest values (`_Largest`).

    Returns:
        Arrays by name (for `fp32` those of `trained`), and the residual of each tensor (empty for `fp32`).

    Raises TrainingDiverged where a difference is not finite: error feedback would keep it for ever. `fp32`, which
    keeps no residual, does not check.
    """
    if federation.encoding == "fp32":
        return dict(trained), {}
    code = _code(federation.encoding, federation.kept_share)
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


def decode(message: Parts, sent: Mapping[str, Weights], federation: FederationConfig) -> dict[str, Weights]:
    """The server's side: a site's weights by name, in the order of `sent`, the weights that it expects back.

    A message is not trusted: it has the layout that follows from `sent` and the encoding (`update_layout`), so that it
    makes the server allocate no more than the tensors that it expects. Whether the weights are of a plausible size is
    for the caller to check, for every encoding alike.

    Raises FederationError for an array that is missing, not expected, or of another type or shape; for a scale that
    is negative or not finite; for indices out of range, doubled or out of order; for weights that are not finite.
    """
    shapes = {name: np.shape(weights) for name, weights in sent.items()}
    check_arrays(message, update_layout(shapes, federation), AGREED)
    if federation.encoding == "fp32":
        weights = {name: message[name] for name in sent}
    else:
        weights = _moved(message, sent, federation)
    for name in sent:
        if not np.isfinite(weights[name]).all():
            raise FederationError(f"{name}: holds values that are not finite")
    return weights


def update_layout(shapes: Mapping[str, Shape], federation: FederationConfig) -> Layout:
    """Types and shapes of the arrays in which tensors of these shapes travel to the server."""
    if federation.encoding == "fp32":
        return {name: (np.float32, shape) for name, shape in shapes.items()}
    code = _code(federation.encoding, federation.kept_share)
    return {name + part: form for name, shape in shapes.items() for part, form in code.layout(shape).items()}


def _moved(message: Parts, sent: Mapping[str, Weights], federation: FederationConfig) -> dict[str, Weights]:
    """The weights that were sent plus the differences in a message of the right layout."""
    assert federation.encoding != "fp32"
    code = _code(federation.encoding, federation.kept_share)
    weights: dict[str, Weights] = {}
    for name, start in sent.items():
        parts = {part: message[name + part] for part in code.layout(np.shape(start))}
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                weights[name] = np.asarray(start + code.unpack(parts, np.shape(start)), np.float32)
        except ValueError as error:
            raise FederationError(f"{name}{error}; the message is damaged or forged, look at its site") from None
    return weights


def _code(encoding: Literal["fp16", "int8", "topk"], kept_share: float) -> _Halves | _Levels | _Largest:
    """An encoding of one tensor, in arrays named by their suffixes of its name.

    `layout` has the arrays of a tensor of this shape, `pack` makes them of a finite difference, and `unpack` decodes
    them. It raises ValueError for an invalid scale or invalid indices.
    """
    match encoding:
        case "fp16":
            return _Halves()
        case "int8":
            return _Levels()
        case "topk":
            return _Largest(kept_share)


class _Halves:
    """float16, 2 bytes a value. Values beyond its range are clipped to it.

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
        if scale == 0:  # all zeros, or 1/127 of the maximum underflows
            levels = np.zeros(difference.shape, np.float32)
        else:  # a subnormal scale has lost digits, and would give levels beyond 127
            levels = np.clip(np.rint(difference / scale), -LARGEST_LEVEL, LARGEST_LEVEL)
        return {SAME: np.asarray(levels, np.int8), SCALE: np.asarray(scale)}

    def unpack(self, parts: Parts, shape: Shape) -> Weights:
        scale = parts[SCALE]
        if not np.isfinite(scale) or scale < 0:
            raise ValueError(f"{SCALE}: is no finite number of 0 or more")
        return np.asarray(parts[SAME].astype(np.float32) * scale, np.float32)


@dataclass(frozen=True, slots=True)
class _Largest:
    """The values of largest magnitude with their indices, 8 bytes each: more than fp32 for a share above 1/2.

    They are chosen in each tensor separately, k = ceil(kept_share * n) of its n values. A choice over all tensors at
    once would approximate the whole difference better, but the networks of a GAN differ in learning rate and so in
    the size of their differences: the slower one would hardly ever be sent, and the server would not average the
    balance between the two that the site trained with. This way the server also knows every array's length.
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
            raise ValueError(f"{INDICES}: are beyond the {flat.size} values of the tensor")
        if (np.diff(indices) <= 0).any():
            raise ValueError(f"{INDICES}: are doubled or out of order")
        flat[indices] = values
        return flat.reshape(shape)

    def _kept(self, size: int) -> int:
        return math.ceil(self.kept_share * size)


def _largest_first_of_ties(magnitudes: Weights, kept: int) -> npt.NDArray[np.int64]:
    """Ascending indices of the `kept` largest; of equal values the first, so that all machines choose the same."""
    if kept == 0:
        return np.zeros(0, np.int64)
    least = np.partition(magnitudes, magnitudes.size - kept)[magnitudes.size - kept]
    above = np.flatnonzero(magnitudes > least)
    equal = np.flatnonzero(magnitudes == least)
    return np.sort(np.concatenate([above, equal[: kept - above.size]]))
