"""The hospital's record of every message that it sends, flushed to the disk before the message leaves."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ganseg_dist.atomic import write_error
from ganseg_dist.errors import GansegError, RunError
from ganseg_dist.federation import egress_manifest

LONGEST_WAIT_SECONDS = 60.0
"""That a process waits for another one that is writing a line, which takes milliseconds."""
OWNERS_ONLY = 0o600


class EgressManifest:
    """The file that `ganseg audit` verifies; `ganseg_dist.federation.egress_manifest` describes its format.

    It holds the kind of each message and the digests of its tensors: no values of tensors, no path, no patient.
    Any number of processes may write to one file.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file; a half-written last line, left by a power cut, is moved into `path`.half.

        Raises RunError when the last line is not as it was written, GansegError when the disk cannot be written.
        """
        self.path = path
        with self._locked():
            pass

    def record(self, content: egress_manifest.Content) -> egress_manifest.Entry:
        """Write a message's line; send the message after this has returned, and not when it raises.

        A kill in between leaves a line whose message was not sent, never a message without its line.

        Raises RunError when the last line is not as it was written, GansegError when the disk cannot be written.
        """
        with self._locked() as (descriptor, last):
            before = egress_manifest.digest(last.removesuffix(b"\n")) if last else egress_manifest.START
            entry = egress_manifest.seal(content, before)
            ending = b"\n" if last and not last.endswith(b"\n") else b""
            _append(descriptor, ending + egress_manifest.to_line(entry) + b"\n")
        return entry

    @contextmanager
    def _locked(self) -> Iterator[tuple[int, bytes]]:
        """The file's descriptor and its verified last line, while this process holds the file's lock."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock", timeout=LONGEST_WAIT_SECONDS, mode=OWNERS_ONLY):
                is_new = not self.path.exists()
                descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, OWNERS_ONLY)
                try:
                    os.fchmod(descriptor, OWNERS_ONLY)  # a copied file may have another mode
                    if is_new:
                        _flush_folder(self.path.parent)
                    yield descriptor, self._last_line(descriptor)
                finally:
                    os.close(descriptor)
        except Timeout:
            raise GansegError(f"{self.path}: another process has been writing to it for a minute; end it") from None
        except OSError as error:
            raise write_error(self.path, error) from None

    def _last_line(self, descriptor: int) -> bytes:
        """The last line as it stands, verified; empty for an empty file."""
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            start, last = egress_manifest.last_line(file)
            while last and egress_manifest.is_unfinished(last):
                self._set_aside(last)
                os.ftruncate(descriptor, start)
                os.fsync(descriptor)
                start, last = egress_manifest.last_line(file)
        if last:
            self._verify(last.removesuffix(b"\n"))
        return last

    def _verify(self, last: bytes) -> None:
        try:
            intact = egress_manifest.is_intact(egress_manifest.read(last), last)
        except ValueError:
            intact = False
        if not intact:
            raise RunError(
                f"{self.path}: its last line was altered, and nothing is sent; see ganseg audit {self.path}, keep the "
                f"file as evidence, and move it away to begin another"
            )

    def _set_aside(self, half: bytes) -> None:
        target = os.open(f"{self.path}.half", os.O_WRONLY | os.O_APPEND | os.O_CREAT, OWNERS_ONLY)
        try:
            _append(target, half.removesuffix(b"\n") + b"\n")
        finally:
            os.close(target)


def _append(descriptor: int, line: bytes) -> None:
    """Append in one write and flush to the disk; if that fails, the file is restored to its earlier size."""
    size = os.fstat(descriptor).st_size
    try:
        if os.write(descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    except BaseException:
        with suppress(OSError):  # a half line then remains, which the next opening moves aside
            os.ftruncate(descriptor, size)
        raise


def _flush_folder(folder: Path) -> None:
    """Flush a new file's directory entry, so that it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
