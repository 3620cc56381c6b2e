"""Collects and compares the sites' fingerprints before the first round."""

from __future__ import annotations

from ganseg_dist.errors import FederationError
from ganseg_dist.federation.fingerprint import is_exchanged
from ganseg_dist.federation.fingerprint.differences import differences
from ganseg_dist.federation.fingerprint.histograms import Fingerprint, axes
from ganseg_dist.federation.fingerprint.record import FILE, to_record
from ganseg_dist.federation.flower import arrays_of
from ganseg_dist.federation.protocol import FINGERPRINT, RoundInstruction
from ganseg_dist.runs import Run
from server.rounds import Federation


def write_fingerprints(run: Run, federation: Federation) -> None:
    """Write every member's fingerprint and how they differ to the run, once; warns of each one that stands out.

    No site is excluded: whether one that differs may take part is for people to decide.
    """
    if not is_exchanged(federation.config) or (run.folder / FILE).exists():
        return
    fingerprints = _collect(federation)
    compared = differences(fingerprints)
    for difference in compared:
        if difference.stands_out:
            federation.warn(difference.line())
    run.write(FILE, to_record(fingerprints, compared))


def _collect(federation: Federation) -> dict[str, Fingerprint]:
    """Fingerprints by site; warns of each site that sends none."""
    fingerprints: dict[str, Fingerprint] = {}
    expected_axes = axes(federation.config.data)
    instruction = RoundInstruction(federation.name, 0, 0, 0, 0, config=federation.sites_config)
    members = federation.sites.members
    federation.sites.write_line(f"asking {len(members)} sites for the fingerprints of their data")
    for node, reply in sorted(federation.sites.ask(FINGERPRINT, instruction, {}).items()):
        site = members[node].name
        try:
            if reply.has_error():
                raise FederationError(reply.error.reason or "the site failed")
            fingerprints[site] = Fingerprint.from_arrays(arrays_of(reply.content), expected_axes)
        except FederationError as error:
            federation.warn(f"{site}: its data are not compared with the others: {error}")
    return fingerprints
