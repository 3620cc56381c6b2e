"""A site's record when it joins: all that a server knows of it besides its updates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import combinations
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, StrictInt, TypeAdapter, ValidationError, with_config
from pydantic_core import from_json

from ganseg_dist import __version__
from ganseg_dist.data.labels import REGION_LABELS, UNSTATED, LabelScheme
from ganseg_dist.errors import FederationError
from ganseg_dist.federation.message_layout import MessageLayout, Range
from ganseg_dist.federation.protocol import LARGEST_COUNT
from ganseg_dist.federation.versions import (
    PROTOCOL,
    CodeDigest,
    Protocol,
    Version,
    Versions,
    check_protocol,
    code_digest,
)
from ganseg_dist.names import SiteName, Word

Origin = Literal["patients", "phantom", "synthetic"]
Words = Annotated[tuple[Word, ...], Field(max_length=64)]
Counted = Annotated[StrictInt, Field(ge=0, le=LARGEST_COUNT)]
LONGEST_DESCRIPTION = 2**16
"""Bytes of a description's JSON."""


@with_config(extra="forbid")
@dataclass(frozen=True, slots=True)
class SiteInfo:
    """A site that takes part: counts, and the names of its channels, labels and classes."""

    name: SiteName
    patients: Counted
    cases: Counted
    slices: Counted
    """Number of slices that it trains on; 0 while channels and classes are not agreed on."""
    modalities: Words
    regions: Words
    classes: Words
    labels: LabelScheme = UNSTATED
    """Meaning of its masks' values."""
    origin: Origin = "patients"
    """Kind of its images, so that artificial ones are never taken for patients."""
    protocol: Protocol = PROTOCOL
    """Of the site, like the two that follow."""
    version: Version = __version__
    code: CodeDigest = field(default_factory=code_digest)

    def __post_init__(self) -> None:
        """Raises ValueError for repeated words, more patients than cases, and regions that its labels do not form."""
        if any(len(set(words)) < len(words) for words in (self.modalities, self.regions, self.classes)):
            raise ValueError("a name is there twice")
        if self.patients > self.cases:
            raise ValueError("patients: are more than its cases")
        unknown = [region for region in self.regions if region not in self.labels.regions]
        if unknown:
            raise ValueError(f"regions: {unknown[0]} consists of no labels")
        trainable = [region for region in REGION_LABELS if region in self.regions]
        for count in range(1, len(trainable) + 1):  # whatever is agreed on, the server writes masks by the labels
            for agreed in combinations(trainable, count):
                self.labels.of_regions(agreed)

    @property
    def versions(self) -> Versions:
        """What the site runs."""
        return Versions(protocol=self.protocol, version=self.version, code=self.code)

    def counts(self) -> dict[str, int]:
        """The fields sent as numbers, which the site's manifest shows."""
        return {name: value for name, value in asdict(self).items() if isinstance(value, int)}

    def description(self) -> npt.NDArray[np.uint8]:
        """The other fields as JSON in an array, so that the site's manifest holds its digest."""
        others = {name: value for name, value in asdict(self).items() if not isinstance(value, int)}
        return np.frombuffer(json.dumps(others).encode(), np.uint8)

    @classmethod
    def read(cls, counts: Mapping[str, Any], description: npt.NDArray[Any]) -> SiteInfo:
        """From a message's numbers and array. Raises FederationError unless a site of this protocol could send it."""
        check_protocol(dict(counts), "the site")
        try:
            # from_json reads to a fixed depth and accepts no half of a surrogate pair, unlike json.loads.
            stated = from_json(description.tobytes(), allow_inf_nan=False)
            if counts.keys() & stated.keys():
                raise ValueError("a count is in the text")
            return _validator().validate_python({**stated, **counts})
        except (ValidationError, ValueError, TypeError, AttributeError):
            raise FederationError("its answer is not one of this version; both ends must run the same") from None


@cache
def _validator() -> TypeAdapter[SiteInfo]:
    return TypeAdapter(SiteInfo)


def preflight_layout() -> MessageLayout:
    """What a site replies when it joins."""
    count = Range(0, LARGEST_COUNT, whole=True, needed=True)
    numbers = dict.fromkeys(("patients", "cases", "slices"), count)
    protocol = Range(PROTOCOL, PROTOCOL, whole=True)
    texts = {"description": LONGEST_DESCRIPTION}
    return MessageLayout("version", texts=texts, numbers=numbers | {"protocol": protocol})
