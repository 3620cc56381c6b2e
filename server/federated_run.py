"""A federation's run: compares the sites' fingerprints, trains all rounds and writes the run's records."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from flwr.app import RecordDict

from ganseg_dist.config import RunConfig
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.engine.tracker import Tracker, Trackers
from ganseg_dist.errors import FederationError
from ganseg_dist.federation.fingerprint import is_exchanged
from ganseg_dist.federation.fingerprint.differences import differences
from ganseg_dist.federation.fingerprint.histograms import Fingerprint, axes, fingerprint_layout
from ganseg_dist.federation.fingerprint.record import FILE, to_record
from ganseg_dist.federation.flower import unpack_reply
from ganseg_dist.federation.protocol import FINGERPRINT
from ganseg_dist.federation.record import FederationRecord, LeftOut, SiteCounts
from ganseg_dist.federation.shared_parameters import local_networks
from ganseg_dist.federation.versions import installed
from ganseg_dist.runs import Run
from ganseg_dist.tracking.mlflow_tracker import MLflowTracker
from ganseg_dist.tracking.results import log_sites
from ganseg_dist.tracking.tracked_run import TrackedRun
from server.inbox import read_replies
from server.rounds import Federation, Ledger
from server.sites import Sites


def train_federation(
    run: Run, config: RunConfig, sites: Sites, tracked: TrackedRun, *, tracker: Tracker, least_sites: int
) -> Path:
    """Train every remaining round by a resolved config; returns the last checkpoint's folder.

    Raises FederationError when too few sites take part or answer.
    """
    checkpoints = FolderCheckpoints(run.checkpoints)
    with closing(MLflowTracker.of(tracked)) as mlflow:
        federation = Federation(run.name, config, sites, checkpoints, Trackers(tracker, mlflow), least_sites)
        federation.restore()
        federation.enrol()
        _write_fingerprints(run, federation)
        ledger = federation.run()
    record = FederationRecord(
        rounds=tuple(ledger.rounds),
        quarantined=tuple(ledger.quarantined),
        sites=_recorded(ledger, sites),
        server=installed(),
    )
    run.write("federation.json", record)
    run.describe(absent=sorted(local_networks(federation.system, config)))
    log_sites(run)
    return checkpoints.last()


def _recorded(ledger: Ledger, sites: Sites) -> dict[str, SiteCounts]:
    """Every site that took part, also before a restart of the server, by name; revoked where its key is by now."""
    registered = () if sites.registry is None else sites.registry.sites()
    revoked = {site.key for site in registered if site.revoked is not None}
    counts = ledger.sites | sites.counts()
    return {name: counts[name].model_copy(update={"revoked": counts[name].key in revoked}) for name in sorted(counts)}


def _write_fingerprints(run: Run, federation: Federation) -> None:
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
    expected_axes = axes(federation.config.data)
    members = federation.sites.members
    federation.sites.write_line(f"asking {len(members)} sites for the fingerprints of their data")

    def read(node: int, content: RecordDict) -> Fingerprint:
        arrays, _ = unpack_reply(content, fingerprint_layout(expected_axes))
        fingerprint = Fingerprint.from_arrays(arrays, expected_axes)
        if fingerprint.patients > members[node].patients:
            raise FederationError("fingerprint: covers more patients than the site stated before; look at its data")
        return fingerprint

    fingerprints, reasons = read_replies(federation.sites.ask(FINGERPRINT, federation.instruction(), {}), read)
    for node, reason in sorted(reasons.items()):
        federation.warn(f"{members[node].name}: its data are not compared with the others: {reason}")
        federation.ledger.quarantined.append(LeftOut(members[node].name, 0, reason, "fingerprint"))
    return {members[node].name: fingerprints[node] for node in sorted(fingerprints)}
