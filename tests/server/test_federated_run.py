"""The record that a federation's run leaves."""

from ganseg_dist.federation.record import SiteCounts
from server.federated_run import _recorded
from server.grids import InProcessGrid
from server.rounds import Ledger
from server.sites import Sites
from tests.server.registered import fingerprint, registry


def test_record_keeps_site_that_was_revoked_before_a_restart(tmp_path):
    registered = registry(tmp_path, {1: "north", 2: "south"})
    registered.revoke("south")
    counts = {name: SiteCounts(patients=3, key=fingerprint(name)) for name in ("south", "north")}
    restarted = Sites(InProcessGrid(lambda message, context: message, {}), 1.0, registry=registered)
    recorded = _recorded(Ledger(sites=counts), restarted)
    assert {name: (site.patients, site.revoked) for name, site in recorded.items()} == {
        "north": (3, False),
        "south": (3, True),
    }
