from ganseg_dist.plural import counted


def test_counted_uses_singular_and_plural():
    assert [counted(n, "case") for n in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]
    assert [counted(n, "GAN of classes", "GANs of classes") for n in (1, 2)] == [
        "1 GAN of classes",
        "2 GANs of classes",
    ]
