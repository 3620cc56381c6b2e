"""Reading a damaged file gives a one-line error or the right value; never a traceback, a hang or a lost file."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from ganseg_dist.errors import GansegError
from tests.fuzz.damage import damage
from tests.fuzz.targets import TARGETS, Outcome, Target

MANY = 600
SECONDS = 20
"""Seconds after which a read counts as hanging."""


class Hang(BaseException):
    """A read exceeds its time limit."""


@contextmanager
def ending() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each target's undamaged folder and the value that it reads to."""

    @cache
    def build(target: Target) -> tuple[Path, Outcome]:
        root = tmp_path_factory.mktemp("built") / "root"
        root.mkdir()
        target.build(root)
        copy = shutil.copytree(root, root.with_name("read"))  # reading may write beside
        return root, target.read(copy)

    return build


def assert_damage_is_noticed_or_harmless(
    target: Target, pristine: Path, before: Outcome, folder: Path, seed: int
) -> None:
    """Damage one file and read: an error of one line, or what was there before where any damage must be noticed."""
    rng = np.random.default_rng([seed, *target.name.encode()])
    root = folder / "root"
    shutil.copytree(pristine, root, copy_function=os.link)
    files = sorted(file for file in root.glob(target.damaged) if file.is_file())
    file = files[rng.integers(len(files))]
    inodes = {other: _inode(other) for other in root.rglob("*") if other.is_file() and other != file}
    what = f"seed {seed}: {damage(file, rng)}"
    after, problem = _read(target, root, what)
    if problem is not None:
        assert problem.strip(), what
        assert "\n" not in problem, what
        assert "Traceback" not in problem, what
    elif target.is_checked(file) and after.warnings == before.warnings:
        assert after == before, f"{what}: not noticed"
    # What the product made can be made again; files elsewhere are the user's.
    lost = [other.name for other, inode in inodes.items() if other.parent != file.parent and _inode(other) != inode]
    assert not lost, f"{what}: {lost} lost or written again"


def _read(target: Target, root: Path, what: str) -> tuple[Outcome, str | None]:
    """The value read, or the error's line."""
    try:
        with ending():
            return target.read(root), None
    except GansegError as error:
        return Outcome(None), str(error)
    except Hang:
        pytest.fail(f"{what}: hangs")
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error


def _inode(file: Path) -> int | None:
    return file.stat().st_ino if file.exists() else None


def run_many(target: Target, built: Any, tmp_path: Path, seeds: range) -> None:
    pristine, before = built(target)
    for seed in seeds:
        folder = tmp_path / str(seed)
        folder.mkdir()
        assert_damage_is_noticed_or_harmless(target, pristine, before, folder, seed)
        shutil.rmtree(folder)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damaged_file_gives_one_line_error_or_no_effect(target, built, tmp_path):
    run_many(target, built, tmp_path, range(target.few))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_many_damages_of_file_give_one_line_error_or_no_effect(target, built, tmp_path):
    run_many(target, built, tmp_path, range(target.few, target.few + MANY))
