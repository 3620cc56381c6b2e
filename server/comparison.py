"""Before the first round: do the sites' data fit together?"""

from __future__ import annotations

import json
from typing import Any

from ganseg_dist.errors import FederationError
from ganseg_dist.federation.differences import differences
from ganseg_dist.federation.fingerprint import Fingerprint, axes
from ganseg_dist.federation.flower import arrays_of
from ganseg_dist.federation.round_instruction import RoundInstruction
from server.rounds import Federation


def compare_data(federation: Federation) -> dict[str, Any]:
    """What each member tells of its data, with a warning for each that lies far from most others; for JSON.

    Nothing is refused: whether a site that differs may teach is for people to decide.
    """
    told: dict[str, Fingerprint] = {}
    known = axes(federation.config.data)
    instruction = RoundInstruction(federation.name, 0, 0, 0, 0, config=federation.sites_config)
    members = federation.sites.members
    federation.sites.say(f"asking {len(members)} sites how their data are spread (fingerprints)")
    for node, reply in sorted(federation.sites.ask("query.fingerprint", instruction, {}).items()):
        site = members[node].name
        try:
            if reply.has_error():
                raise FederationError(reply.error.reason or "the site failed")
            told[site] = Fingerprint.from_arrays(arrays_of(reply.content), known)
        except FederationError as error:
            federation.warn(f"{site}: its data are not compared with the others: {error}")
    found = differences(told)
    for difference in found:
        if difference.stands_out:
            federation.warn(difference.line())
    return {
        "sites": {site: json.loads(fingerprint.to_json()) for site, fingerprint in told.items()},
        "differences": [difference.to_dict() for difference in found],
    }
