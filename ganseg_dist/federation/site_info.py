"""A site's record when it joins: all that a server knows of it besides its updates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, TypeAdapter, ValidationError, with_config

from ganseg_dist import __version__
from ganseg_dist.data.labels import UNSTATED, LabelScheme
from ganseg_dist.errors import FederationError
from ganseg_dist.federation.protocol import Number
from ganseg_dist.federation.versions import (
    PROTOCOL,
    CodeDigest,
    Protocol,
    Version,
    Versions,
    check_protocol,
    code_digest,
)
from ganseg_dist.files import parse_json
from ganseg_dist.names import SiteName, Word

Origin = Literal["patients", "phantom", "synthetic"]
Words = Annotated[tuple[Word, ...], Field(max_length=64)]


@with_config(extra="forbid")
@dataclass(frozen=True, slots=True)
class SiteInfo:
    """A site that takes part: counts, and the names of its channels, labels and classes."""

    name: SiteName
    patients: Number
    cases: Number
    slices: Number
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
        """Raises ValueError for a region that consists of none of its labels."""
        unknown = [region for region in self.regions if region not in self.labels.regions]
        if unknown:
            raise ValueError(f"regions: {unknown[0]} consists of no labels")

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
            return TypeAdapter(cls).validate_python({**parse_json(description.tobytes()), **counts})
        except (ValidationError, ValueError, TypeError):
            raise FederationError("its answer is not one of this version; both ends must run the same") from None
