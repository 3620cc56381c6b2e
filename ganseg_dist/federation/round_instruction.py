"""The server's instruction to a site, and the numbers of a site's reply; weights travel beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from ganseg_dist.config import RunConfig
from ganseg_dist.errors import FederationError
from ganseg_dist.files import parse_json
from ganseg_dist.names import RunName, is_name


@dataclass(frozen=True, slots=True)
class RoundInstruction:
    """Instruction to train some epochs of a stage, or to score the weights that come with it."""

    run: str
    """The federation's name: a site keeps one state for each."""
    round: int
    stage: int
    first: int
    """Epoch of the stage at which the round begins."""
    until: int
    """Epoch of the stage before which it ends."""
    best: bool = False
    """Whether the weights of the round before were the stage's best so far: a site then remembers its own networks of
    that round."""
    config: str = ""
    """The run's resolved config, as JSON."""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> RoundInstruction:
        """The inverse of `to_json`. Raises FederationError for text that is no valid instruction."""
        try:
            fields = parse_json(text)
            instruction = cls(**fields)
            numbers = [instruction.round, instruction.stage, instruction.first, instruction.until]
            if not all(type(number) is int and number >= 0 for number in numbers):
                raise ValueError
            if not is_name(instruction.run, RunName):  # a site names a folder by it
                raise ValueError
        except (TypeError, ValueError):
            raise FederationError("order: is not one of this version; both ends must run the same") from None
        return instruction

    @property
    def settings(self) -> RunConfig:
        """The config that both ends train by."""
        return RunConfig.from_json(self.config, "the server's config")


@dataclass(frozen=True, slots=True)
class Scores:
    """A site's numbers beside the weights, under names that the recipe defines."""

    examples: float
    """Slices or cases, by `federation.weighting`."""
    values: Mapping[str, float]
    """Losses of the last epoch after training, validation scores after scoring."""
