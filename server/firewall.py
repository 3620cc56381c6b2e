"""Decides which updates the server accepts. A site is trusted with its share of a round, never with all of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ganseg_dist.federation.record import LeftOut
from ganseg_dist.federation.shared_parameters import Arrays
from ganseg_dist.federation.updates import change_of

WINDOW = 5
"""Rounds for which an accepted norm is remembered: enough that a round of few answers is judged by all sites, few
enough that early training, whose changes are large, is soon forgotten."""

NEGLIGIBLE = 1e-3
"""Share of the sent weights' norm below which a change is never too large, however little the others changed."""


@dataclass(frozen=True, slots=True)
class Update:
    """One site's reply in one round: finite float32 arrays of the agreed names and shapes, and checked numbers."""

    site: str
    arrays: Arrays
    """The site's weights after its training, not their change."""
    examples: float
    """The count that the site reports."""
    metrics: Mapping[str, float]


@dataclass(slots=True)
class AcceptedNorms:
    """Norms of the accepted changes, by round and site: all that a firewall remembers.

    They are those of one stage: another stage trains other networks, with changes of another size.
    """

    rounds: dict[int, dict[str, float]] = field(default_factory=dict)

    def note(self, round: int, norms: Mapping[str, float]) -> None:
        """Remember a round's accepted norms; those of an earlier try of it and of later rounds are dropped."""
        self.rounds = {**self._before(round), round: _votes(norms)}

    def usual(self, round: int, norms: Mapping[str, float]) -> float | None:
        """The norm that this round's norms (site to norm, not yet accepted) are compared with.

        The larger of two lower medians over the sites:

        - of the sites' norms *now*: a site's norm in this round or, if it did not answer, its last accepted one. So
          no site is left out when every site's changes grow at once, as when an adversarial loss sets in;
        - of the sites' norms *before*: the lower median of a site's accepted norms in the window. So a site that
          still improves is not left out in the round in which the others have converged.

        Every site has one vote in each median, however often it answers: a bad site that never misses a round does not
        outvote good ones that do. A norm of 0 is no vote: a site without training data has no usual size.
        The median is the *lower* one, of two the smaller, so that neither can raise it above the other's norm.

        As long as no more than half of the voters are bad, the result is no larger than some good site's norm. As long
        as fewer than half are, it is no smaller either; `Firewall.inspect` asks a majority for that.
        None if neither median has two voters: a site is not compared with itself.
        """
        past = self._before(round)
        before = {
            site: _lower_median(past[number][site] for number in past if site in past[number])
            for site in {site for norms_then in past.values() for site in norms_then}
        }
        now = self.voters(round, norms)
        return max((_lower_median(votes.values()) for votes in (now, before) if len(votes) > 1), default=None)

    def voters(self, round: int, norms: Mapping[str, float]) -> dict[str, float]:
        """Each site's norm in this round or, if it did not answer, its last accepted one; without zeros."""
        past = self._before(round)
        last = {site: norm for number in sorted(past) for site, norm in past[number].items()}
        return {**last, **_votes(norms)}

    def _before(self, round: int) -> dict[int, dict[str, float]]:
        """The rounds of the window that ends before this round."""
        return {number: norms for number, norms in self.rounds.items() if round - WINDOW <= number < round}


