"""Differential privacy of a hospital in a federation: clipping and noise of a round, and the record of releases.

docs/decisions/0008-differential-privacy.md describes what it hides and what not, why weights are fixed, and its cost.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from ganseg_dist.atomic import write_file, write_json
from ganseg_dist.config import RunConfig
from ganseg_dist.config.privacy import PrivacyConfig, PrivacyDemand, Where
from ganseg_dist.digests import Damaged, read_sealed, sealed, verify_file
from ganseg_dist.engine.noise import Entropy, normal_noise
from ganseg_dist.errors import ConfigError, FederationError, PolicyError
from ganseg_dist.federation.accountant import epsilon_at, epsilon_of, noise_multiplier_for, releases_within
from ganseg_dist.federation.shared_parameters import Arrays
from ganseg_dist.federation.strategy import strategies
from ganseg_dist.federation.updates import Change, change_of, norm_of
from ganseg_dist.files import sha256

Weights = dict[str, npt.NDArray[np.float32]]
Released = Mapping[str, npt.NDArray[Any]]
"""Arrays by name, as released."""

LEDGER = "ledger.json"
RELEASES = "round-*.safetensors"
KEPT = 2
"""Number of stored releases: that of the engine's checkpoints, from the older of which a server may resume."""

FAR = 6.0
"""Bound t on the norm of a site's noise above its usual sqrt(D), in standard deviations of one value; one in 10^7
honest updates exceeds it (the norm of D normal values exceeds sqrt(D) + t with probability at most exp(-t^2 / 2))."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The privacy guarantee, constant from a federation's first round to its last."""

    where: Where
    clip_norm: float
    """S, the largest norm of an update."""
    noise_multiplier: float
    """z, the noise's standard deviation in units of S."""
    delta: float
    epsilon: float | None
    """The budget; None: unlimited."""

    @classmethod
    def of(cls, config: PrivacyConfig, rounds: int) -> Terms:
        """From a config with privacy on; if it gives only epsilon, the noise spends it over all planned rounds."""
        z = config.noise_multiplier
        if z is None:
            assert config.epsilon is not None
            z = noise_multiplier_for(config.epsilon, config.delta, rounds)
        return cls(config.where, config.clip_norm, z, config.delta, config.epsilon)

    def spent(self, rounds: int) -> float:
        """Epsilon at delta after this number of rounds."""
        return epsilon_of(self.noise_multiplier, rounds, self.delta)


def validate_privacy(config: RunConfig, rounds: int) -> None:
    """Raises ConfigError where privacy is on and its guarantee cannot be kept over all planned rounds."""
    federation, privacy = config.federation, config.federation.privacy
    if not privacy.on:
        return
    fitting = [name for name, strategy in strategies().items() if strategy.needs_only_mean]
    if federation.strategy not in fitting:
        raise ConfigError(
            f"federation.strategy: {federation.strategy} chooses among single updates, which no noise covers; with "
            f"federation.privacy take one of {', '.join(fitting)}"
        )
    if privacy.where == "site" and federation.encoding == "topk":
        raise ConfigError(
            "federation.encoding: topk sends the largest values, and of an update with noise those are the noise's; "
            "with federation.privacy.where=site take another"
        )
    if privacy.where == "site" and privacy.epsilon is None:
        raise ConfigError(
            "federation.privacy.epsilon: a site that adds the noise itself needs a budget, as it does not trust the "
            "server to stop; set one"
        )
    terms = Terms.of(privacy, rounds)
    if privacy.epsilon is not None and terms.spent(rounds) > privacy.epsilon:
        least = noise_multiplier_for(privacy.epsilon, privacy.delta, rounds)
        within = releases_within(privacy.epsilon, privacy.delta, terms.noise_multiplier)
        fewer = f"lower federation.rounds to {within}, " if within else ""
        raise ConfigError(
            f"federation.privacy.epsilon: {rounds} rounds of noise_multiplier={terms.noise_multiplier:g} spend "
            f"{terms.spent(rounds):.3g}, more than {privacy.epsilon:g}; {fewer}raise noise_multiplier to "
            f"{math.ceil(least * 1000) / 1000:g}, or leave it out"
        )


def withholds_scores(config: RunConfig) -> bool:
    """Whether losses, scores and counts must stay at a site: they are of its patients, and no noise covers them."""
    return config.federation.privacy.on or config.train.privacy.on


