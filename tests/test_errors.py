import pytest

from ganseg_dist.errors import ConfigError, exit_with, one_line


def test_one_line_is_first_or_last_line_of_error():
    error = RuntimeError("\n first \nmiddle\nlast\n")
    assert one_line(error) == "first"
    assert one_line(error, last=True) == "last"
    assert one_line(error, longest=3) == "fir"


def test_one_line_is_type_of_error_without_text():
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert one_line(ValueError(" \n"), last=True) == "ValueError"


def test_exit_with_prints_a_printable_line_and_exits_with_the_code(capsys):
    with pytest.raises(SystemExit) as ended:
        exit_with(ConfigError("port: \x1b[2J is none; correct it"))
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: port: ")
    assert err.endswith(" is none; correct it\n")
    assert "\x1b" not in err
