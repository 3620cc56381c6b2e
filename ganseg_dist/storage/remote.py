"""GANSEG_RUNS_URI: a folder on shared storage or in an object store, through pyarrow's file systems."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ganseg_dist.errors import ConfigError, one_line

VARIABLE = "GANSEG_RUNS_URI"
CHUNK_BYTES = 2**20
PYARROW_ERRORS = (OSError, ValueError, NotImplementedError)
"""The bases of what pyarrow raises: of a failing store, of an invalid path or URI, and of what a store cannot do."""


@dataclass(frozen=True, slots=True)
class RemoteFolder:
    """The folder of a URI. Every failure there raises a ConfigError that names the URI, the reason and a remedy.

    Paths are relative to the folder, with slashes.
    """

    uri: str
    files: Any
    """A `pyarrow.fs.FileSystem` of this folder alone."""

    @property
    def display_uri(self) -> str:
        """The URI for messages: without credentials and without options."""
        parts = urlsplit(self.uri)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl().rstrip("/")

    @property
    def identity(self) -> str:
        """An id for files: `display_uri` with a digest that distinguishes other credentials and options."""
        return f"{self.display_uri}#{hashlib.sha256(self.uri.encode()).hexdigest()[:16]}"

    def probe(self) -> None:
        """Write and delete a small object in the same way as all others, to find errors early."""
        folder = f".probe-{uuid.uuid4().hex}"
        self.replace(f"{folder}/probe", b"ganseg")
        self.delete_folder(folder)

    def read(self, path: str) -> bytes | None:
        """A small object's content; None if it does not exist."""
        try:
            return b"".join(self._chunks(path))
        except FileNotFoundError:
            return None

    def replace(self, path: str, content: bytes) -> None:
        """Replace a small object atomically: a reader sees either the old one or the new one."""
        temporary = f"{path}.{uuid.uuid4().hex}"
        with self._trying("written"):
            self._make_parent(path)
            with self.files.open_output_stream(temporary) as stream:
                stream.write(content)
            self.files.move(temporary, path)

    def send(self, file: Path, path: str) -> str:
        """Copy a file to `path`; returns the SHA-256 of the sent bytes."""
        digest = hashlib.sha256()
        with file.open("rb") as source, self._trying("written"):
            self._make_parent(path)
            with self.files.open_output_stream(path) as stream:
                while chunk := source.read(CHUNK_BYTES):
                    digest.update(chunk)
                    stream.write(chunk)
        return digest.hexdigest()

    def fetch(self, path: str, file: Path) -> str | None:
        """Copy an object into a file; returns the SHA-256 of the received bytes, or None if it does not exist."""
        digest = hashlib.sha256()
        try:
            with file.open("wb") as target:
                for chunk in self._chunks(path):
                    digest.update(chunk)
                    target.write(chunk)
        except FileNotFoundError:
            return None
        return digest.hexdigest()

    def _chunks(self, path: str) -> Iterator[bytes]:
        """An object's bytes. Errors of the consumer, such as a full local disk, are not reported as the URI's."""
        with self._trying("read"):
            self._check_regular(path)
        with self._trying("read"), self.files.open_input_stream(path) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk

    def _check_regular(self, path: str) -> None:
        """Raises OSError for a pipe or device on a shared folder, which would block; FileNotFoundError for no file."""
        if urlsplit(self.uri).scheme == "file" and self.files.get_file_info(path).type.name == "Unknown":
            raise OSError(f"{path} is not a regular file")

    def list_files(self, folder: str) -> list[str]:
        """Paths of all files below a folder; empty if it does not exist."""
        from pyarrow.fs import FileSelector, FileType

        with self._trying("read"):
            infos = self.files.get_file_info(FileSelector(folder, recursive=True, allow_not_found=True))
        return [info.path for info in infos if info.type == FileType.File]

    def delete_file(self, path: str) -> None:
        """Delete one object."""
        with self._trying("written"):
            self.files.delete_file(path)

    def delete_folder(self, path: str) -> None:
        """Delete a folder and everything below it."""
        with self._trying("written"):
            self.files.delete_dir(path)

    def _make_parent(self, path: str) -> None:
        """Create parent folders on a file system; in an object store each would be an empty object."""
        if urlsplit(self.uri).scheme == "file":
            self.files.create_dir(path.rpartition("/")[0], recursive=True)

    @contextmanager
    def _trying(self, done: str) -> Iterator[None]:
        """Turn pyarrow's errors into a ConfigError, but for the FileNotFoundError of a read, which readers handle."""
        try:
            yield
        except PYARROW_ERRORS as error:
            missing = isinstance(error, FileNotFoundError)
            if missing and done == "read":
                raise
            raise ConfigError(
                f"{VARIABLE} {self.display_uri}: cannot be {done} ({'no such folder' if missing else _reason(error)}); "
                f"correct the URI, its credentials or its permissions, or unset {VARIABLE}"
            ) from None


def remote_folder() -> RemoteFolder | None:
    """The URI of the runs' copies; None without GANSEG_RUNS_URI. Raises ConfigError for an unusable URI."""
    uri = os.environ.get(VARIABLE)
    if not uri:
        return None
    return _open(Path(uri).as_uri() if uri.startswith("/") else uri)


@lru_cache(maxsize=4)
def _open(uri: str) -> RemoteFolder:
    """Cached, as opening looks up a bucket's region by a request."""
    from pyarrow.fs import FileSystem, SubTreeFileSystem

    example = "give one such as s3://bucket/runs or file:///shared/runs"
    shown = RemoteFolder(uri, None).display_uri
    try:
        files, base = FileSystem.from_uri(uri)
    except PYARROW_ERRORS as error:
        raise ConfigError(f"{VARIABLE} {shown}: cannot be used ({_reason(error)}); {example}") from None
    if not base.strip("/"):
        raise ConfigError(f"{VARIABLE} {shown}: names no folder; {example}")
    return RemoteFolder(uri, SubTreeFileSystem(base, files))


def _reason(error: BaseException) -> str:
    """An error's text, shortened: `AWS Error NO_SUCH_BUCKET during ...: The specified bucket does not exist`."""
    text = re.sub(r"^.*?(?=AWS Error)", "", one_line(error, longest=1000))
    return re.sub(r" \(Request ID: .*?\)", "", text)[:300]
