"""Real processes of a test, each with its log, all of them ended when the test is over."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

GRACE_SECONDS = 5.0


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@dataclass(frozen=True)
class Running:
    """One process."""

    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, words: str, *, seconds: float, times: int = 1) -> None:
        """Until its log holds the words; fails with the log when it ends before or takes too long."""
        end = time.monotonic() + seconds
        while self.output().count(words) < times:
            ended = self.process.poll() is not None
            assert not ended or self.output().count(words) >= times, f"ended without {words!r}:\n{self.output()}"
            assert time.monotonic() < end, f"no {words!r} in {seconds} s:\n{self.output()}"
            time.sleep(0.1)

    def kill(self) -> None:
        """As a power cut: it and all that it started, at once."""
        everything = self.family()
        for one in everything:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # children whose parent had ended before
        psutil.wait_procs(everything, timeout=GRACE_SECONDS)
        self.process.wait()

    def family(self) -> list[psutil.Process]:
        try:
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


@dataclass
class Processes:
    """Starts them with one environment."""

    folder: Path
    environment: Mapping[str, str]
    started: list[Running] = field(default_factory=list)

    def start(self, name: str, *words: object) -> Running:
        log = self.folder / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [str(word) for word in words],
                cwd=self.folder, env=dict(self.environment), stdout=file, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        self.started.append(Running(process, log))
        return self.started[-1]

    def run(self, *words: object, seconds: float) -> str:
        """To its end, which must be a good one; its standard output."""
        done = subprocess.run(
            [str(word) for word in words],
            cwd=self.folder, env=dict(self.environment), capture_output=True, text=True, timeout=seconds,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextmanager
def processes(folder: Path, **environment: str) -> Iterator[Processes]:
    """Ends whatever is still running, children and all, however the test ends."""
    group = Processes(folder, {**os.environ, **environment})
    try:
        yield group
    finally:
        everything = [one for running in group.started for one in running.family()]
        for running in group.started:
            running.kill()
        _, alive = psutil.wait_procs(everything, timeout=GRACE_SECONDS)
        assert not alive, alive
