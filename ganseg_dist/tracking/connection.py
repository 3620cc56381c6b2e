"""Connects to MLflow, with timeouts that allow for a busy server and do not let a run wait for a dead one."""

from __future__ import annotations

import logging
import os
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from ganseg_dist.environment import environment
from ganseg_dist.errors import one_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

REQUEST_SECONDS = 5
UPLOAD_SECONDS = 120
"""A server that forwards a model to an object store responds only when the whole model is there."""
SQLITE = "sqlite:///"
DRIVER = "pysqlite"
"""SQLAlchemy's name of Python's module for SQLite."""
TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"


def connect(uri: str) -> MlflowClient:
    """A client of the store or server. It keeps no active run; errors are raised and not printed too.

    MLflow's defaults would hold a caller for minutes: seven retries of 120 s each. Our callers retry instead. Files go
    through the server, which alone holds the credentials of the artifact store: by default it would redirect a client
    to an S3 that the client may not reach.
    """
    os.environ.setdefault(TIMEOUT, str(REQUEST_SECONDS))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "false")
    os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "false")
    from mlflow import MlflowClient

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    return MlflowClient(uri)


def long_requests() -> AbstractContextManager[None]:
    """A context in which a request may take UPLOAD_SECONDS, or longer where the environment allows it."""
    return environment({TIMEOUT: str(max(UPLOAD_SECONDS, int(os.environ.get(TIMEOUT) or 0)))})


def sqlite_uri(database: Path) -> str:
    """The URI of a store in this file, quoted where needed: `?` begins a URI's options, `%` a quoted letter."""
    from sqlalchemy import URL

    url = URL.create("sqlite", database=str(database))
    plain = url.render_as_string()
    if plain == f"{SQLITE}{database}":
        return plain
    # Beside a file whose URI begins with sqlite:/// MLflow makes a folder that has the quoted path for its name.
    return url.set(drivername=f"sqlite+{DRIVER}").render_as_string()


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store; None for a store in memory, and for any other store."""
    if not uri.startswith((SQLITE, f"sqlite+{DRIVER}:")):
        return None
    from sqlalchemy import make_url

    database = make_url(uri).database
    return None if not database or database.startswith((":memory:", "file:")) else Path(database)


def without_password(uri: str) -> str:
    """The URI without its user and password, to be printed and saved."""
    return re.sub(r"(?<=://)[^@/]*@", "", uri)


def reason(error: BaseException) -> str:
    """The last line of the root cause's message, such as `[Errno 111] Connection refused`, at most 200 characters."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return without_password(one_line(error, last=True, longest=200))
