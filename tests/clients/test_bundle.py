"""The bundle that a run sends to a site's node: it must contain no code."""

import io
import random
import tracemalloc
import warnings
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk

from clients.bundle import APP, LARGEST_BUNDLE, check_bundle
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
        (b"no archive", "cannot be read"),
        (bundle().replace(b"pyproject.toml", b"pyproject.json"), "contains code"),
    ],
    ids=["its own client", "an extension", "compiled", "another app", "no archive", "no project"],
)
def test_check_bundle_rejects_code_and_other_apps(foreign, message):
    with pytest.raises(FederationError, match=message):
        check_bundle(foreign)


@pytest.mark.parametrize("version", [__version__, "99"])
def test_check_bundle_accepts_bundle_without_code_of_every_version(version):
    """The rejected bundles differ from this one in one property each."""
    check_bundle(bundle(version))


def lying(size: int, content: bytes) -> bytes:
    """A bundle whose README.md states another size than it has, with a checksum that fits what it states."""
    packed = bundle_of({"README.md": content})
    true, stated = len(content).to_bytes(4, "little"), size.to_bytes(4, "little")
    checksums = (zlib.crc32(content).to_bytes(4, "little"), zlib.crc32(content[:size]).to_bytes(4, "little"))
    return packed.replace(true, stated).replace(*checksums)


def bundle_of(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A valid bundle with other files besides."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", compression) as archive:
        archive.writestr("pyproject.toml", PROJECT.format(version=__version__, app=APP))
        for name, content in files.items():
            archive.writestr(name, content)
    return written.getvalue()


def doubled() -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for app in (APP, "os:system"):
            archive.writestr("pyproject.toml", PROJECT.format(version=__version__, app=app))
    return written.getvalue()


def encrypted() -> bytes:
    """A bundle with the flag of encryption in both headers of its file."""
    content = bytearray(bundle())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + place] |= 1
    return bytes(content)


def replaced(project: str) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pyproject.toml", project)
    return written.getvalue()


HOSTILE = {
    "bytes": (bytes(LARGEST_BUNDLE + 1), "is larger than"),
    "a bomb": (bundle_of({"README.md": bytes(50 * LARGEST_BUNDLE)}), "is larger than"),
    "a bomb that states 100 bytes": (lying(100, bytes(50 * LARGEST_BUNDLE)), "is larger than"),
    "a file that states fewer bytes": (lying(100, b"x" * 1000), "cannot be read"),
    "a file that states more bytes": (lying(2000, b"x" * 1000), "cannot be read"),
    "lzma": (bundle_of({"README.md": bytes(LARGEST_BUNDLE)}, zipfile.ZIP_LZMA), "cannot be read"),
    "bzip2": (bundle_of({"README.md": bytes(LARGEST_BUNDLE)}, zipfile.ZIP_BZIP2), "cannot be read"),
    "two of one name": (doubled(), "cannot be read"),
    "encrypted": (encrypted(), "cannot be read"),
    "deep TOML": (replaced("a = " + "[" * 100_000), "cannot be read"),
    "no TOML": (replaced("\x00"), "cannot be read"),
    "text for a table": (replaced("tool = 'flwr'"), "cannot be read"),
    "cut short": (bundle()[:-30], "cannot be read"),
}


@pytest.mark.parametrize(("hostile", "message"), HOSTILE.values(), ids=HOSTILE)
def test_check_bundle_rejects_hostile_archive_in_little_memory(hostile, message):
    tracemalloc.start()
    try:
        with pytest.raises(FederationError, match=message) as caught:
            check_bundle(hostile)
        assert tracemalloc.get_traced_memory()[1] < 8 * LARGEST_BUNDLE
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


def test_check_bundle_survives_damaged_bytes():
    """Whatever is changed, the bundle passes or is one error."""
    rng = random.Random(0)
    whole = bundle_of({"README.md": b"A federation.\n" * 50, ".info/CONTENT": b"pyproject.toml"})
    for _ in range(1000):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 1, 4, 30))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        with suppress(FederationError):
            check_bundle(bytes(damaged[: rng.choice((len(damaged), rng.randrange(len(damaged))))]))
