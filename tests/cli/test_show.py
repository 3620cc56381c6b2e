import io

from ganseg_dist.cli import show
from ganseg_dist.console import PlainConsole


def test_bar_prints_title_and_total_without_terminal(capsys):
    with show.bar("Reading") as advance:
        advance(1, 2)
        advance(2, 2)
    with show.bar("Starting Ray"):
        pass
    assert capsys.readouterr().err.splitlines() == ["Reading: 2 of 2", "Starting Ray"]


def test_bar_escapes_title_on_terminal(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(show, "err", PlainConsole(file=text, force_terminal=True, width=120, soft_wrap=True))
    with show.bar("Checking [bold]a[/x]\x1b[31m") as advance:
        advance(1, 2)
    assert r"Checking [bold]a[/x]\x1b[31m" in text.getvalue()
    assert "\x1b[31m" not in text.getvalue().replace(r"\x1b", "")
