"""What a site may reply with its weights or scores, in a stage of training: names, types, shapes and ranges.

Both ends use these: a site sends, and the server accepts, what the recipe defines and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

from ganseg_dist.config.federation import FederationConfig
from ganseg_dist.federation.encoding import AGREED, Shape, update_layout
from ganseg_dist.federation.message_layout import MessageLayout, Range
from ganseg_dist.federation.protocol import EXAMPLES, LARGEST_VALUE
from ganseg_dist.metrics.registry import find_score
from ganseg_dist.systems.base import Stage

FINISHED = "finished"
"""The only number of the reply to FINISH."""


def train_layout(stage: Stage, shapes: Mapping[str, Shape], federation: FederationConfig, most: float) -> MessageLayout:
    """A site's weights, of tensors of these shapes, its losses, and up to `most` examples, as many as it stated."""
    losses = dict.fromkeys(loss_names(stage), Range(-LARGEST_VALUE, LARGEST_VALUE))
    return MessageLayout(AGREED, update_layout(shapes, federation), numbers=_examples(1, most) | losses)


def evaluate_layout(stage: Stage, most: float) -> MessageLayout:
    """A site's validation scores, on up to `most` cases, as many as it stated."""
    scores = {name: _range(name) for name in stage.scores}
    return MessageLayout("version and recipe", numbers=_examples(0, most) | scores)


def finish_layout() -> MessageLayout:
    """That a site has stored its model."""
    return MessageLayout("version", numbers={FINISHED: Range(1, 1, whole=True, needed=True)})


def loss_names(stage: Stage) -> tuple[str, ...]:
    """Names of a stage's losses in messages: `stage/phase/term`."""
    return tuple(f"{stage.name}/{loss}" for loss in stage.losses)


def _examples(least: float, most: float) -> dict[str, Range]:
    return {EXAMPLES: Range(min(least, most), most, whole=True)}


def _range(score: str) -> Range:
    low, high = find_score(score).bounds
    return Range(low, min(high, LARGEST_VALUE))
