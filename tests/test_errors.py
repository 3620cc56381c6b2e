from ganseg_dist.errors import one_line


def test_one_line_is_first_or_last_line_of_error():
    error = RuntimeError("\n first \nmiddle\nlast\n")
    assert one_line(error) == "first"
    assert one_line(error, last=True) == "last"
    assert one_line(error, longest=3) == "fir"


def test_one_line_is_type_of_error_without_text():
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert one_line(ValueError(" \n"), last=True) == "ValueError"
