import torch

from ganseg_dist.systems.ganet_seg.networks import InpaintingGenerator, smooth_fill


def test_smooth_fill_restores_flat_image():
    image = torch.full((1, 2, 16, 16), 0.3)
    known = torch.ones(1, 1, 16, 16)
    known[..., 4:9, 5:11] = 0
    assert torch.allclose(smooth_fill(image * known, known), image, atol=1e-3)


def test_smooth_fill_keeps_known_pixels():
    image = torch.randn(2, 3, 16, 16).clamp(-1, 1)
    known = (torch.rand(2, 1, 16, 16) > 0.5).float()
    filled = smooth_fill(image * known, known)
    where = known.bool().expand_as(image)
    assert torch.equal(filled[where], image[where])


def test_smooth_fill_without_known_pixels_is_zero():
    assert (smooth_fill(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)) == 0).all()


def test_inpainting_generator_is_bounded_with_finite_gradients():
    network = InpaintingGenerator(2, (4, 8))
    image = torch.where(torch.rand(2, 2, 16, 16) > 0.5, 1.0, -1.0)
    mask = torch.zeros(2, 1, 16, 16)
    mask[..., 4:8, 4:8] = 1
    mask.requires_grad_()
    out = network(image * (1 - mask), mask)
    assert out.shape == image.shape
    assert out.abs().max() <= 1
    out.sum().backward()
    assert torch.isfinite(mask.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
