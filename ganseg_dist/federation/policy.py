"""A hospital's policy: what it permits, whatever the server's config says. The stricter of the two limits holds.

`rules` judges a federation's config before anything of it is built; `ganseg site check` lists its answers, and a site
that joins or trains raises the first denial.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, Field

from ganseg_dist.config import RunConfig
from ganseg_dist.config.fields import BelowOne, Count, Frozen, Positive
from ganseg_dist.config.privacy import PrivacyDemand
from ganseg_dist.errors import GansegError, PolicyError
from ganseg_dist.federation.privacy import check_privacy_demand
from ganseg_dist.federation.schedule import rounds_of_stages
from ganseg_dist.federation.shared_parameters import local_networks
from ganseg_dist.names import LabelName, Word, is_name
from ganseg_dist.systems import outline_system
from ganseg_dist.systems.base import System

COPIES = 6
"""Copies of each weight in training: itself, its gradient, Adam's two moments, its average, the best epoch's."""
GIB = 2**30
UNLIMITED = 10**9


class SitePolicy(Frozen):
    """The table [policy] of site.toml."""

    networks: tuple[Word, ...] = ("classifier", "detector", "generator", "segmenter")
    """Networks whose weights may leave. A discriminator is not among them: it reveals most about who was in the
    training set."""
    minimum_patients: Count = 3
    """Take no part with fewer usable patients."""
    minimum_group: Count = 5
    """No number computed from the images of fewer patients leaves: no loss, no score, no bin of the fingerprint."""
    validation_fraction: BelowOne = 0.15
    """Share of the patients whose scores choose the epoch. Sampled once; a federation cannot change it."""
    test_fraction: BelowOne = 0.2
    """Share of the patients that no federation uses. Sampled once; a federation cannot change it."""
    rounds: Count = 200
    """Most rounds of a federation."""
    epochs: Count = 1000
    """Most epochs of a federation, all stages together."""
    answers_per_round: Count = 20
    """Most answers to one round, with repetitions after a kill, scores and errors."""
    runs: Count = 100
    """Most runs, of all federations together, to which updates or scores are sent."""
    processes: Count = 16
    """Most loader processes, and most threads."""
    minutes: Positive = 720.0
    """Longest time for one message, such as the training of a round, in minutes."""
    memory_gib: Positive = 32.0
    """Most memory of the node's process, in GiB."""
    disk_gib: Positive = 200.0
    """Largest size of the site's folder, in GiB: prepared images, checkpoints, models."""
    privacy: PrivacyDemand | None = Field(default=None, examples=[{"epsilon": 8.0, "delta": 1e-5, "where": "site"}])
    """Least differential privacy of the hospital; without it none is demanded. `where = "site"`: the hospital adds the
    noise itself, and its budget covers all federations together."""

    @classmethod
    def of_simulation(cls, networks: Sequence[str]) -> SitePolicy:
        """A simulated site's: whoever simulates has all the images already."""
        return cls(
            networks=tuple(networks), minimum_patients=1, minimum_group=1, rounds=UNLIMITED, epochs=UNLIMITED,
            answers_per_round=UNLIMITED, runs=UNLIMITED, processes=UNLIMITED, minutes=UNLIMITED, memory_gib=UNLIMITED,
            disk_gib=UNLIMITED,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule's answer to a federation."""

    subject: str
    """Of the rule, such as `networks`."""
    answer: str
    """What the federation requests and what the policy permits, in one line; with the remedy where it is denied."""
    allowed: bool


def rules(policy: SitePolicy, config: RunConfig, spent: float = 0.0) -> Iterator[Rule]:
    """Every rule's answer to a resolved config, until one is denied that makes the next ones unsafe to compute.

    `spent` is mu^2 of the hospital's earlier releases (`federation.privacy.squared_mu`).
    """
    texts = _text_rule(config)
    yield texts
    if not texts.allowed:
        return
    yield _limit("processes", max(config.train.loaders, config.train.threads), policy.processes)
    system = outline_system(config)  # allocates nothing, whatever widths the config has
    memory = _memory_rule(policy, system)
    yield memory
    yield _limit("epochs", sum(stage.epochs for stage in system.stages), policy.epochs)
    rounds = rounds_of_stages([stage.epochs for stage in system.stages], config.federation.rounds)
    yield _limit("rounds", rounds, policy.rounds)
    yield _networks_rule(policy, system, config)
    yield _privacy_rule(policy, config, rounds, spent)


def check_names(config: RunConfig) -> None:
    """Raises PolicyError for names that are not printable or may be a file's, in a config that need not be resolved."""
    _enforce([_text_rule(config)])


def check_policy(policy: SitePolicy, config: RunConfig, spent: float = 0.0) -> None:
    """Raises PolicyError with the first denial."""
    _enforce(rules(policy, config, spent))


def _enforce(answers: Iterable[Rule]) -> None:
    for rule in answers:
        if not rule.allowed:
            raise PolicyError(f"{rule.subject}: {rule.answer}")


def _limit(subject: str, requested: int, permitted: int) -> Rule:
    if requested <= permitted:
        return Rule(subject, f"{requested}, and the policy permits {permitted}", True)
    return Rule(
        subject, f"{requested}, and the policy permits {permitted}; raise policy.{subject} or take no part", False
    )


def _text_rule(config: RunConfig) -> Rule:
    """Names are printable words, and no field of the system names a file or a host: the server would choose it."""
    named = [*(config.data.modalities or ()), *(config.data.classes or ())]
    if not is_name(config.recipe, Word) or not all(is_name(name, LabelName) for name in named):
        return Rule("names", "of the recipe, channels or classes are not printable; take no part", False)
    defaults = type(config.system)(name=config.system.name)
    for field in _text_fields(config.system):
        if getattr(config.system, field) != getattr(defaults, field):
            return Rule("files", f"system.{field} may name a file of this machine; a federation cannot set it", False)
    return Rule("files", "none of this machine's is named", True)


def _text_fields(model: BaseModel) -> list[str]:
    """Fields that hold free text or a path; fields with a fixed set of values do not."""
    return [name for name, field in type(model).model_fields.items() if _holds_text(field.annotation)]


def _holds_text(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is typing.Literal:
        return False
    if origin is Annotated:
        return _holds_text(get_args(annotation)[0])
    if origin is not None or isinstance(annotation, types.UnionType):
        return any(_holds_text(part) for part in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return any(_holds_text(field.annotation) for field in annotation.model_fields.values())
    return annotation is Any or (isinstance(annotation, type) and issubclass(annotation, str | bytes | Path))


def _memory_rule(policy: SitePolicy, system: System) -> Rule:
    weights = sum(weight.numel() for network in system.networks.values() for weight in network.parameters())
    gib = 4 * COPIES * weights / GIB
    text = (
        f"training holds {gib:.2g} GiB of weights, gradients and moments, and the policy permits {policy.memory_gib:g}"
    )
    return Rule("memory", text if gib <= policy.memory_gib else f"{text}; take no part", gib <= policy.memory_gib)


def _networks_rule(policy: SitePolicy, system: System, config: RunConfig) -> Rule:
    """The networks that leave are among the permitted ones. A config without shared networks is denied, too."""
    try:
        leaving = [name for name in system.networks if name not in local_networks(system, config)]
    except GansegError as error:
        return Rule("networks", str(error), False)
    denied = [name for name in leaving if name not in policy.networks]
    if denied:
        return Rule(
            "networks",
            f"{', '.join(denied)} would leave, and the policy permits {', '.join(policy.networks)}; the federation "
            "must keep it local (federation.local), or add it to policy.networks",
            False,
        )
    return Rule("networks", f"{', '.join(leaving)} leave", True)


def _privacy_rule(policy: SitePolicy, config: RunConfig, rounds: int, spent: float) -> Rule:
    if policy.privacy is None:
        return Rule("privacy", "the policy demands none", True)
    try:
        check_privacy_demand(policy.privacy, config.federation.privacy, rounds, spent)
    except GansegError as error:
        return Rule("privacy", str(error), False)
    return Rule("privacy", f"epsilon stays within {policy.privacy.epsilon:g} at {policy.privacy.delta:g}", True)
