"""GANSEG_RUNS_URI: a folder on shared storage or in an object store, wherever pyarrow's file systems reach."""

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

from ganseg_dist.errors import ConfigError

VARIABLE = "GANSEG_RUNS_URI"
CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Address:
    """The opened place. Whatever fails there raises a ConfigError that names it, why, and what to do.

    Paths are relative to it, with slashes.
    """

    uri: str
    files: Any
    """A `pyarrow.fs.FileSystem` of this place alone."""

    @property
    def shown(self) -> str:
        """The URI as it may be printed: without a key's secret and without options."""
        parts = urlsplit(self.uri)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl().rstrip("/")

    @property
    def identity(self) -> str:
        """As it may be written down: tells addresses apart that differ in what is not shown."""
        return f"{self.shown}#{hashlib.sha256(self.uri.encode()).hexdigest()[:16]}"

    def probe(self) -> None:
        """Write and delete a small object, as all the others will be."""
        folder = f".probe-{uuid.uuid4().hex}"
        self.replace(f"{folder}/probe", b"ganseg")
        self.delete_folder(folder)

    def read(self, path: str) -> bytes | None:
        """A small object; none where there is no such one."""
        try:
            return b"".join(self._chunks(path))
        except FileNotFoundError:
            return None

    def replace(self, path: str, content: bytes) -> None:
        """Put a small object in the place of another in one step: who reads meanwhile sees the one or the other."""
        beside = f"{path}.{uuid.uuid4().hex}"
        with self._trying("written"):
            self._make_parent(path)
            with self.files.open_output_stream(beside) as stream:
                stream.write(content)
            self.files.move(beside, path)

    def send(self, file: Path, path: str) -> str:
        """Copy a file there; the SHA-256 of what was sent."""
        digest = hashlib.sha256()
        with file.open("rb") as source, self._trying("written"):
            self._make_parent(path)
            with self.files.open_output_stream(path) as stream:
                while chunk := source.read(CHUNK_BYTES):
                    digest.update(chunk)
                    stream.write(chunk)
        return digest.hexdigest()

    def fetch(self, path: str, file: Path) -> str | None:
        """Copy an object here; the SHA-256 of what came, or none where there is no such object."""
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
        """What a reader does with them, such as filling its own disk, is no failure of the place."""
        with self._trying("read"):
            self._check_regular(path)
        with self._trying("read"), self.files.open_input_stream(path) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk

    def _check_regular(self, path: str) -> None:
        """Raises OSError for a pipe or device on a shared folder, which would be waited for; FileNotFoundError."""
        if urlsplit(self.uri).scheme == "file" and self.files.get_file_info(path).type.name == "Unknown":
            raise OSError(f"{path} is not a regular file")

    def list_files(self, folder: str) -> list[str]:
        """Everything below a folder."""
        from pyarrow.fs import FileSelector, FileType

        with self._trying("read"):
            found = self.files.get_file_info(FileSelector(folder, recursive=True, allow_not_found=True))
        return [info.path for info in found if info.type == FileType.File]

    def delete_file(self, path: str) -> None:
        """Remove one object."""
        with self._trying("written"):
            self.files.delete_file(path)

    def delete_folder(self, path: str) -> None:
        """Remove all below a folder."""
        with self._trying("written"):
            self.files.delete_dir(path)

    def _make_parent(self, path: str) -> None:
        """Folders are made where there are any: an object store would keep an empty object of each."""
        if urlsplit(self.uri).scheme == "file":
            self.files.create_dir(path.rpartition("/")[0], recursive=True)

    @contextmanager
    def _trying(self, done: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            if done == "read":
                raise  # which a reader understands
            raise self._failed(done, "no such folder") from None
        except OSError as error:  # what pyarrow raises for all that an object store may answer
            raise self._failed(done, reason(error)) from None

    def _failed(self, done: str, why: str) -> ConfigError:
        return ConfigError(
            f"{VARIABLE} {self.shown}: cannot be {done} ({why}); mend the address, its credentials or its "
            f"permissions, or unset {VARIABLE}"
        )


def kept_at() -> Address | None:
    """Where runs are kept; none where GANSEG_RUNS_URI is not set. Raises ConfigError when it is no such place."""
    uri = os.environ.get(VARIABLE)
    if not uri:
        return None
    return _opened(Path(uri).as_uri() if uri.startswith("/") else uri)


@lru_cache(maxsize=4)
def _opened(uri: str) -> Address:
    """Opening finds a bucket's region, which takes a request."""
    from pyarrow.fs import FileSystem, SubTreeFileSystem

    example = "give one such as s3://bucket/runs or file:///shared/runs"
    shown = Address(uri, None).shown
    try:
        files, base = FileSystem.from_uri(uri)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{VARIABLE} {shown}: cannot be used ({reason(error)}); {example}") from None
    if not base.strip("/"):
        raise ConfigError(f"{VARIABLE} {shown}: names no folder; {example}")
    return Address(uri, SubTreeFileSystem(base, files))


def reason(error: BaseException) -> str:
    """Why, in a few words: `AWS Error NO_SUCH_BUCKET during ...: The specified bucket does not exist`."""
    told = " ".join(str(error).split())
    told = re.sub(r"^.*?(?=AWS Error)", "", told)
    return re.sub(r" \(Request ID: .*?\)", "", told)[:300]
