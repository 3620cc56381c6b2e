"""Hostile names from files on a terminal, in a page, in a table and in a figure."""

import json
import os
import pty
import subprocess
import sys
import unicodedata

import pytest

from ganseg_dist.cli import show
from tests.cli.conftest import untrained_run
from tests.data.cohorts import read_rows, save_picture, slice_of_head, write_rows

EMPTY = "d\x85error: forged"
"""The case without a lesion. `\\x85` begins a line on a terminal, as `\\u2028` does in a page; no cell holds `\\n`."""
ORDINARY = "Spital Ü 東京 😀"
HOSTILE = {
    "\x1b[31mRED\x1b[0m": r"\x1b[31mRED\x1b[0m",
    "[bold]b": "[bold]b",
    "c[/]x": "c[/]x",
    EMPTY: r"d\x85error: forged",
    r"$\foo$": r"$\foo$",
    "f$unmatched": "f$unmatched",
    "g\x0bover": r"g\x0bover",
    "h\u202etxt": r"h\u202etxt",
    "=1+1": "=1+1",
    ORDINARY: ORDINARY,
}
SITES = ("\x1b]0;title\x07", "[/red] $\\frac$\u2028Ward")


@pytest.fixture
def hostile(tmp_path):
    """A cohort of pictures with hostile names of cases, patients and sites."""
    rows = []
    for number, name in enumerate(HOSTILE):
        picture = slice_of_head(number)
        save_picture(tmp_path / f"{number}.png", picture)
        save_picture(tmp_path / f"{number}_mask.png", (picture > 150) & (name != EMPTY))
        files = {"grey": f"{number}.png", "mask": f"{number}_mask.png"}
        rows.append({"case": name, "patient": name, "site": SITES[number % 2]} | files)
    return write_rows(tmp_path / "list.csv", rows)


def assert_plain(text):
    obeyed = {character for character in text if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp")}
    assert obeyed <= {"\n"}, text


def test_check_escapes_hostile_names_in_text_and_keeps_them_in_json(ganseg, hostile):
    checked = ganseg("check", hostile, "--recipe", "gan_osmosis_debug")
    assert checked.code == 0, checked
    assert_plain(checked.out + checked.err)
    (empty,) = [line for line in checked.out.splitlines() if "the mask is empty" in line]
    assert empty.startswith(r"warning: d\x85error: forged: ")
    assert not [line for line in checked.out.splitlines() if line.startswith("error: ")]
    found = json.loads(ganseg("check", hostile, "--json").out)
    assert found["sites"] == sorted(SITES)
    assert EMPTY in {finding["case"] for finding in found["findings"]}


def test_error_message_escapes_hostile_names_in_one_line(ganseg, hostile, tmp_path):
    (tmp_path / "0.png").unlink()
    result = ganseg("train", "gan_osmosis_debug", "--data", hostile, "--local")
    assert result.code == 1
    assert_plain(result.err)
    assert result.errors == [result.err.splitlines()[-1]]
    assert r"\x1b[31mRED\x1b[0m" in result.errors[0]
    missing = ganseg("check", tmp_path / "\x1b[31mnone\udcff")
    assert missing.errors == [f"error: {tmp_path}/\\x1b[31mnone\\udcff: no such file or folder; give the folder that "
                              "holds the cohort, or a CSV manifest"]  # fmt: skip


def test_evaluate_report_and_predict_accept_hostile_names(ganseg, hostile, tmp_path):
    run = untrained_run("gan_osmosis_debug", hostile, tmp_path)
    scored = ganseg("evaluate", "pictures", "--data", hostile)
    assert scored.code == 0, scored.err
    tested = {row["patient"] for row in read_rows(run.evaluation("test") / "cases.csv")}
    assert tested == set(run.split().test)
    reported = ganseg("report", "pictures")
    assert reported.code == 0, reported.err
    page = (run.folder / "report.html").read_text()
    assert_plain(page)
    assert all(shown in page for shown in (r"\x1b]0;title\x07", r"[/red] $\frac$"))
    predicted = ganseg("predict", "pictures", hostile, "--out", tmp_path / "masks", "--overlays")
    assert_plain(predicted.out + predicted.err)
    assert "Glyph" not in predicted.err
    assert len(list((tmp_path / "masks").glob("*_overlay.png"))) == len(HOSTILE), predicted


@pytest.mark.slow
def test_check_escapes_control_sequences_on_terminal(hostile, tmp_path):
    folder = tmp_path / "[bold]\x1b[31mRED"
    folder.mkdir()
    for file in (*tmp_path.glob("*.png"), hostile):
        file.rename(folder / file.name)
    data = folder / hostile.name
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ganseg_dist", "check", str(data)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        text = b"".join(iter(lambda: read(ours), b"")).decode()
        assert process.wait(120) == 0, text
    assert "\x1b[31mRED" not in text
    assert "\x1b]0;" not in text
    assert r"[bold]\x1b[31mRED" in text
    assert r"warning: d\x85error: forged: " in text


def read(descriptor):
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # Linux's error when the other end is closed
        return b""


def test_table_escapes_hostile_names(capsys, monkeypatch):
    show.table(SITES[1], ["arm", SITES[0]], [[name, "0.5"] for name in HOSTILE])
    output = capsys.readouterr().out
    assert_plain(output)
    assert all(shown in output for shown in HOSTILE.values())
    assert len(output.splitlines()) == len(HOSTILE) + 2
