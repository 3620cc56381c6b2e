"""Compares the data of the sites before the first round, by their disclosed histograms."""

from __future__ import annotations

import json
from typing import Any

from ganseg_dist.errors import FederationError
from ganseg_dist.federation.fingerprint.differences import differences
from ganseg_dist.federation.fingerprint.histograms import Fingerprint, axes
from ganseg_dist.federation.flower import arrays_of
from ganseg_dist.federation.round_instruction import RoundInstruction
from server.rounds import Federation


def compare_data(federation: Federation) -> dict[str, Any]:
    """Every member's fingerprint and its differences from the others', for JSON; warns of each one that stands out.

    No site is excluded: whether one that differs may take part is for people to decide.
    """
    fingerprints: dict[str, Fingerprint] = {}
    expected_axes = axes(federation.config.data)
    instruction = RoundInstruction(federation.name, 0, 0, 0, 0, config=federation.sites_config)
    members = federation.sites.members
    federation.sites.write_line(f"asking {len(members)} sites how their data are spread (fingerprints)")
    for node, reply in sorted(federation.sites.ask("query.fingerprint", instruction, {}).items()):
        site = members[node].name
        try:
            if reply.has_error():
                raise FederationError(reply.error.reason or "the site failed")
            fingerprints[site] = Fingerprint.from_arrays(arrays_of(reply.content), expected_axes)
        except FederationError as error:
            federation.warn(f"{site}: its data are not compared with the others: {error}")
    compared = differences(fingerprints)
    for difference in compared:
        if difference.stands_out:
            federation.warn(difference.line())
    return {
        "sites": {site: json.loads(fingerprint.to_json()) for site, fingerprint in fingerprints.items()},
        "differences": [difference.to_dict() for difference in compared],
    }
