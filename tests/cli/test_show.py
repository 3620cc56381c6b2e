from ganseg_dist.cli import show


def test_off_a_terminal_a_bar_is_its_title_with_a_count_where_there_is_one(capsys):
    with show.bar("Reading") as advance:
        advance(1, 2)
        advance(2, 2)
    with show.bar("Starting Ray"):
        pass
    assert capsys.readouterr().err.splitlines() == ["Reading: 2 of 2", "Starting Ray"]
