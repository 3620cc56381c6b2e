"""A federation of real hospitals: the server has their weights and none of their data."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flwr.serverapp import Grid

from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Cohort, Split
from ganseg_dist.data.record import DataRecord
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.errors import FederationError
from ganseg_dist.federation.protocol import COMMAND, RoundInstruction
from ganseg_dist.federation.site_info import SiteInfo
from ganseg_dist.federation.strategy import config_at_sites, with_site_batch_size
from ganseg_dist.planning.run_folder import open_run, update_config
from ganseg_dist.runs import Run, training_run
from ganseg_dist.systems import outline_system
from ganseg_dist.systems.base import monitors_of
from ganseg_dist.training.run_training import only_trainer, run_training
from server.agreement import agree, agree_again, agreed_scheme, compatible, left_out_classes, unsuited
from server.federated_run import train_federation
from server.site_registry import Registry
from server.sites import Sites, ignore_line

ELSEWHERE = Cohort(Path("federation"), "federation", ())
"""In place of the cohort, which the server never sees."""
NO_PATIENTS = Split((), (), ())


@dataclass(frozen=True, slots=True)
class Deployment:
    """The request for a federation of real hospitals."""

    config: RunConfig
    run_name: str
    least_sites: int
    """Number of hospitals that must agree to take part before the first round."""


def deploy(
    request: Deployment,
    grid: Grid,
    registry: Registry,
    *,
    tracker: Tracker,
    write_line: Callable[[str], None] = ignore_line,
) -> Run:
    """Train until the federation's run is finished; a second call resumes an interrupted one.

    Fields that the config leaves to the data are agreed on among the hospitals that take part at the start.

    Raises FederationError when too few hospitals take part, or have anything in common.
    """
    started = time.monotonic()
    sites = Sites(grid, request.config.federation.deadline_seconds, write_line, registry=registry)
    existing = training_run(request.run_name)
    if (existing.folder / "config.json").exists():
        config, data = agree_again(request.config, existing.config()), existing.data()
    else:
        joined = _joined(request, sites, warn := partial(tracker.warn, 0))
        config = with_site_batch_size(agree(request.config, joined), len(joined))
        for name, text in left_out_classes(request.config, joined).items():
            warn(f"{name}: {text}")
        write_line(f"agreed on channels {_listed(config.data.modalities)}; regions {_listed(config.data.regions)}")
        data = _data_record(config, joined)
    sites.unsuited = partial(unsuited, config)
    run, _ = open_run(
        request.run_name, config, data, ELSEWHERE, split=NO_PATIENTS,
        command=COMMAND, workers=1, device="cpu", sites={},
    )  # fmt: skip
    with only_trainer(run):
        if run.finished:
            return run
        update_config(run, config)
        train = partial(train_federation, run, config, sites, tracker=tracker, least_sites=request.least_sites)
        monitors = monitors_of(outline_system(config))
        run_training(run, train, monitors=monitors, tags={}, started=started)
    return run


def _joined(request: Deployment, sites: Sites, warn: Callable[[str], None]) -> list[SiteInfo]:
    """The hospitals' records, of those that can train together. Members are then cleared: they enrol again and prepare
    data by the agreed config; the others get no further requests.

    Raises FederationError when fewer than required can train together.
    """
    sites_config = config_at_sites(request.config).to_json()
    instruction = RoundInstruction(request.run_name, 0, 0, 0, 0, config=sites_config)
    sites.enrol(lambda node: instruction, request.least_sites, warn)
    kept, reasons = compatible(request.config, sites.members.values())
    for name, reason in reasons.items():
        warn(f"{name}: takes no part: {reason}")
    if len(kept) < request.least_sites:
        listed = "".join(f"; {name}: {reason}" for name, reason in reasons.items())
        raise FederationError(
            f"federation: {len(kept)} of {request.least_sites} required sites can train together{listed}"
        )
    sites.leave_out(reasons)
    sites.begin_again()
    return kept


def _listed(names: tuple[str, ...] | None) -> str:
    return ", ".join(names or ()) or "none"


def _data_record(config: RunConfig, joined: list[SiteInfo]) -> DataRecord:
    """data.json of a run whose data stay at the hospitals."""
    origins = {site.origin for site in joined}
    scheme, differing = agreed_scheme(config, joined)
    return DataRecord(
        root=str(ELSEWHERE.root),
        layout=ELSEWHERE.layout,
        phantom="phantom" in origins,
        synthetic="synthetic" in origins,
        modalities=config.data.modalities or (),
        regions=config.data.regions or (),
        channels=(),
        labels=scheme,
        otherwise_labelled=differing,
        cases=(),
        excluded=(),
    )
