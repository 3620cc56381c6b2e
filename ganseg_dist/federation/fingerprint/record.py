"""fingerprint.json in a federation's run: every site's fingerprint, and how the sites' data differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ganseg_dist.config import DataConfig
from ganseg_dist.errors import FederationError
from ganseg_dist.federation.fingerprint.differences import Difference
from ganseg_dist.federation.fingerprint.histograms import Fingerprint, axes

FILE = "fingerprint.json"


def to_record(sites: Mapping[str, Fingerprint], differences: list[Difference]) -> dict[str, Any]:
    """The file's content, for JSON."""
    return {
        "sites": {site: fingerprint.to_dict() for site, fingerprint in sites.items()},
        "differences": [difference.to_dict() for difference in differences],
    }


def read_sites(record: Any, data: DataConfig) -> dict[str, Fingerprint]:
    """The sites' fingerprints in the file's content, by name. Raises FederationError where it is damaged."""
    try:
        sites, expected = record["sites"].items(), axes(data)
    except (AttributeError, KeyError, TypeError):
        raise FederationError("sites: are missing") from None
    return {site: Fingerprint.from_dict(fingerprint, expected) for site, fingerprint in sites}
