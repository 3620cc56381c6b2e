"""The federation's rounds: the engine's state on the server, with the sites' training in place of its own steps.

The server holds the same `State` as a run on one machine. A round replaces the shared weights by what is made of the
sites' weights; then the engine's own rules record the epochs, remember the best and end the stage, and its own
checkpoint is written, with the federation's beside it. So a killed server goes on like a killed run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import Message
from safetensors.numpy import load_file, save_file

from ganseg_dist.config import RunConfig, override
from ganseg_dist.engine.checkpoint import FolderCheckpoints, load_checkpoint, save_checkpoint
from ganseg_dist.engine.fit import end_stage, finish_epoch, prepare_state, seeded
from ganseg_dist.engine.state import State
from ganseg_dist.engine.tracker import Progress, Tracker
from ganseg_dist.engine.world import World
from ganseg_dist.errors import FederationError
from ganseg_dist.federation.encoding import decode
from ganseg_dist.federation.exchange import Arrays, Exchange, staying
from ganseg_dist.federation.order import Order
from ganseg_dist.federation.schedule import Round, schedule
from ganseg_dist.systems import build_system
from ganseg_dist.systems.base import Stage, System
from server.firewall import AcceptedNorms, Firewall, Quarantined, Update
from server.sites import Sites
from server.strategies import Aggregator, refuse_unfit
from server.weighting import site_weights

TRIES = 3
"""Times a round is asked for again that too few sites answered."""


@dataclass(slots=True)
class Ledger:
    """What the server remembers besides the engine's state; all of it is JSON."""

    rounds: list[dict[str, Any]] = field(default_factory=list)
    """One record a round: stage, epochs, and by site its examples, weight, losses and scores."""
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    accepted_norms: dict[str, dict[str, float]] = field(default_factory=dict)
    """What the firewall compares with, of this stage."""
    rounds_of_stage: int = 0
    was_best: bool = False
    """Whether the last round's weights are the best of its stage so far."""


