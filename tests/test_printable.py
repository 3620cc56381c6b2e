import pytest

from ganseg_dist.printable import printable, printable_lines, printable_log


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("one\ntwo\r\nthree\ttab", r"one\ntwo\r\nthree\ttab"),
        ("\x9b31m", r"\x9b31m"),
        ("nul\x00", r"nul\x00"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2066isolated\u2069", r"\u2066isolated\u2069"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("a\u200db", r"a\u200db"),
        ("end\u2028of line", r"end\u2028of line"),
        ("not UTF-8: \udcff", r"not UTF-8: \udcff"),
        ("tag \U000e0041", r"tag \U000e0041"),
    ],
)
def test_printable_escapes_control_and_format_characters(text, shown):
    assert printable(text) == shown
    shown.encode("utf-8")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Spital Ü",
        "東京　大学",
        "مستشفى",
        "می‌خواهم",
        "😀 👩‍⚕️ 🏴‍☠️",
        "e\u0301 combined",
        "no\u00a0break",
        "[bold] $x$ \\x1b % {} <b> `a`",
    ],
)
def test_printable_keeps_text_of_any_script(text):
    assert printable(text) == text


def test_printable_lines_keeps_line_breaks():
    assert printable_lines("one\ntwo\x1b\n") == "one\ntwo\\x1b\n"


def test_printable_log_removes_colours_and_keeps_lines_and_tabs():
    assert printable_log("\x1b[36m(worker)\x1b[0m a\tb\r\n10%\r20%\n\x1b[2J") == "(worker) a\tb\n10%\n20%\n\\x1b[2J"
