"""The mean of every weight without its extremes (Yin et al., Byzantine-robust distributed learning, ICML 2018)."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field

from ganseg_dist.errors import ConfigError
from ganseg_dist.federation.strategy import FlowerStrategy


class TrimmedMean(FlowerStrategy):
    """All sites that are left count alike."""

    flower_class = "FedTrimmedAvg"
    year = 2018

    trimmed_share: Annotated[float, Field(ge=0, lt=0.5)] = 0.2
    """Share of the sites that trimmed leaves out at either end, separately for every weight."""

    @property
    def details(self) -> str:
        return f"{self.trimmed_share:.0%} of the sites at either end"

    def least_answers(self) -> int:
        """The fewest of which at least one is left out at either end: floor(share n), as Flower rounds."""
        if self.trimmed_share == 0:
            raise ConfigError("federation.trimmed_share: 0 trims nothing; raise it, or take fedavg")
        fewest = max(3, math.ceil(1 / self.trimmed_share))
        return fewest if int(self.trimmed_share * fewest) else fewest + 1

    def options(self, answers: int) -> dict[str, Any]:
        return {"beta": self.trimmed_share}


STRATEGY = TrimmedMean
