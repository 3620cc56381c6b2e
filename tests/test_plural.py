from ganseg_dist.plural import counted, duration


def test_counted_uses_singular_and_plural():
    assert [counted(n, "case") for n in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]
    assert [counted(n, "GAN of classes", "GANs of classes") for n in (1, 2)] == [
        "1 GAN of classes",
        "2 GANs of classes",
    ]


def test_duration_shows_two_largest_units():
    assert [duration(seconds) for seconds in (-3, 12.4, 75, 4921)] == ["0 s", "12 s", "1 min 15 s", "1 h 22 min"]
