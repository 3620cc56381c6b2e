"""A head node of Ray's for as long as a test needs it, that meets no other Ray of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.deploy.processes import free_port

BIN = Path(sys.executable).parent
OURS = ("GANSEG_", "MLFLOW_", "RAY_")


def stock_environment() -> dict[str, str]:
    """Of a cluster that nobody told anything of ganseg."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return plain | {"PATH": f"{BIN}:{os.environ['PATH']}", "RAY_AUTH_MODE": "disabled"}


@contextmanager
def ray_head() -> Iterator[str]:
    """The address of its dashboard; two CPUs."""
    folder = Path(
        tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    )  # short: Ray's sockets lie in it, whose paths are limited
    try:
        process, address = _started(folder)
        try:
            yield address
        finally:
            process.terminate()
            process.wait(timeout=60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _started(folder: Path, attempts: int = 3) -> tuple[subprocess.Popen[bytes], str]:
    """A head that takes jobs. Ray gives its own processes 30 s to start, which a busy machine may not keep."""
    port, log = free_port(), folder / "head.log"
    command = [
        str(BIN / "ray"), "start", "--head", "--block", f"--port={free_port()}", f"--dashboard-port={port}",
        f"--dashboard-agent-listen-port={free_port()}", "--num-cpus=2", f"--temp-dir={folder}",
        "--disable-usage-stats",
    ]  # fmt: skip
    with log.open("w") as written:
        process = subprocess.Popen(command, env=stock_environment(), stdout=written, stderr=subprocess.STDOUT)
    while "Ray runtime started" not in log.read_text():
        if process.poll() is not None:
            assert attempts > 1, log.read_text()
            return _started(folder, attempts - 1)
        time.sleep(0.5)
    return process, f"http://127.0.0.1:{port}"
