"""The batch of a training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

BACKGROUND = -1.0
"""Intensity of everything outside the foreground, exactly; prepared images lie in [-1, 1]."""
DARKEST = BACKGROUND + 1e-3
"""Lowest intensity of tissue: only background is exactly -1."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples with their truth and the random parameters that were sampled for each."""

    image: Tensor
    """(B, C, H, W) float32 in [-1, 1], background exactly -1."""
    regions: Tensor
    """(B, R, H, W) float32 in {0, 1}; R is 0 without masks."""
    case: Tensor
    """(B,) int64, index of each example's case."""
    label: Tensor
    """(B,) int64, index of each example's class; -1 where the class is unknown."""
    samples: Mapping[str, Tensor] = field(default_factory=dict)
    """Random parameters, (B, ...) each, keyed by seed, epoch and example."""

    @property
    def foreground(self) -> Tensor:
        """(B, 1, H, W) bool: pixels where any channel is not background."""
        return (self.image > BACKGROUND).any(dim=1, keepdim=True)

    def to(self, device: torch.device, *, channels_last: bool = False) -> Batch:
        """The batch on a device; asynchronous from pinned memory."""
        batch = self._map(lambda part: part.to(device, non_blocking=True))
        if not channels_last:
            return batch
        return replace(batch, image=batch.image.contiguous(memory_format=torch.channels_last))

    def of(self, rows: Tensor) -> Batch:
        """The examples at these rows, (n,) int64 or (B,) bool."""
        return self._map(lambda part: part[rows])

    def pin(self) -> Batch:
        """The batch in page-locked memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        samples = {name: change(value) for name, value in self.samples.items()}
        return Batch(change(self.image), change(self.regions), change(self.case), change(self.label), samples)
