"""The processes that train together: rank, size and device, and the few sums over them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors


@dataclass(frozen=True, slots=True)
class World:
    """One process alone, or one rank of a torch.distributed group. All methods are no-ops when alone."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def joined(cls, device: torch.device | str = "cpu") -> World:
        """This process's place in the initialised process group, or alone where there is none."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls(device=torch.device(device))
        return cls(dist.get_rank(), dist.get_world_size(), torch.device(device))

    @property
    def leads(self) -> bool:
        """True on rank 0, which alone writes and logs."""
        return self.rank == 0

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite every rank's tensors with rank 0's."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def average(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its mean over the ranks: one message over one flat buffer."""
        if self.size == 1 or not tensors:
            return
        flat = _flatten_dense_tensors(tensors)
        dist.all_reduce(flat)
        flat /= self.size
        for tensor, averaged in zip(tensors, _unflatten_dense_tensors(flat, tensors), strict=True):
            tensor.copy_(averaged)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor
