"""Every command of every guide page runs, prints the shown output and leaves the listed files."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cluster.ray_head import OURS
from tests.guide.pages import GUIDE, ROOT, Page, pages, pattern

BIN = Path(sys.executable).parent
MARK = "::: block "
RUN = [page for page in pages() if any(block.kind == "sh" for block in page.blocks)]


@pytest.fixture
def folder():
    """An empty folder with a short path, as Ray's sockets may lie in it."""
    made = Path(tempfile.mkdtemp(prefix="guide-", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def environment() -> dict[str, str]:
    """Environment of a reader who has activated the virtual environment and set GANSEG to the repository."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return plain | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "GANSEG": str(ROOT), "COLUMNS": "200"}


def run(page: Page, folder: Path) -> list[str]:
    """Run all commands of the page in one bash; returns the output of each block, from index 1."""
    blocks = [block.text for block in page.blocks if block.kind == "sh"]
    script = folder.with_suffix(".sh")
    script.write_text("set -euo pipefail\n" + "".join(f"echo '{MARK}'\n{text}" for text in blocks))
    log = folder.with_suffix(".log")
    try:
        with log.open("w") as written:
            shell = subprocess.Popen(
                ["bash", script], cwd=folder, env=environment(), stdout=written, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
            try:
                code = shell.wait(timeout=1500)
            finally:
                with suppress(ProcessLookupError):  # what a page that failed has left running
                    os.killpg(shell.pid, signal.SIGTERM)
        printed = log.read_text(errors="replace")
        assert code == 0, printed[-5000:]
        return printed.split(f"{MARK}\n")
    finally:
        script.unlink()
        log.unlink()


@pytest.mark.slow
@pytest.mark.timeout(1600)
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.path.stem)
def test_guide_commands_print_shown_output_and_leave_files(page, folder):
    printed = run(page, folder)
    for block in page.blocks:
        if block.kind == "text":
            for line in block.lines:
                assert pattern(line).search(printed[block.commands]), f"not printed: {line}\n{printed[block.commands]}"
    for file in page.files:
        assert list(folder.glob(file)), f"{file} is not there"


# What is fast.


def test_guide_index_links_to_every_page():
    index = (GUIDE / "README.md").read_text()
    assert [page.path.name for page in pages() if f"({page.path.name})" not in index] == ["README.md"]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.path.stem)
def test_guide_output_blocks_follow_commands(page):
    kinds = [block.kind for block in page.blocks]
    assert set(kinds) <= {"sh", "text", "console"}
    for before, kind in zip(["", *kinds], kinds, strict=False):
        assert kind != "text" or before == "sh", "output follows its command"


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.path.stem)
def test_guide_page_with_commands_shows_output_and_lists_files(page):
    assert any(block.kind == "text" for block in page.blocks)
    assert page.files


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.path.stem)
def test_guide_links_resolve(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.prose):
        assert target.startswith("https://") or (page.path.parent / target).exists(), target


@pytest.mark.parametrize(
    ("shown", "printed", "agrees"),
    [
        ("finished: ...", "finished: /tmp/x/runs/first", True),
        ("segment epoch 3/12  dice_wt 0.53", "segment epoch 3/12   dice_wt 0.611", True),
        ("first  0.812 [0.7, 0.9]  - ...", "first 0.5 [0.1, 0.77] - 12", True),
        ("finished: ...", "ended: /tmp/x", False),
        ("12 cases", "twelve cases", False),
        ("no errors", "2 errors", False),
        ("code 2", "error: no\ncode 2", True),
        ("code 2", "code 1", False),
        ("code 1", "code 130", False),
    ],
)
def test_pattern_matches_other_numbers_but_not_other_text(shown, printed, agrees):
    assert bool(pattern(shown).search(printed)) is agrees