@dataclass(slots=True)
class Federation:
    """A run that several sites train together."""

    name: str
    config: RunConfig
    sites: Sites
    checkpoints: FolderCheckpoints
    tracker: Tracker
    least_sites: int = 1
    """Sites that must have said yes before the first round."""

    def run(self) -> Ledger:
        """Every round of every stage, from the newest checkpoint or from the start.

        Raises FederationError when too few sites take part.
        """
        seeded(self.config)
        system = build_system(self.config)
        state = prepare_state(system, self.config, World())
        ledger, aggregator = Ledger(), Aggregator(self.config.federation)
        newest = self.checkpoints.latest()
        if newest is not None:
            load_checkpoint(newest, state)
            ledger = _load(newest, aggregator)
        self._enrol(self.least_sites)
        refuse_unfit(self.config, len(self.sites.members))
        planned = {(part.stage, part.first): part for part in schedule(system.stages, self.config.federation.rounds)}
        while state.position.stage < len(system.stages):
            part = planned[state.position.stage, state.position.epoch]
            self._round(part, system, state, ledger, aggregator)
            stage = system.stages[part.stage]
            if state.position.epoch >= stage.epochs or state.position.stopped:
                end_stage(state, stage, self.config)
                aggregator.begin()
                ledger.accepted_norms = {}
            self.checkpoints.save({}, partial(_save, state=state, ledger=ledger, aggregator=aggregator))
        self._finish(system, state, ledger)
        return ledger

    def stays_home(self) -> list[str]:
        """Networks that the server never sees."""
        return sorted(staying(build_system(self.config), self.config))

    def _finish(self, system: System, state: State, ledger: Ledger) -> None:
        """Every site gets the last weights, for a model of its own."""
        stages = len(system.stages)
        order = Order(self.name, len(ledger.rounds), stages, 0, 0, ledger.was_best, self._site_config())
        arrays = Exchange.of(state, system, self.config, stages - 1).take(state)
        for node, reply in self.sites.ask("train.finish", order, arrays).items():
            if reply.has_error():
                site = self.sites.members[node].name
                self.tracker.warn(state.position.step, f"{site}: has no model of its own: {reply.error.reason}")

    def _round(self, part: Round, system: System, state: State, ledger: Ledger, aggregator: Aggregator) -> None:
        stage = system.stages[part.stage]
        exchange = Exchange.of(state, system, self.config, part.stage)
        trained = exchange.trained(system, part.stage)
        sent = exchange.take(state)
        if not trained.shapes:
            raise FederationError(
                f"federation.local: stage {stage.name} trains no shared network; share one of "
                f"{', '.join(stage.networks)}"
            )
        begun = {name: sent[name] for name in trained.shapes}
        updates = self._updates(part, begun, sent, stage, state, ledger)
        weights = site_weights(
            {update.site: update.examples for update in updates}, self.config.federation.largest_share
        )
        merged = aggregator.merge(begun, {update.site: update.arrays for update in updates}, weights)
        trained.check(merged)
        trained.put(merged, state)
        losses = _weighted({update.site: update.metrics for update in updates}, weights)
        site_scores, scores = self._scores(part, exchange.take(state))
        position = state.position
        position.step += part.until - part.first
        position.epoch = part.until - 1
        finish_epoch(state, stage, {name.partition("/")[2]: value for name, value in losses.items()}, scores)
        ledger.was_best = position.best_epoch == part.until - 1
        ledger.rounds.append(
            {
                "round": part.number,
                "stage": stage.name,
                "first": part.first,
                "until": part.until,
                "scores": scores,
                "sites": {
                    update.site: {
                        "examples": update.examples,
                        "weight": weights[update.site],
                        "losses": dict(update.metrics),
                        "scores": site_scores.get(update.site, {}),
                    }
                    for update in updates
                },
                "bytes_out": self.sites.bytes_out,
                "bytes_in": self.sites.bytes_in,
            }
        )
        self.sites.bytes_out = self.sites.bytes_in = 0
        self.tracker.epoch(position.step, {f"{stage.name}/{name}": value for name, value in scores.items()} | losses)

    def _updates(
        self, part: Round, begun: Arrays, sent: Arrays, stage: Stage, state: State, ledger: Ledger
    ) -> list[Update]:
        """What the firewall lets through of the sites' weights; asked for again while it is too little."""
        federation = self.config.federation
        order = self._order(part, ledger)
        needed = max(1, math.ceil(federation.quorum * len(self.sites.members)))
        for _ in range(TRIES):
            self._enrol(0)
            replies = self.sites.ask("train", order, sent, heard=partial(self._heard, stage, part, state))
            updates, quarantined = self._read(replies, begun, part)
            kept, left_out = self._inspect(updates, begun, part, ledger)
            quarantined += left_out
            for record in quarantined:
                self.tracker.warn(state.position.step, f"round {part.number}: {record.site}: {record.reason}; left out")
            ledger.quarantined += [record.to_dict() for record in quarantined]
            if len(kept) >= needed:
                return sorted(kept, key=lambda update: update.site)  # sums differ in the last bit between orders
        raise FederationError(
            f"round {part.number}: {len(kept)} sites answered of the {needed} that federation.quorum="
            f"{federation.quorum:g} needs, {TRIES} times; see why above, then start the same command again"
        )

    def _read(
        self, replies: Mapping[int, Message], begun: Arrays, part: Round
    ) -> tuple[list[Update], list[Quarantined]]:
        """The sites' weights out of their messages, and whose could not be read."""
        federation = self.config.federation
        updates, unread = [], []
        for node, reply in replies.items():
            site = self.sites.members[node].name
            if reply.has_error():
                unread.append(Quarantined(site, part.number, reply.error.reason or "the site failed"))
                continue
            try:
                message = {name: array.numpy() for name, array in reply.content.array_records["arrays"].items()}
                said = {name: float(value) for name, value in reply.content.metric_records["metrics"].items()}  # type: ignore[arg-type]
                arrays = decode(message, begun, encoding=federation.encoding, kept_share=federation.kept_share)
                updates.append(Update(site, arrays, said.pop("num-examples"), said))
            except (FederationError, KeyError, TypeError, ValueError) as error:
                reason = str(error) if isinstance(error, FederationError) else "the message cannot be read"
                unread.append(Quarantined(site, part.number, reason))
        return updates, unread

    def _inspect(
        self, updates: list[Update], begun: Arrays, part: Round, ledger: Ledger
    ) -> tuple[list[Update], list[Quarantined]]:
        federation = self.config.federation
        if not federation.firewall:
            return updates, []
        by_slices = federation.weighting == "slices"
        known = {
            member.name: float(member.slices if by_slices else member.cases) for member in self.sites.members.values()
        }
        accepted = AcceptedNorms.from_dict(ledger.accepted_norms)
        firewall = Firewall(begun, federation.largest_norm_ratio, known, accepted=accepted)
        kept, quarantined = firewall.inspect(updates, begun, part.number)
        ledger.accepted_norms = accepted.to_dict()
        return kept, quarantined

    def _scores(self, part: Round, merged: Arrays) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        """Each site's validation scores of the new weights, and their means over the sites' cases."""
        order = Order(self.name, part.number, part.stage, part.until, part.until, config=self._site_config())
        said = {
            self.sites.members[node].name: dict(reply.content.metric_records["metrics"])
            for node, reply in self.sites.ask("evaluate", order, merged).items()
            if not reply.has_error()
        }
        cases: dict[str, float] = {site: float(scores.pop("num-examples")) for site, scores in said.items()}  # type: ignore[arg-type]
        finite = {
            site: {name: float(value) for name, value in scores.items() if math.isfinite(float(value))}  # type: ignore[arg-type]
            for site, scores in said.items()
        }
        return finite, _weighted(finite, cases)

    def _order(self, part: Round, ledger: Ledger) -> Order:
        return Order(self.name, part.number, part.stage, part.first, part.until, ledger.was_best, self._site_config())

    def _site_config(self) -> str:
        """What the sites train by."""
        federation = self.config.federation
        if federation.strategy != "fedprox":
            return self.config.to_json()
        return override(self.config, {"train.proximal_weight": federation.proximal_weight}).to_json()

    def _enrol(self, least: int) -> None:
        before = len(self.sites.refused)
        order = Order(self.name, 0, 0, 0, 0, config=self._site_config())
        self.sites.enrol(order, least)
        for node, reason in list(self.sites.refused.items())[before:]:
            self.tracker.warn(0, f"node {node}: takes no part: {reason}")
        if len(self.sites.members) < max(1, least):
            raise FederationError(
                f"federation: {len(self.sites.members)} sites said yes of the {max(1, least)} that are needed"
            )

    def _heard(self, stage: Stage, part: Round, state: State, answered: int, asked: int) -> None:
        history = state.position.history
        scores = history[-1]["scores"] if history else {}
        self.tracker.progress(Progress(stage.name, part.until - 1, stage.epochs, answered, asked, scores))


