import pytest
import torch

from ganseg_dist.losses.wasserstein import critic_feedback_loss, critic_loss, gradient_penalty

ALL = torch.ones(2)


def linear_critic(slopes):
    """A critic that is linear with these slopes, one per pixel."""
    return lambda image: (image * slopes).flatten(1).sum(1)


def quadratic_critic(image):
    """A critic whose gradient at x is x."""
    return (image**2).flatten(1).sum(1) / 2


def test_critic_loss_rewards_real_above_fake():
    real, fake = torch.tensor([3.0, 1.0]), torch.tensor([1.0, -2.0])
    assert critic_loss(real, fake, ALL).item() == pytest.approx(-(2 + 3) / 2)
    assert critic_feedback_loss(fake, ALL).item() == pytest.approx((-1 + 2) / 2)


def test_wasserstein_losses_count_ignored_examples_as_zero():
    real, fake, first = torch.tensor([3.0, 1.0]), torch.tensor([1.0, -2.0]), torch.tensor([1.0, 0.0])
    assert critic_loss(real, fake, first).item() == pytest.approx(-2 / 2)
    assert critic_feedback_loss(fake, first).item() == pytest.approx(-1 / 2)
    images = torch.zeros(2, 1, 1, 2)
    slopes = torch.tensor([3.0, 4.0])
    assert gradient_penalty(linear_critic(slopes), images, images, ALL, first).item() == pytest.approx(16 / 2)


def test_gradient_penalty_is_squared_excess_of_gradient_norm():
    images = torch.randn(2, 1, 1, 2)
    for slopes, expected in (((3.0, 4.0), 16.0), ((0.6, 0.8), 0.0), ((0.0, 0.5), 0.25)):
        found = gradient_penalty(linear_critic(torch.tensor(slopes)), images, -images, torch.rand(2), ALL)
        assert found.item() == pytest.approx(expected, abs=1e-6)


def test_gradient_penalty_interpolates_by_share_per_example():
    """x = (6, 8) and G(z) = 0: at shares 1 and 0.2 the quadratic critic's gradient has norms 10 and 2."""
    real, fake = torch.tensor([6.0, 8.0]).expand(2, 1, 1, 2), torch.zeros(2, 1, 1, 2)
    found = gradient_penalty(quadratic_critic, real, fake, torch.tensor([1.0, 0.2]), ALL)
    assert found.item() == pytest.approx((81 + 1) / 2)


def test_gradient_penalty_gradient_reaches_critic_only():
    slopes = torch.tensor([3.0, 4.0], requires_grad=True)
    fake = torch.zeros(2, 1, 1, 2, requires_grad=True)
    gradient_penalty(linear_critic(slopes), torch.ones(2, 1, 1, 2), fake, torch.rand(2), ALL).backward()
    # d (|s| - 1)^2 / ds = 2 (|s| - 1) s / |s|
    assert slopes.grad.tolist() == pytest.approx([2 * 4 * 0.6, 2 * 4 * 0.8])
    assert fake.grad is None


def test_gradient_penalty_has_finite_gradient_for_flat_critic():
    slopes = torch.zeros(2, requires_grad=True)
    images = torch.ones(2, 1, 1, 2)
    penalty = gradient_penalty(linear_critic(slopes), images, images, torch.rand(2), ALL)
    penalty.backward()
    assert penalty.item() == 1
    assert torch.isfinite(slopes.grad).all()


def test_gradient_penalty_stays_in_float32_under_autocast():
    critic = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False), torch.nn.Flatten(0))
    images = torch.ones(2, 1, 1, 2)

    def penalty():
        return gradient_penalty(lambda image: critic(image.flatten(1)), images, images, torch.rand(2), ALL)

    with torch.no_grad():
        critic[0].weight.copy_(torch.tensor([[1.001, 0.0]]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert penalty().item() == pytest.approx(1e-6, rel=1e-2)  # in bf16 1.001 is 1
