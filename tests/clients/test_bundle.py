"""The bundle that a run sends to a site's node: it must contain no code."""

import io
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk

from clients.bundle import APP, check_bundle
from ganseg_dist import __version__
from ganseg_dist.errors import FederationError

ROOT = Path(__file__).parents[2]
PROJECT = '[project]\nversion = "{version}"\n[tool.flwr.app.components]\nclientapp = "{app}"\n'


def bundle(version: str = __version__, app: str = APP, **files: str) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("pyproject.toml", PROJECT.format(version=version, app=app))
        for name, content in files.items():
            archive.writestr(name, content)
    return written.getvalue()


def test_check_bundle_accepts_bundle_of_this_repository():
    own = build_fab_from_disk(ROOT)
    check_bundle(own)
    assert len(own) < 100_000
    assert not [name for name in zipfile.ZipFile(io.BytesIO(own)).namelist() if name.endswith(".py")]


@pytest.mark.parametrize(
    ("foreign", "message"),
    [
        (bundle(**{"clients/app.py": "import os"}), "contains code"),
        (bundle(**{"numpy.so": ""}), "contains code"),
        (bundle(**{"ganseg_dist/__init__.pyc": ""}), "contains code"),
        (bundle(app="os:system"), "contains code"),
        (bundle(version="99"), "another version"),
        (b"no archive", "cannot be read"),
        (bundle().replace(b"pyproject.toml", b"pyproject.json"), "cannot be read"),
    ],
    ids=["its own client", "an extension", "compiled", "another app", "another version", "no archive", "no project"],
)
def test_check_bundle_rejects_code_and_other_versions(foreign, message):
    with pytest.raises(FederationError, match=message):
        check_bundle(foreign)


def test_check_bundle_accepts_bundle_without_code():
    """The rejected bundles differ from this one in one property each."""
    check_bundle(bundle())