def _weighted(values: Mapping[str, Mapping[str, float]], weights: Mapping[str, float]) -> dict[str, float]:
    """Each name's mean over the sites that have it, by their weights."""
    names = dict.fromkeys(name for of_site in values.values() for name in of_site)
    means = {}
    for name in names:
        having = {site: of_site[name] for site, of_site in values.items() if name in of_site and weights[site] > 0}
        total = sum(weights[site] for site in having)
        if total > 0:
            means[name] = sum(weights[site] / total * value for site, value in having.items())
    return means


def _save(folder: Path, *, state: State, ledger: Ledger, aggregator: Aggregator) -> None:
    """The engine's checkpoint, and the federation's in the same folder."""
    ledger.rounds_of_stage = aggregator.rounds
    save_file(aggregator.tensors(), folder / "server.safetensors")
    told = {name: getattr(ledger, name) for name in Ledger.__slots__}
    (folder / "server.json").write_text(json.dumps(told, indent=1))
    save_checkpoint(folder, state)


def _load(folder: Path, aggregator: Aggregator) -> Ledger:
    try:
        ledger = Ledger(**json.loads((folder / "server.json").read_text()))
        aggregator.restore(ledger.rounds_of_stage, load_file(folder / "server.safetensors"))
    except (OSError, ValueError, TypeError):
        raise FederationError(f"{folder}: is missing or damaged; delete it and start the same command again") from None
    return ledger
