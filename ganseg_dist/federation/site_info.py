"""What a site says of itself when it joins: all that a server knows of it besides its updates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, StrictInt, TypeAdapter, ValidationError, with_config

from ganseg_dist.data.labels import UNSTATED, LabelScheme
from ganseg_dist.errors import DataError, FederationError
from ganseg_dist.files import parse_json

SiteName = Annotated[str, Field(pattern=r"^[^\p{C}\p{Z}](?:[^\p{C}\p{Zl}\p{Zp}]{0,58}[^\p{C}\p{Z}])?$")]
"""As people call a hospital: up to 60 characters that can be printed. Nothing is ever called by it on a disk."""

Stated = Annotated[StrictInt, Field(ge=0)]
Word = Annotated[str, Field(pattern=r"^[\w .+-]{1,40}$")]
Origin = Literal["patients", "phantom", "synthetic"]
Words = Annotated[tuple[Word, ...], Field(max_length=64)]


@with_config(extra="forbid")
@dataclass(frozen=True, slots=True)
class SiteInfo:
    """A site's yes: counts, and the names of its channels, labels and classes."""

    name: SiteName
    patients: Stated
    cases: Stated
    slices: Stated
    """That it trains on; 0 while channels and classes are not agreed."""
    modalities: Words
    regions: Words
    classes: Words
    labels: LabelScheme = UNSTATED
    """What its masks' values mean."""
    origin: Origin = "patients"
    """What its images are of: nothing that is made up may pass for patients."""

    def __post_init__(self) -> None:
        """Raises ValueError for a region that its labels do not make up."""
        unknown = [region for region in self.regions if region not in self.labels.regions]
        if unknown:
            raise ValueError(f"regions: {unknown[0]} is made up of no labels")

    def counts(self) -> dict[str, int]:
        """What goes as numbers, which the site's manifest shows."""
        return {name: value for name, value in asdict(self).items() if isinstance(value, int)}

    def words(self) -> npt.NDArray[np.uint8]:
        """The rest, as JSON in an array, so that the site's manifest holds its digest."""
        rest = {name: value for name, value in asdict(self).items() if not isinstance(value, int)}
        return np.frombuffer(json.dumps(rest).encode(), np.uint8)

    @classmethod
    def read(cls, counts: Mapping[str, Any], words: npt.NDArray[Any]) -> SiteInfo:
        """What a message holds. Raises FederationError unless it is as a site of this version says it."""
        try:
            return TypeAdapter(cls).validate_python({**parse_json(words.tobytes()), **counts})
        except (ValidationError, ValueError, TypeError):
            raise FederationError("its answer is not one of this version; both ends must run the same") from None


def validate_site_name(name: str, source: object) -> None:
    """Raises DataError for a name that cannot be a site's, naming where it stands."""
    try:
        TypeAdapter(SiteName).validate_python(name)
    except ValidationError:
        raise DataError(
            f"{source}: site {name!r}: is no name that can be shown; take 1 to 60 characters without line breaks, "
            "control characters or blanks at its ends"
        ) from None
