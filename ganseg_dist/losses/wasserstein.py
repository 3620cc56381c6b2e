"""WGAN-GP: the critic's distance and its gradient penalty (Gulrajani et al. 2017).

Every function takes `counts`, (B,) in [0, 1], the weight of each example. The mean is over all B examples, and one
of weight 0 contributes 0. If the sum were divided by the weights' sum instead, two workers whose halves of a batch
differ in it would average to another value than one worker with the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def critic_loss(real: Tensor, fake: Tensor, counts: Tensor) -> Tensor:
    """Eq. 3, first two terms: E[D(G(z))] - E[D(x)]; critic values (B,) of images and of generated ones."""
    return (counts * (fake.float() - real.float())).mean()


def critic_feedback_loss(fake: Tensor, counts: Tensor) -> Tensor:
    """The generator's loss: -E[D(G(z))]; critic values (B,)."""
    return -(counts * fake.float()).mean()


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor, counts: Tensor
) -> Tensor:
    """Eq. 3, last term: E[(|grad D(x^)|_2 - 1)^2] at x^ = mix * x + (1 - mix) * G(z).

    In float32 even under mixed precision: bf16 has no number between 1 and 1.0078. The critic gives (B,) values of
    (B, C, H, W), each from its own image alone; mix is (B,) in [0, 1], sampled uniformly.
    """
    share = mix.float()[:, None, None, None]
    between = (share * real.float() + (1 - share) * fake.detach().float()).requires_grad_()
    with torch.autocast(real.device.type, enabled=False):
        # The gradient of the sum holds each image's gradient, as no value depends on another image.
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    excess = slope.flatten(1).norm(dim=1) - 1
    return torch.mean(counts * excess**2)