def check_privacy_demand(demanded: PrivacyDemand, offered: PrivacyConfig, rounds: int, spent: float = 0.0) -> None:
    """Raises PolicyError, naming what is missing, for a federation that offers less than a hospital demands.

    `spent` is mu^2 of what the hospital has released to others (`squared_mu`); it counts where no server is trusted.
    """
    if not offered.on:
        raise PolicyError("federation.privacy: is off, and the policy demands it; the federation must set it")
    if demanded.where == "site" and offered.where != "site":
        raise PolicyError("federation.privacy.where: is server, and the policy demands site; it must be site")
    Allowance(demanded, spent if offered.where == "site" else 0.0).check(Terms.of(offered, rounds), rounds)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a hospital permits a federation to release: its demand, less what it has released to others."""

    demand: PrivacyDemand
    spent: float
    """mu^2 of the releases to others (`squared_mu`)."""

    def check(self, terms: Terms, rounds: int) -> None:
        """Raises PolicyError where this number of releases under these terms would exceed it."""
        epsilon = epsilon_at(math.sqrt(rounds / terms.noise_multiplier**2 + self.spent), self.demand.delta)
        if epsilon > self.demand.epsilon:
            raise PolicyError(
                f"federation.privacy: would raise this site's epsilon to {epsilon:.3g} at {self.demand.delta:g}, and "
                f"its policy permits {self.demand.epsilon:g}; the federation must take less"
            )


def clipped(change: Change, norm: float) -> Change:
    """The change scaled to d * min(1, norm / |d|), all tensors as one vector; zeros if it is not finite."""
    size = norm_of(change)
    if not math.isfinite(size):
        return {name: np.zeros_like(part) for name, part in change.items()}
    scale = min(1.0, norm / size) if size else 1.0
    return {name: part * scale for name, part in change.items()}


def private_update(sent: Arrays, trained: Arrays, terms: Terms, entropy: Entropy = os.urandom) -> Weights:
    """The update of a site that trusts no server: w_sent + clip(w_trained - w_sent, S) + N(0, (z S)^2).

    It discloses to all, the server included, what one release of multiplier z discloses of the hospital.
    """
    change = clipped(change_of(trained, sent), terms.clip_norm)
    deviation = terms.noise_multiplier * terms.clip_norm
    return _moved(sent, {name: part + normal_noise(part.shape, deviation, entropy) for name, part in change.items()})


def private_mean(
    sent: Arrays,
    updates: Mapping[str, Arrays],
    shares: Mapping[str, float],
    terms: Terms,
    entropy: Entropy = os.urandom,
) -> Weights:
    """The server's mean of a round, all that others see of the round.

        w_sent + sum_i p_i clip(w_i - w_sent, S) + N(0, (z S max_i p_i)^2)

    The shares p_i are those of all members: one that did not answer counts as no change, and its share is not
    redistributed. So a hospital changes the sum by at most S p_i, and the noise is at least z times that. If the sites
    add the noise (`where` is site), the server adds none; it clips an update to the largest norm that noise gives an
    honest one, so that a bad site moves the mean no further than the noise of a good one.

    Shares are fixed before the first round and sum to at most 1; the update of a site without one is ignored.
    """
    size = sum(part.size for part in sent.values())
    usual = 1 + terms.noise_multiplier * (math.sqrt(size) + FAR) if terms.where == "site" else 1
    total: Change = {name: np.zeros(part.shape, np.float64) for name, part in sent.items()}
    for site in sorted(updates.keys() & shares.keys()):  # sums differ in the last bit between orders
        for name, part in clipped(change_of(updates[site], sent), terms.clip_norm * usual).items():
            total[name] += shares[site] * part
    if terms.where == "server":
        deviation = terms.noise_multiplier * terms.clip_norm * max(shares.values())
        total = {name: part + normal_noise(part.shape, deviation, entropy) for name, part in total.items()}
    return _moved(sent, total)


@dataclass(slots=True)
class Releases:
    """One end's record of its releases: one for each round, within the budget.

    A second release of a round would be catastrophic with the same noise, as the difference of both has none, and would
    spend another round's budget with new noise. So a release is stored before it leaves, and a repeated round, as after
    a kill, is answered by the stored one, even if the sites answer differently.
    """

    folder: Path
    terms: Terms | None
    """None if each release is private already and must only not be repeated."""
    shares: Mapping[str, float]
    """By site, its share of the mean; empty at a site."""
    rounds: list[int]
    """Numbers of the released rounds, in order."""
    digests: Mapping[str, str]
    """Digests of the stored releases, by file name."""
    allowance: Allowance | None = None
    """A hospital's own limit, beside that of the terms, which the server sets; None: it has none."""

    @classmethod
    def open(
        cls,
        folder: Path,
        terms: Terms | None,
        shares: Mapping[str, float] | None = None,
        allowance: Allowance | None = None,
    ) -> Releases:
        """The releases in a folder, which may be empty or missing. After the first one the stored shares hold.

        Raises FederationError if the stored terms differ, or the ledger is missing or damaged.
        """
        file = folder / LEDGER
        if not _has_releases(folder):
            return cls(folder, terms, dict(shares or {}), [], {}, allowance)
        ledger = _read(file)
        if ledger["terms"] != (terms and asdict(terms)):
            raise FederationError(
                f"{file}: was started under other terms of federation.privacy; restore them, or choose another run name"
            )
        return cls(folder, terms, ledger["shares"], ledger["rounds"], ledger["digests"], allowance)

    def of(self, round: int) -> Released | None:
        """A round's stored release; None if the round was not released.

        Raises FederationError if it is damaged or no longer stored.
        """
        if round not in self.rounds:
            return None
        file = self._file(round)
        try:
            verify_file(file, self.digests.get(file.name))
        except Damaged as damage:
            raise FederationError(f"{damage}, and no round is released twice; choose another run name") from None
        return load_file(file)

    def once(self, round: int, make: Callable[[], Released]) -> Released:
        """The round's stored release, or a new one that is stored first.

        Raises FederationError when a new one would exceed the budget, and for a release that is no longer stored.
        """
        released = self.of(round)
        if released is not None:
            return released
        self._check_budget(round)
        new = dict(make())
        file = self._file(round)
        if not self.rounds:  # a release without a ledger then means that the ledger was lost
            write_json(self.folder / LEDGER, sealed(self.to_dict()))
        write_file(file, lambda unfinished: save_file(new, unfinished))
        self.rounds.append(round)
        expired = sorted(self.folder.glob(RELEASES))[:-KEPT]
        kept = {name: digest for name, digest in self.digests.items() if self.folder / name not in expired}
        self.digests = {**kept, file.name: sha256(file)}
        write_json(self.folder / LEDGER, sealed(self.to_dict()))
        for old in expired:
            old.unlink()
        return new

    @property
    def epsilon(self) -> list[float]:
        """Epsilon spent after each round, at the terms' delta; empty without terms."""
        terms = self.terms
        return [] if terms is None else [terms.spent(done) for done in range(1, len(self.rounds) + 1)]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: terms, shares, rounds, epsilon after each, and digests."""
        return {
            "terms": self.terms and asdict(self.terms),
            "shares": dict(self.shares),
            "rounds": list(self.rounds),
            "epsilon": self.epsilon,
            "digests": dict(self.digests),
        }

    def _file(self, round: int) -> Path:
        return self.folder / f"round-{round:06d}.safetensors"

    def _check_budget(self, round: int) -> None:
        if self.terms is not None and self.allowance is not None:
            self.allowance.check(self.terms, len(self.rounds) + 1)
        if self.terms is None or self.terms.epsilon is None:
            return
        total = self.terms.spent(len(self.rounds) + 1)
        if total > self.terms.epsilon:
            raise FederationError(
                f"round {round}: would spend an epsilon of {total:.3g} in all, and federation.privacy.epsilon is "
                f"{self.terms.epsilon:g}; the federation ends here"
            )


def released_rounds(folder: Path) -> dict[int, float]:
    """The noise multiplier of every round that a folder's ledger records; empty without one, or without terms.

    Raises FederationError where releases are there and the ledger is missing or damaged.
    """
    ledger = _read(folder / LEDGER) if _has_releases(folder) else {}
    terms = ledger.get("terms")
    return dict.fromkeys(ledger["rounds"], terms["noise_multiplier"]) if terms else {}


def squared_mu(noise_multipliers: Iterable[float]) -> float:
    """mu^2 = sum_i 1 / z_i^2 of releases by the Gaussian mechanism (Dong, Roth and Su 2022, Corollary 3.3)."""
    return math.fsum(1 / z**2 for z in noise_multipliers)


def _has_releases(folder: Path) -> bool:
    """Whether the folder holds a ledger or, if the ledger was lost, any release."""
    return os.path.lexists(folder / LEDGER) or any(folder.glob(RELEASES))


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_sealed(file)
    except Damaged as damage:
        raise FederationError(
            f"{damage}, and without it the releases are unknown; restore it, or choose another run name"
        ) from None


def _moved(sent: Arrays, change: Change) -> Weights:
    return {name: np.asarray(sent[name] + part, np.float32) for name, part in change.items()}
