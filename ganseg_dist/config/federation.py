"""Fields of a federation, on which hospitals and server agree in addition to the recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictInt

from ganseg_dist.config.fields import BelowOne, Count, Fraction, Frozen, NonNegative, Positive
from ganseg_dist.config.privacy import PrivacyConfig

Encoding = Literal["fp32", "fp16", "int8", "topk"]
"""Encoding of the updates that sites send."""


class FederationConfig(Frozen):
    """How hospitals train together; only `ganseg federate` reads it.

    The reasons for the defaults are in docs/decisions/0007-what-stays-home.md.
    """

    rounds: Count | None = None
    """Rounds in all, which the stages share by their epochs, each at least one; none: a round an epoch."""
    strategy: Literal["fedavg", "fedprox", "fedadam", "fedyogi", "fedmedian", "trimmed", "krum"] = "fedavg"
    """How the server makes one update of the sites' updates."""
    proximal_weight: NonNegative = 0.01
    """mu of fedprox: mu / 2 * |w - w_round|^2 is added to every loss."""
    server_learning_rate: Positive = 0.01
    """eta of fedadam and fedyogi."""
    server_betas: tuple[BelowOne, BelowOne] = (0.9, 0.99)
    """Decays of fedadam and fedyogi."""
    trimmed_share: Annotated[float, Field(ge=0, lt=0.5)] = 0.2
    """Share of the sites that trimmed leaves out at either end, for every weight by itself."""
    suspected_sites: Annotated[StrictInt, Field(ge=0)] = 1
    """f of krum, which needs 2 f + 3 sites and averages all but the f that lie farthest from their neighbours
    (Multi-Krum: Blanchard et al., Machine learning with adversaries, NIPS 2017)."""
    local: tuple[str, ...] | None = None
    """Networks that never leave a site; none named: as the recipe's system has it, its discriminator. [] shares all."""
    personalised: tuple[str, ...] = ()
    """Networks that are averaged, and with which each site goes on from the mean of the average and its own."""
    norm_layers: Literal["shared", "local"] = "shared"
    """Scale and shift of the normalisation layers; local keeps each site's own (FedBN)."""
    site_batch_size: Count | None = None
    """Examples of a site's step; none: train.batch_size shared out over the sites, so that as many steps are made as
    where the data are in one place."""
    weighting: Literal["slices", "cases"] = "slices"
    """What a site's update counts by."""
    largest_share: Fraction = 0.5
    """A site counts as no more than this share of all, or than an equal one where that is more."""
    quorum: Fraction = 0.5
    """Share of the sites whose updates a round needs; with fewer it is asked for again."""
    deadline_seconds: Positive = 3600.0
    """A round closes then, without the sites that have not answered."""
    firewall: bool = True
    """Leave out updates that are not finite, not of the agreed names and shapes, far too large, or of an absurd
    number of examples. Off only to show what it is for."""
    largest_norm_ratio: Annotated[float, Field(gt=1)] = 5.0
    """An update larger than this times the median of all that were accepted is left out."""
    encoding: Encoding = "fp32"
    """How updates travel; all but fp32 add what they lost to the next update (error feedback)."""
    kept_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of an update's values that topk sends."""
    fingerprint: bool = True
    """Before the first round every site tells how its patients spread over coarse bins, so that the server can warn of
    data that do not fit together; never with privacy."""
    privacy: PrivacyConfig = PrivacyConfig()
    """What the models may tell of any one hospital; off by default."""
