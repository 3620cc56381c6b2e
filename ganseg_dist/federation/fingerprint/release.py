"""A site's only release of its fingerprint; later requests get the same one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ganseg_dist.atomic import write_json
from ganseg_dist.config import DataConfig
from ganseg_dist.digests import Damaged, read_sealed, sealed
from ganseg_dist.errors import RunError
from ganseg_dist.federation.fingerprint.histograms import Fingerprint, axes


def release(file: Path, data: DataConfig, measure: Callable[[], Fingerprint]) -> Fingerprint:
    """The stored fingerprint or, the first time, the measured one, stored before it is returned.

    It is returned again even if patients were added since: two releases would disclose their difference.

    Args:
        file: one for each data config, seed and least number of patients behind a number.
        data: of the agreed config, resolved.

    Raises RunError where the stored one is damaged.
    """
    if file.exists():
        try:
            return Fingerprint.from_dict(read_sealed(file), axes(data))
        except Damaged as damage:
            raise RunError(f"{damage}; restore what the site has disclosed, or delete it to measure it again") from None
    measured = measure()
    write_json(file, sealed(measured.to_dict()))
    return measured
