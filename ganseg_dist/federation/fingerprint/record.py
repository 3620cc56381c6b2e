"""Fingerprints on disk: a site's only release, and fingerprint.json in a federation's run.

Later requests get the same release. fingerprint.json has every site's fingerprint, and how their data differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ganseg_dist.atomic import write_json
from ganseg_dist.config import DataConfig
from ganseg_dist.digests import damage_as, read_sealed, sealed
from ganseg_dist.errors import FederationError, RunError
from ganseg_dist.federation.fingerprint.differences import Difference
from ganseg_dist.federation.fingerprint.histograms import Fingerprint, axes

FILE = "fingerprint.json"


def release(file: Path, data: DataConfig, measure: Callable[[], Fingerprint]) -> Fingerprint:
    """The stored fingerprint or, the first time, the measured one, stored before it is returned.

    It is returned again even if patients were added since: two releases would disclose their difference. There is a
    file for each data config, seed and least number of patients behind a number.

    Raises RunError where the stored one is damaged.
    """
    if file.exists():
        with damage_as(RunError, "restore what the site has disclosed, or delete it to measure it again"):
            return Fingerprint.from_dict(read_sealed(file), axes(data))
    measured = measure()
    write_json(file, sealed(measured.to_dict()))
    return measured


def to_record(sites: Mapping[str, Fingerprint], differences: list[Difference]) -> dict[str, Any]:
    """The file's content, for JSON."""
    return {
        "sites": {site: fingerprint.to_dict() for site, fingerprint in sites.items()},
        "differences": [asdict(difference) for difference in differences],
    }


def read_sites(record: Any, data: DataConfig) -> dict[str, Fingerprint]:
    """The sites' fingerprints in the file's content, by name. Raises FederationError where it is damaged."""
    try:
        sites, expected = record["sites"].items(), axes(data)
    except (AttributeError, KeyError, TypeError):
        raise FederationError("sites: are missing") from None
    return {site: Fingerprint.from_dict(fingerprint, expected) for site, fingerprint in sites}
