"""The federation's rounds: the engine's state on the server, with the sites' training in place of its steps.

The server holds the same `State` as a run on one machine. A round replaces the shared weights by the aggregate
of the sites' weights; then the engine's own rules record the epochs, remember the best and end the stage, and its
checkpoint is written, with the federation's beside it. So a killed server resumes like a killed run.
"""

from __future__ import annotations

import datetime
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import Message, RecordDict
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from safetensors.numpy import load_file, save_file

from ganseg_dist.atomic import save_new
from ganseg_dist.config import RunConfig
from ganseg_dist.engine.checkpoint import FolderCheckpoints, load_checkpoint, save_checkpoint
from ganseg_dist.engine.epochs import end_stage, finish_epoch
from ganseg_dist.engine.state import State
from ganseg_dist.engine.tracker import Progress, Tracker
from ganseg_dist.engine.trainer import prepare_state, seeded
from ganseg_dist.engine.world import World
from ganseg_dist.errors import FederationError
from ganseg_dist.federation.egress_manifest import Content
from ganseg_dist.federation.encoding import decode
from ganseg_dist.federation.flower import unpack_reply
from ganseg_dist.federation.privacy import Releases, Terms, private_mean, validate_privacy, withholds_scores
from ganseg_dist.federation.protocol import (
    EVALUATE,
    FINISH,
    REJECTIONS,
    SITE_ERROR_CODES,
    TRAIN,
    RoundInstruction,
    Scores,
    kind_of,
)
from ganseg_dist.federation.record import LeftOut, RoundRecord, SiteCounts, SiteRound
from ganseg_dist.federation.replies import evaluate_layout, finish_layout, train_layout
from ganseg_dist.federation.schedule import Round, schedule
from ganseg_dist.federation.shared_parameters import Arrays, SharedParameters
from ganseg_dist.federation.strategy import StageState, config_at_sites
from ganseg_dist.files import read_json
from ganseg_dist.plural import counted
from ganseg_dist.systems import build_system
from ganseg_dist.systems.base import System
from server.aggregation import Aggregator, mean_scores, site_weights, validate_setup
from server.firewall import AcceptedNorms, Firewall, Update
from server.inbox import read_replies
from server.requests import Answers
from server.sites import Sites

SITES_SHOWN = 3
"""Sites that a progress bar names, of those that a round waits for."""
TRIES = 3
"""Attempts at a round that too few sites answer."""


class LastUpdate(BaseModel):
    """The last update that a site sent, with which it can tell that its folder was restored from a backup."""

    node: int
    round: int
    digest: str
    """`egress_manifest.Content.arrays_digest`."""


class Ledger(BaseModel):
    """The server's state besides the engine's, in server.json of a checkpoint."""

    rounds: list[RoundRecord] = Field(default_factory=list)
    quarantined: list[LeftOut] = Field(default_factory=list)
    accepted_norms: dict[int, dict[str, float]] = Field(default_factory=dict)
    """The firewall's `AcceptedNorms` of this stage."""
    rounds_of_stage: int = 0
    was_best: bool = False
    """Whether the last round's weights are the best of its stage so far."""
    received: dict[str, LastUpdate] = Field(default_factory=dict)
    """By site."""
    sites: dict[str, SiteCounts] = Field(default_factory=dict)
    """Every site that has taken part."""


