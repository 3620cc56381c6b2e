"""How MLflow is reached: patient enough for a busy server, never so patient that a run waits for a dead one."""

from __future__ import annotations

import logging
import os
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from ganseg_dist.environment import environment

if TYPE_CHECKING:
    from mlflow import MlflowClient

REQUEST_SECONDS = 5
UPLOAD_SECONDS = 120
"""A server that passes a model on to an object store answers only when it is through."""
SQLITE = "sqlite:///"
DRIVER = "pysqlite"
"""Python's own module for SQLite, as SQLAlchemy calls it."""
TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"


def connect(uri: str) -> MlflowClient:
    """A client of the store or server. It keeps no active run, and what fails is raised and not printed too.

    MLflow's defaults would hold a caller for minutes: seven retries of 120 s each. We retry ourselves. Files go through
    the server, who alone holds the keys of what keeps them: by default it would send a client on to an S3 that the
    client may not reach.
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
    """Inside, a request may take as long as an upload does."""
    return environment({TIMEOUT: str(max(UPLOAD_SECONDS, int(os.environ.get(TIMEOUT) or 0)))})


def sqlite_uri(database: Path) -> str:
    """The URI of a store in this file, whatever the path holds: `?` begins a URI's options, and `%` a quoted letter."""
    from sqlalchemy import URL

    url = URL.create("sqlite", database=str(database))
    plain = url.render_as_string()
    if plain == f"{SQLITE}{database}":
        return plain
    # Beside a file whose URI begins with sqlite:/// MLflow makes a folder that has the quoted path for its name.
    return url.set(drivername=f"sqlite+{DRIVER}").render_as_string()


def sqlite_file(uri: str) -> Path | None:
    """The file that a store of this URI is kept in; none of any other store."""
    if not uri.startswith((SQLITE, f"sqlite+{DRIVER}:")):
        return None
    from sqlalchemy import make_url

    database = make_url(uri).database
    return None if not database or database.startswith((":memory:", "file:")) else Path(database)


def without_password(uri: str) -> str:
    """The URI as it may be printed and saved."""
    return re.sub(r"(?<=://)[^@/]*@", "", uri)


def reason(error: BaseException) -> str:
    """Why, in a few words: the last line of the error at the root, as `[Errno 111] Connection refused`."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    lines = str(error).strip().splitlines()
    return without_password(lines[-1][:200]) if lines else type(error).__name__