@dataclass(frozen=True, slots=True)
class Firewall:
    """Accepts the updates of one stage whose change is not far too large, as a whole or in one tensor.

    What is no update of this stage at all (`federation.replies`, `encoding.decode`) never gets here. A malicious update
    of the size of the others' passes; a robust strategy (median, trimmed mean, Krum) and the largest share of a site
    limit its effect.
    """

    largest_norm_ratio: float
    """How many times the usual norm a change may have."""
    accepted: AcceptedNorms = field(default_factory=AcceptedNorms)

    def inspect(self, updates: Sequence[Update], sent: Arrays, round: int) -> tuple[list[Update], list[LeftOut]]:
        """The updates to aggregate and those that are left out, each in the order given.

        An update is left out if its change w_i - w_sent has

            |w_i - w_sent| > max(largest_norm_ratio * usual, 0.001 |w_sent|)

        with `usual` from `AcceptedNorms.usual` or, if a site has no peer (it is alone, or the only one that changed
        anything), |w_sent|: training does not change weights by several times their norm. The second bound is for
        the end of training, when the usual change is close to 0.

        Where half of the voters or more would be left out, the comparison tells nothing: a site of two, or two of four,
        could take the round alone by changes so small that the others' are far too large beside them. |w_sent| then
        bounds each change, and no tensor is compared.

        Rejected norms are not remembered. Accepted ones replace those of an earlier call for the same round, which
        a repeated round makes.

        Each site has one update, of the names and shapes of the weights that were sent, which `encoding.decode` has
        checked; these weights are finite. Rounds are numbered one by one.
        """
        changes = {update.site: _tensor_norms(change_of(update.arrays, sent)) for update in updates}
        excesses = self._excesses(changes, _whole(_tensor_norms(sent)), round)
        self.accepted.note(round, {site: _whole(changes[site]) for site in changes if site not in excesses})
        left_out = [LeftOut(update.site, round, excesses[update.site]) for update in updates if update.site in excesses]
        return [update for update in updates if update.site not in excesses], left_out

    def _excesses(self, changes: Mapping[str, Mapping[str, float]], weights: float, round: int) -> dict[str, str]:
        """Site to reason, for sites whose change is too large as a whole or in one tensor.

        `changes` has, by site, each tensor's norm; `weights` is the norm of the weights that were sent.
        """
        wholes = {site: _whole(tensors) for site, tensors in changes.items()}
        usual = self.accepted.usual(round, wholes)
        if usual is not None:
            excesses = self._too_large(wholes, usual, NEGLIGIBLE * weights, "the usual one")
            within = {site: changes[site] for site, norm in wholes.items() if norm > 0 and site not in excesses}
            excesses |= self._lopsided(within, max(usual, NEGLIGIBLE * weights))
            if 2 * len(excesses) < len(self.accepted.voters(round, wholes)):
                return excesses
        # All-zero weights give no bound: a site without peers then passes.
        return self._too_large(wholes, weights or math.inf, 0.0, "the weights' own")

    def _too_large(self, wholes: Mapping[str, float], usual: float, negligible: float, what: str) -> dict[str, str]:
        """Site to reason, for sites whose change is too large as a whole beside `usual`, which `what` names."""
        ratio = self.largest_norm_ratio
        return {
            site: f"the change's norm is {norm / usual:.3g} times {what}, more than {ratio:g}"
            for site, norm in wholes.items()
            if norm > max(ratio * usual, negligible)
        }

    def _lopsided(self, changes: Mapping[str, Mapping[str, float]], usual: float) -> dict[str, str]:
        """Site to reason, for sites whose change is within the norm's bound but concentrated on one tensor.

        A tensor t is too large if its change alone exceeds the usual change of a whole model, and its part of the
        site's change, |d_t| / |d|, exceeds largest_norm_ratio times the lower median of this part over the sites.
        Parts do not depend on how far a site has moved, and a model of few tensors cannot break the rule.
        """
        if len(changes) < 2:
            return {}
        parts = {
            site: {name: norm / _whole(tensors) for name, norm in tensors.items()} for site, tensors in changes.items()
        }
        excesses: dict[str, str] = {}
        for name in next(iter(parts.values())):
            limit = self.largest_norm_ratio * _lower_median(part[name] for part in parts.values())
            for site, part in parts.items():
                if changes[site][name] > usual and part[name] > limit:
                    excesses.setdefault(site, f"{name}: takes up far more of the change than at the other sites")
        return excesses


def _votes(norms: Mapping[str, float]) -> dict[str, float]:
    """The norms above 0."""
    return {site: norm for site, norm in norms.items() if norm > 0}


def _tensor_norms(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, float]:
    """The norm of each tensor, in float64, in which no square of a float32 overflows."""
    return {name: float(np.linalg.norm(array.astype(np.float64, copy=False))) for name, array in arrays.items()}


def _whole(tensors: Mapping[str, float]) -> float:
    """The norm of all tensors as one vector."""
    return math.hypot(*tensors.values())


def _lower_median(values: Iterable[float]) -> float:
    """The median of an odd number of values, the smaller of the middle two of an even one."""
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2]
