"""The federation's rounds: the engine's state on the server, with the sites' training in place of its own steps.

The server holds the same `State` as a run on one machine. A round replaces the shared weights by what is made of the
sites' weights; then the engine's own rules record the epochs, remember the best and end the stage, and its own
checkpoint is written, with the federation's beside it. So a killed server goes on like a killed run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import Message
from safetensors.numpy import load_file, save_file

from ganseg_dist.atomic import save_new
from ganseg_dist.config import RunConfig
from ganseg_dist.engine.checkpoint import FolderCheckpoints, load_checkpoint, save_checkpoint
from ganseg_dist.engine.fit import end_stage, finish_epoch, prepare_state, seeded
from ganseg_dist.engine.state import State
from ganseg_dist.engine.tracker import Progress, Tracker
from ganseg_dist.engine.world import World
from ganseg_dist.errors import FederationError
from ganseg_dist.federation.at_sites import config_at_sites
from ganseg_dist.federation.encoding import decode
from ganseg_dist.federation.flower import CONFIG_REFUSED, arrays_of, numbers_of
from ganseg_dist.federation.privacy import Releases, Terms, keeps_numbers_home, private_mean, validate_privacy
from ganseg_dist.federation.round_instruction import RoundInstruction
from ganseg_dist.federation.schedule import Round, schedule
from ganseg_dist.federation.shared_parameters import Arrays, SharedParameters
from ganseg_dist.files import read_json
from ganseg_dist.systems import build_system
from ganseg_dist.systems.base import System
from server.firewall import AcceptedNorms, Firewall, Quarantined, Update
from server.sites import Sites
from server.strategies import Aggregator, least_answers, validate_setup
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
    """A run that several sites train together: the engine's state, and what the server remembers besides."""

    name: str
    config: RunConfig
    sites: Sites
    checkpoints: FolderCheckpoints
    tracker: Tracker
    least_sites: int = 1
    """Sites that must have said yes before the first round, among which the batch is shared out."""
    system: System = field(init=False)
    state: State = field(init=False)
    ledger: Ledger = field(init=False)
    aggregator: Aggregator = field(init=False)
    releases: Releases | None = field(init=False, default=None)
    """What was released under `federation.privacy`; none where nothing is promised."""
    sites_config: str = field(init=False)
    """What the sites train by, as JSON."""
    planned: tuple[Round, ...] = field(init=False)
    """Every round, early stops apart."""

    def __post_init__(self) -> None:
        seeded(self.config)
        self.system = build_system(self.config)
        self.state = prepare_state(self.system, self.config, World())
        self.ledger, self.aggregator = Ledger(), Aggregator(self.config.federation)
        self.sites_config = config_at_sites(self.config, self.least_sites).to_json()
        self.planned = schedule(self.system.stages, self.config.federation.rounds)

    def run(self) -> Ledger:
        """Every round of every stage, from the newest whole checkpoint or from the start.

        Raises FederationError when too few sites take part.
        """
        newest = self.checkpoints.latest(self.warn)
        if newest is not None:
            load_checkpoint(newest, self.state)
            self.ledger = _load(newest, self.aggregator)
        stages, position = self.system.stages, self.state.position
        planned = {(part.stage, part.first): part for part in self.planned}
        if newest is not None:
            done = position.stage == len(stages)
            at = "after the last round" if done else f"from {self._called(planned[position.stage, position.epoch])}"
            self.sites.say(f"{self.name}: goes on {at}")
        validate_privacy(self.config, len(planned))
        self.enrol(self.least_sites)
        validate_setup(self.config, len(self.sites.members))
        self.releases = self._opened_releases(len(planned))
        while position.stage < len(stages):
            part = planned[position.stage, position.epoch]
            self._round(part)
            stage = stages[part.stage]
            if position.epoch >= stage.epochs or position.stopped:
                end_stage(self.state, stage, self.config)
                self.aggregator.begin()
                self.ledger.accepted_norms = {}
            self.checkpoints.save({}, self._save)
        self._finish()
        return self.ledger

    def _round(self, part: Round) -> None:
        stage, position = self.system.stages[part.stage], self.state.position
        shared = SharedParameters.of(self.state, self.system, self.config, part.stage)
        trained = shared.trained(self.system, part.stage)
        if not trained.shapes:
            raise FederationError(
                f"federation.local: stage {stage.name} trains no shared network; share one of "
                f"{', '.join(stage.networks)}"
            )
        sent = shared.take(self.state)
        begun = {name: sent[name] for name in trained.shapes}
        updates = self._updates(part, sent, begun)
        weights = self._weights(updates)
        merged = self._merged(part, begun, {update.site: update.arrays for update in updates}, weights)
        trained.check(merged)
        trained.put(merged, self.state)
        losses = _weighted({update.site: update.metrics for update in updates}, weights)
        site_scores, scores = (
            ({}, {}) if keeps_numbers_home(self.config) else self._scores(part, shared.take(self.state))
        )
        position.step += part.until - part.first
        position.epoch = part.until - 1
        finish_epoch(self.state, stage, {name.partition("/")[2]: value for name, value in losses.items()}, scores)
        self.ledger.was_best = position.best_epoch == part.until - 1
        self.ledger.rounds.append(
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
                **self._spent(),
            }
        )
        self.sites.bytes_out = self.sites.bytes_in = 0
        self.tracker.epoch(position.step, {f"{stage.name}/{name}": value for name, value in scores.items()} | losses)

    def _opened_releases(self, rounds: int) -> Releases | None:
        """Those of this run, with the shares that its first release fixed."""
        federation = self.config.federation
        if not federation.privacy.on:
            return None
        shares = site_weights(self._stated(), federation.largest_share)
        return Releases.open(self.checkpoints.folder.parent / "privacy", Terms.of(federation.privacy, rounds), shares)

    def _spent(self) -> dict[str, float]:
        """Epsilon and delta of all rounds so far, where anything is promised."""
        if self.releases is None or self.releases.terms is None:
            return {}
        return {"epsilon": self.releases.epsilon[-1], "delta": self.releases.terms.delta}

    def _stated(self) -> dict[str, float]:
        """By member, the examples that it stated when it joined."""
        by_slices = self.config.federation.weighting == "slices"
        return {
            member.name: float(member.slices if by_slices else member.cases) for member in self.sites.members.values()
        }

    def _weights(self, updates: list[Update]) -> Mapping[str, float]:
        """What each update counts by: under a promise of privacy nothing that a site says in a round."""
        if self.releases is not None:
            return {update.site: self.releases.shares.get(update.site, 0.0) for update in updates}
        stated = self._stated() if keeps_numbers_home(self.config) else {}
        examples = {update.site: stated.get(update.site, update.examples) for update in updates}
        return site_weights(examples, self.config.federation.largest_share)

    def _merged(
        self, part: Round, begun: Arrays, updates: Mapping[str, Arrays], weights: Mapping[str, float]
    ) -> Arrays:
        """One model of the sites'; under `federation.privacy` the strategy sees their noised mean alone."""
        releases = self.releases
        if releases is None:
            return self.aggregator.merge(begun, updates, weights)
        assert releases.terms is not None
        mean = releases.once(part.number, partial(private_mean, begun, updates, releases.shares, releases.terms))
        return self.aggregator.merge(begun, {"mean": mean}, {"mean": 1.0})

    def _updates(self, part: Round, sent: Arrays, begun: Arrays) -> list[Update]:
        """What the firewall lets through of the sites' weights; asked for again while it is too little.

        Args:
            sent: all that the sites get.
            begun: of it, what the stage trains: what they send back.
        """
        quorum = self.config.federation.quorum
        instruction = RoundInstruction(
            self.name, part.number, part.stage, part.first, part.until, self.ledger.was_best, self.sites_config
        )
        refusing: dict[int, str] = {}
        for _ in range(TRIES):
            if self.releases is None:  # with privacy, shares are fixed: who comes late has none
                self.enrol(1)
            members = self.sites.members
            needed = max(least_answers(self.config.federation), math.ceil(quorum * len(members)))
            asked = [node for node in members if node not in refusing]
            self.sites.say(f"{self._called(part)}: asking {len(asked)} sites to train")
            replies = self.sites.ask("train", instruction, sent, asked, heard=partial(self._heard, part))
            failed = {node: reply.error for node, reply in replies.items() if reply.has_error()}
            refusing |= {node: members[node].name for node, error in failed.items() if error.code == CONFIG_REFUSED}
            if len(members) - len(refusing) < needed:  # nothing changes by asking again
                raise FederationError(f"round {part.number}: {self._refusal(list(refusing.values()))}")
            why = {members[node].name: self.sites.why(members[node].name, error) for node, error in failed.items()}
            updates, unread = self._read(replies, begun, part)
            kept, left_out = self._inspect(updates, begun, part)
            for record in (*unread, *left_out):
                reason = why.get(record.site, record.reason)
                self.warn(f"round {part.number}: {record.site}: {reason}; left out")
                self.ledger.quarantined.append(record.to_dict())
            if len(kept) >= needed:
                return sorted(kept, key=lambda update: update.site)  # sums differ in the last bit between orders
        strategy = self.config.federation.strategy
        asker = f"federation.strategy={strategy}" if needed == least_answers(self.config.federation) > 1 else ""
        raise FederationError(
            f"round {part.number}: {len(kept)} sites answered of the {needed} that "
            f"{asker or f'federation.quorum={quorum:g}'} needs, {TRIES} times; see why above, then start the same "
            "command again"
        )

    def _refusal(self, sites: list[str]) -> str:
        """That too many refuse the config, and why, where the server may know it."""
        told = [f"{site}: {words}" for site in sites if (words := self.sites.last_words(site)) is not None]
        why = "; ".join(told) or f"{', '.join(sites)}; the site.log of each says why"
        return f"{len(sites)} of {len(self.sites.members)} sites refuse the config: {why}"

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
                message, said = arrays_of(reply.content), numbers_of(reply.content)
                arrays = decode(message, begun, encoding=federation.encoding, kept_share=federation.kept_share)
                updates.append(Update(site, arrays, said.pop("num-examples", 0), said))
            except FederationError as error:
                unread.append(Quarantined(site, part.number, str(error)))
        return updates, unread

    def _inspect(self, updates: list[Update], begun: Arrays, part: Round) -> tuple[list[Update], list[Quarantined]]:
        federation = self.config.federation
        if not federation.firewall:
            return updates, []
        # Clipping bounds a private update's size, and to compare norms would be to look at single ones.
        ratio = math.inf if federation.privacy.on else federation.largest_norm_ratio
        known = self._stated()
        accepted = AcceptedNorms.from_dict(self.ledger.accepted_norms)
        firewall = Firewall(begun, ratio, known, accepted=accepted)
        kept, quarantined = firewall.inspect(updates, begun, part.number)
        self.ledger.accepted_norms = accepted.to_dict()
        return kept, quarantined

    def _scores(self, part: Round, merged: Arrays) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        """Each site's validation scores of the new weights, and their means over the sites' cases."""
        instruction = RoundInstruction(
            self.name, part.number, part.stage, part.until, part.until, config=self.sites_config
        )
        self.sites.say(f"{self._called(part)}: asking {len(self.sites.members)} sites to score")
        said = {}
        for node, reply in self.sites.ask("evaluate", instruction, merged).items():
            if not reply.has_error():
                with suppress(FederationError):  # who cannot be understood does not score
                    said[self.sites.members[node].name] = numbers_of(reply.content)
        cases = {site: scores.pop("num-examples", 0) for site, scores in said.items()}
        finite = {
            site: {name: value for name, value in scores.items() if math.isfinite(value)}
            for site, scores in said.items()
        }
        return finite, _weighted(finite, cases)

    def _finish(self) -> None:
        """Every site gets the last weights, for a model of its own."""
        stages = len(self.system.stages)
        instruction = RoundInstruction(
            self.name, len(self.ledger.rounds), stages, 0, 0, self.ledger.was_best, self.sites_config
        )
        arrays = SharedParameters.of(self.state, self.system, self.config, stages - 1).take(self.state)
        self.sites.say(f"asking {len(self.sites.members)} sites to keep a model of their own")
        for node, reply in self.sites.ask("train.finish", instruction, arrays).items():
            if reply.has_error():
                site = self.sites.members[node].name
                self.warn(f"{site}: has no model of its own: {self.sites.why(site, reply.error)}")

    def enrol(self, least: int) -> None:
        """Take in who is there. Raises FederationError when fewer than `least` have said yes by the deadline."""
        self.sites.enrol(RoundInstruction(self.name, 0, 0, 0, 0, config=self.sites_config), least, self.warn)

    def _called(self, part: Round) -> str:
        return f"round {part.number} of {len(self.planned)}"

    def _heard(self, part: Round, answered: int, asked: int) -> None:
        self.sites.say(f"{self._called(part)}: {answered} of {asked} sites have answered")
        stage, history = self.system.stages[part.stage], self.state.position.history
        scores = history[-1]["scores"] if history else {}
        self.tracker.progress(Progress(stage.name, part.until - 1, stage.epochs, answered, asked, scores))

    def warn(self, text: str) -> None:
        """A line to whoever watches."""
        self.tracker.warn(self.state.position.step, text)

    def _save(self, folder: Path) -> None:
        """The engine's checkpoint, and the federation's in the same folder."""
        self.ledger.rounds_of_stage = self.aggregator.rounds
        save_new(folder / "server.safetensors", partial(save_file, self.aggregator.tensors()))
        (folder / "server.json").write_text(json.dumps(asdict(self.ledger), indent=1))
        save_checkpoint(folder, self.state)


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


def _load(folder: Path, aggregator: Aggregator) -> Ledger:
    """What `_save` put into a checkpoint that is whole."""
    try:
        ledger = Ledger(**read_json(folder / "server.json"))
        aggregator.restore(ledger.rounds_of_stage, load_file(folder / "server.safetensors"))
    except (OSError, ValueError, TypeError):
        raise FederationError(f"{folder}: is no checkpoint of a federation; delete it and start again") from None
    return ledger