@dataclass(slots=True)
class Federation:
    """A run that several sites train together: the engine's state and the server's ledger."""

    name: str
    config: RunConfig
    sites: Sites
    checkpoints: FolderCheckpoints
    tracker: Tracker
    least_sites: int = 1
    """Sites that must take part before the first round."""
    system: System = field(init=False)
    state: State = field(init=False)
    ledger: Ledger = field(init=False)
    aggregator: Aggregator = field(init=False)
    releases: Releases | None = field(init=False, default=None)
    """The releases under `federation.privacy`; None if it is off."""
    answers: Answers = field(init=False)
    """Who has answered the last request to train."""
    sites_config: str = field(init=False)
    """The config by which the sites train, as JSON."""
    planned: tuple[Round, ...] = field(init=False)
    """Every round, as if no stage stopped early."""

    def __post_init__(self) -> None:
        seeded(self.config)
        self.system = build_system(self.config)
        self.state = prepare_state(self.system, self.config, World())
        self.ledger, self.aggregator = Ledger(), Aggregator(self.config.federation)
        self.answers = Answers({}, (), 0.0)
        self.sites_config = config_at_sites(self.config).to_json()
        self.planned = schedule(self.system.stages, self.config.federation.rounds)

    def restore(self) -> None:
        """Continue from the newest intact checkpoint, where there is one; call it before the sites enrol."""
        newest = self.checkpoints.latest(self.warn)
        if newest is None:
            return
        load_checkpoint(newest, self.state)
        self.ledger = _load(newest, self.aggregator)
        last_round = max((last.round for last in self.ledger.received.values()), default=0)
        self.sites.expected |= {last.node for last in self.ledger.received.values() if last.round == last_round}
        position = self.state.position
        done = position.stage == len(self.system.stages)
        at = "after the last round" if done else f"from {self._round_text(self._next_round)}"
        self.sites.write_line(f"{self.name}: resumes {at}")

    def run(self) -> Ledger:
        """Train every remaining round of every stage with the sites that have enrolled.

        Raises FederationError when too few sites answer.
        """
        stages, position = self.system.stages, self.state.position
        validate_privacy(self.config, len(self.planned))
        validate_setup(self.config, len(self.sites.members))
        self.releases = self._open_releases(len(self.planned))
        while position.stage < len(stages):
            part = self._next_round
            self._round(part)
            stage = stages[part.stage]
            if position.epoch >= stage.epochs or position.stopped:
                end_stage(self.state, stage, self.config)
                self.aggregator.begin()
                self.ledger.accepted_norms = {}
            self.checkpoints.save({}, self._save)
        self._finish()
        return self.ledger

    @property
    def _next_round(self) -> Round:
        """The planned round that begins at the state's epoch."""
        position = self.state.position
        return next(part for part in self.planned if (part.stage, part.first) == (position.stage, position.epoch))

    def _round(self, part: Round) -> None:
        started, began = datetime.datetime.now(datetime.UTC), time.monotonic()
        stage, position = self.system.stages[part.stage], self.state.position
        shared = SharedParameters.of(self.state, self.system, self.config, part.stage)
        trained = shared.trained(self.system, part.stage)
        if not trained.shapes:
            raise FederationError(
                f"federation.local: stage {stage.name} trains no shared network; share one of "
                f"{', '.join(stage.networks)}"
            )
        sent = shared.take(self.state)
        initial = {name: sent[name] for name in trained.shapes}
        updates = self._updates(part, sent, initial)
        answers = self.answers
        weights = self._weights(updates)
        merged = self._merged(part, initial, {update.site: update.arrays for update in updates}, weights)
        trained.check(merged)
        trained.put(merged, self.state)
        losses = _weighted({update.site: update.metrics for update in updates}, weights)
        site_scores, scores = ({}, {}) if withholds_scores(self.config) else self._scores(part, shared.take(self.state))
        position.step += part.until - part.first
        position.epoch = part.until - 1
        finish_epoch(self.state, stage, {name.partition("/")[2]: value for name, value in losses.items()}, scores)
        self.ledger.was_best = position.best_epoch == part.until - 1
        self.ledger.rounds.append(
            RoundRecord(
                round=part.number,
                stage=stage.name,
                first=part.first,
                until=part.until,
                started=started.isoformat(timespec="seconds"),
                seconds=round(time.monotonic() - began, 1),
                scores=scores,
                sites={
                    update.site: SiteRound(
                        examples=update.examples,
                        weight=weights[update.site],
                        losses=dict(update.metrics),
                        scores=site_scores.get(update.site, {}),
                        seconds=round(answers.seconds[update.site], 1),
                    )
                    for update in updates
                },
                unanswered=answers.pending,
                bytes_out=self.sites.bytes_out,
                bytes_in=self.sites.bytes_in,
                **self._spent(),
            )
        )
        self.sites.bytes_out = self.sites.bytes_in = 0
        self.tracker.epoch(position.step, {f"{stage.name}/{name}": value for name, value in scores.items()} | losses)

    def _open_releases(self, rounds: int) -> Releases | None:
        """The run's releases, with the shares that its first release fixed; None without `federation.privacy`."""
        federation = self.config.federation
        if not federation.privacy.on:
            return None
        shares = site_weights(self._stated_examples(), federation.largest_share)
        return Releases.open(self.checkpoints.folder.parent / "privacy", Terms.of(federation.privacy, rounds), shares)

    def _spent(self) -> dict[str, float]:
        """Epsilon and delta of all rounds so far; empty without `federation.privacy`."""
        if self.releases is None or self.releases.terms is None:
            return {}
        return {"epsilon": self.releases.epsilon[-1], "delta": self.releases.terms.delta}

    def _stated_examples(self) -> dict[str, float]:
        """By member, the number of examples that it stated when it joined."""
        by_slices = self.config.federation.weighting == "slices"
        return {
            member.name: float(member.slices if by_slices else member.cases) for member in self.sites.members.values()
        }

    def _weights(self, updates: list[Update]) -> Mapping[str, float]:
        """The share of each update. With privacy, shares do not depend on what a site reports in a round."""
        if self.releases is not None:
            return {update.site: self.releases.shares.get(update.site, 0.0) for update in updates}
        stated = self._stated_examples() if withholds_scores(self.config) else {}
        examples = {update.site: stated.get(update.site, update.examples) for update in updates}
        return site_weights(examples, self.config.federation.largest_share)

    def _merged(
        self, part: Round, initial: Arrays, updates: Mapping[str, Arrays], weights: Mapping[str, float]
    ) -> Arrays:
        """The aggregate of the sites' models; with `federation.privacy` the strategy sees only their noised mean."""
        releases = self.releases
        if releases is None:
            return self.aggregator.merge(initial, updates, weights)
        assert releases.terms is not None
        mean = releases.once(part.number, partial(private_mean, initial, updates, releases.shares, releases.terms))
        return self.aggregator.merge(initial, {"mean": mean}, {"mean": 1.0})

    def _updates(self, part: Round, sent: Arrays, initial: Arrays) -> list[Update]:
        """The updates that the firewall accepts; the round is requested again while they are too few.

        The sites get `sent`, and send back what the stage trains of it, `initial`. Sites that join late take part from
        the next request on: no request waits for a site that has not joined.

        Raises FederationError when too few sites answer in every attempt, or too many reject the config.
        """
        quorum = self.config.federation.quorum
        instruction = self.instruction(part.number, part.stage, part.first, part.until, best=self.ledger.was_best)
        rejecting: dict[int, str] = {}
        for _ in range(TRIES):
            if self.releases is None:  # with privacy, shares are fixed: a late site has none
                self.sites.invite(self._invitation, self.warn)
                if pending := self.sites.pending_text():
                    self.sites.write_line(f"{self._round_text(part)}: begins without {pending}, not joined yet")
            members = self.sites.members
            nodes = [node for node in members if node not in rejecting]
            self.sites.write_line(f"{self._round_text(part)}: asking {len(nodes)} sites to train")
            label, show = self._round_text(part), partial(self._show, part)
            replies = self.sites.ask(TRAIN, instruction, sent, nodes, label=label, show=show)
            failed = {node: reply.error for node, reply in replies.items() if reply.has_error()}
            rejecting |= {node: members[node].name for node, error in failed.items() if error.code in REJECTIONS}
            # A key may have been revoked meanwhile: its site is no member, and counts neither here nor there.
            needed = max(self.aggregator.strategy.least_answers(), math.ceil(quorum * len(members)))
            rejecting = {node: name for node, name in rejecting.items() if node in members}
            if rejecting and len(members) - len(rejecting) < needed:  # asking again would change nothing
                raise FederationError(f"round {part.number}: {self._rejection_message(list(rejecting.values()))}")
            why = {members[node].name: self.sites.failure(members[node].name, error) for node, error in failed.items()}
            updates, unread = self._read(replies, initial, part)
            kept, left_out = self._inspect(updates, initial, part)
            for record in (*unread, *left_out):
                reason = why.get(record.site, record.reason)
                self.warn(f"round {part.number}: {record.site}: {reason}; left out")
                self.ledger.quarantined.append(record)
            if len(kept) >= needed:
                return sorted(kept, key=lambda update: update.site)  # sums differ in the last bit between orders
        strategy = self.config.federation.strategy
        setting = f"federation.strategy={strategy}" if needed == self.aggregator.strategy.least_answers() > 1 else ""
        raise FederationError(
            f"round {part.number}: {len(kept)} sites answered of the {needed} that "
            f"{setting or f'federation.quorum={quorum:g}'} needs, {TRIES} times; see why above, then rerun the "
            "same command"
        )

    def _rejection_message(self, sites: list[str]) -> str:
        """Text: how many sites reject the config and, in a simulation, why."""
        reasons = [f"{site}: {line}" for site in sites if (line := self.sites.last_log_line(site)) is not None]
        why = "; ".join(reasons) or f"{', '.join(sites)}; the site.log of each has the reason"
        return f"{len(sites)} of {len(self.sites.members)} sites reject the config: {why}"

    def _read(self, replies: Mapping[int, Message], initial: Arrays, part: Round) -> tuple[list[Update], list[LeftOut]]:
        """Decodes the sites' messages; returns their updates, and a record of each that could not be read."""
        stage, federation = self.system.stages[part.stage], self.config.federation
        stated, shapes = self._stated_examples(), {name: array.shape for name, array in initial.items()}

        def read(node: int, content: RecordDict) -> Update:
            site = self.sites.members[node].name
            arrays, numbers = unpack_reply(content, train_layout(stage, shapes, federation, stated[site]))
            scores = Scores.from_numbers(numbers)
            examples = stated[site] if scores.examples is None else scores.examples
            if not examples:
                raise FederationError("it stated that it has nothing to train on")
            update = Update(site, decode(arrays, initial, federation), examples, scores.values)
            self._note_received(node, part.number, arrays)
            return update

        updates, reasons = read_replies(replies, read)
        unread = [LeftOut(self.sites.members[node].name, part.number, reason) for node, reason in reasons.items()]
        return list(updates.values()), unread

    def _inspect(self, updates: list[Update], initial: Arrays, part: Round) -> tuple[list[Update], list[LeftOut]]:
        federation = self.config.federation
        if not federation.firewall:
            return updates, []
        # Clipping bounds a private update's size, and comparing norms would use single updates.
        ratio = math.inf if federation.privacy.on else federation.largest_norm_ratio
        accepted = AcceptedNorms(self.ledger.accepted_norms)
        firewall = Firewall(ratio, accepted)
        kept, quarantined = firewall.inspect(updates, initial, part.number)
        self.ledger.accepted_norms = accepted.rounds
        return kept, quarantined

    def _scores(self, part: Round, merged: Arrays) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        """Each site's validation scores of the new weights, and their means over the sites."""
        instruction = self.instruction(part.number, part.stage, part.until, part.until)
        members, stage = self.sites.members, self.system.stages[part.stage]
        self.sites.write_line(f"{self._round_text(part)}: asking {len(members)} sites to score")

        def read(node: int, content: RecordDict) -> Scores:
            _, numbers = unpack_reply(content, evaluate_layout(stage, members[node].cases))
            return Scores.from_numbers(numbers)

        replies = self.sites.ask(EVALUATE, instruction, merged, label=self._round_text(part))
        scores, reasons = read_replies(replies, read)
        for node, reason in reasons.items():
            site = members[node].name
            why = self.sites.failure(site, replies[node].error) if replies[node].has_error() else reason
            self.warn(f"round {part.number}: {site}: its scores are not used: {why}")
            self.ledger.quarantined.append(LeftOut(site, part.number, reason, "evaluate"))
        values = {members[node].name: dict(of_site.values) for node, of_site in scores.items()}
        cases = {members[node].name: of_site.examples or 0.0 for node, of_site in scores.items()}
        return values, mean_scores(values, cases, self.config.federation.largest_share, alone=len(members) == 1)

    def _finish(self) -> None:
        """Send every site the last weights, from which it stores its model."""
        stages = len(self.system.stages)
        instruction = self.instruction(len(self.ledger.rounds), stages, best=self.ledger.was_best)
        arrays = SharedParameters.of(self.state, self.system, self.config, stages - 1).take(self.state)
        members = self.sites.members
        replies = self._ask_to_save(list(members), instruction, arrays)
        # A site that was down has no other chance to get its model.
        unreached = [node for node in members if node not in replies or _is_unreached(replies[node])]
        if unreached:
            replies = {**replies, **self._ask_to_save(unreached, instruction, arrays)}
        _, reasons = read_replies(replies, lambda _, content: unpack_reply(content, finish_layout()))
        for node, member in members.items():
            if node in reasons:
                failed = replies[node].has_error()
                why = self.sites.failure(member.name, replies[node].error) if failed else reasons[node]
                self.warn(f"{member.name}: saved no model: {why}")
            elif node not in replies:
                self.warn(f"{member.name}: saved no model: it did not answer by the deadline, twice")

    def _ask_to_save(self, nodes: list[int], instruction: RoundInstruction, arrays: Arrays) -> Mapping[int, Message]:
        what = "its model" if len(nodes) == 1 else "their models"
        self.sites.write_line(f"asking {counted(len(nodes), 'site')} to save {what}")
        return self.sites.ask(FINISH, instruction, arrays, nodes)

    def enrol(self) -> None:
        """Enrol the available nodes. Raises FederationError when fewer than `least_sites` join by the deadline."""
        self.sites.enrol(self._invitation, self.least_sites, self.warn)

    def _invitation(self, node: int) -> RoundInstruction:
        """The instruction before the first round, with what the server last received of this node and of no other."""
        try:
            site = self.sites.registered(node)
        except FederationError:
            return self.instruction()  # it will not be taken in
        received = {
            name: (last.round, last.digest)
            for name, last in self.ledger.received.items()
            if (last.node == node if site is None else name == site.name)
        }
        return replace(self.instruction(), received=received)

    def _note_received(self, node: int, number: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Remember a site's update of this round, encoded as it arrived."""
        digest = Content.of(kind_of(TRAIN), self.name, number, arrays, {}).arrays_digest
        self.ledger.received[self.sites.members[node].name] = LastUpdate(node=node, round=number, digest=digest)

    def instruction(
        self, number: int = 0, stage: int = 0, first: int = 0, until: int = 0, *, best: bool = False
    ) -> RoundInstruction:
        """An instruction of this run; by default the one before the first round."""
        return RoundInstruction(self.name, number, stage, first, until, best, self.sites_config)

    def _round_text(self, part: Round) -> str:
        return f"round {part.number} of {len(self.planned)}"

    def _show(self, part: Round, answers: Answers) -> None:
        self.answers = answers
        stage, history = self.system.stages[part.stage], self.state.position.history
        scores = history[-1].scores if history else {}
        done, requests = len(answers.seconds), len(answers.seconds) + len(answers.pending)
        note = answers.waiting_for(SITES_SHOWN)
        self.tracker.progress(Progress(stage.name, part.until - 1, stage.epochs, done, requests, scores, "site", note))

    def warn(self, text: str) -> None:
        """Send a warning to the tracker, at the current step."""
        self.tracker.warn(self.state.position.step, text)

    def _save(self, folder: Path) -> None:
        """Write the engine's checkpoint, and the federation's into the same folder."""
        self.ledger.rounds_of_stage = self.aggregator.state.rounds
        self.ledger.sites |= self.sites.counts()
        save_new(folder / "server.safetensors", partial(save_file, self.aggregator.state.tensors))
        (folder / "server.json").write_text(json.dumps(self.ledger.model_dump(), indent=1))
        save_checkpoint(folder, self.state)


def _is_unreached(reply: Message) -> bool:
    """Whether a reply is not the site's: Flower's for a node that is lost, or for a process that died."""
    return reply.has_error() and reply.error.code not in SITE_ERROR_CODES


def _weighted(values: Mapping[str, Mapping[str, float]], weights: Mapping[str, float]) -> dict[str, float]:
    """By name, the weighted mean over the sites that have a value of it."""
    names = dict.fromkeys(name for of_site in values.values() for name in of_site)
    means = {}
    for name in names:
        with_value = {site: of_site[name] for site, of_site in values.items() if name in of_site and weights[site] > 0}
        total = sum(weights[site] for site in with_value)
        if total > 0:
            means[name] = sum(weights[site] / total * value for site, value in with_value.items())
    return means


def _load(folder: Path, aggregator: Aggregator) -> Ledger:
    """Restore the federation's part of an intact checkpoint, as `_save` wrote it."""
    try:
        ledger = Ledger.model_validate(read_json(folder / "server.json"))
        aggregator.state = StageState(ledger.rounds_of_stage, load_file(folder / "server.safetensors"))
    except (OSError, ValueError, TypeError):
        raise FederationError(f"{folder}: is no checkpoint of a federation; delete it and rerun") from None
    return ledger
