"""Remote folders of runs: operations and error messages."""

from pathlib import Path

import pytest

from ganseg_dist.errors import ConfigError
from ganseg_dist.storage.remote import VARIABLE, RemoteFolder, remote_folder


def test_remote_folder_is_none_without_variable(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert remote_folder() is None


def assert_stores_files(remote: RemoteFolder) -> None:
    """The operations that every kind of remote folder supports."""
    remote.probe()
    assert remote.list_files("first") == []
    assert remote.read("first/a.json") is None
    remote.replace("first/a.json", b"1")
    remote.replace("first/a.json", b"2")
    assert remote.read("first/a.json") == b"2"
    remote.replace("first/1/b", b"3")
    assert sorted(remote.list_files("first")) == ["first/1/b", "first/a.json"]
    remote.delete_folder("first/1")
    assert remote.list_files("first") == ["first/a.json"]
    remote.delete_file("first/a.json")
    assert remote.list_files("first") == []


def test_remote_folder_reads_and_writes_files(remote):
    assert_stores_files(remote)


def test_remote_folder_accepts_plain_path(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "with space"))
    assert remote_folder().display_uri == f"file://{tmp_path}/with%20space"
    assert_stores_files(remote_folder())
    assert (tmp_path / "with space").is_dir()


def test_remote_folder_reads_and_writes_s3_bucket(bucket):
    assert_stores_files(remote_folder())


@pytest.mark.parametrize("kind", ["remote", "bucket"])
def test_remote_folder_send_and_fetch_return_digest(kind, request, tmp_path):
    request.getfixturevalue(kind)
    remote = remote_folder()
    content = bytes(range(256)) * 10_000  # more than one chunk
    (tmp_path / "sent").write_bytes(content)
    digest = remote.send(tmp_path / "sent", "first/1/sent")
    assert remote.fetch("first/1/sent", tmp_path / "came") == digest
    assert (tmp_path / "came").read_bytes() == content
    assert remote.fetch("first/1/other", tmp_path / "came") is None


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("shared/runs", "cannot be used (URI has empty scheme: 'shared/runs')"),
        ("ftp://host/runs", "cannot be used (Unrecognized filesystem type"),
        ("s3://bucket/runs?colour=red", "cannot be used (Unexpected query parameter in S3 URI: 'colour')"),
        ("s3://", "names no folder"),
    ],
)
def test_remote_folder_rejects_invalid_uri(uri, message, monkeypatch):
    monkeypatch.setenv(VARIABLE, uri)
    with pytest.raises(ConfigError) as caught:
        remote_folder()
    assert str(caught.value).startswith(VARIABLE)
    assert message in str(caught.value)
    assert str(caught.value).endswith("; give one such as s3://bucket/runs or file:///shared/runs")


def test_probe_rejects_missing_bucket_in_one_line(s3, monkeypatch):
    monkeypatch.setenv(VARIABLE, f"s3://key:secret@nowhere/runs?{s3}")
    with pytest.raises(ConfigError) as caught:
        remote_folder().probe()
    message = str(caught.value)
    assert message.startswith(f"{VARIABLE} s3://nowhere/runs: cannot be written (")
    assert "NO_SUCH_BUCKET" in message
    assert message.endswith(f"; correct the URI, its credentials or its permissions, or unset {VARIABLE}")
    assert "secret" not in message
    assert "\n" not in message


def test_probe_rejects_folder_below_file(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(VARIABLE, (tmp_path / "file" / "runs").as_uri())
    problem = rf"^{VARIABLE} file://{tmp_path}/file/runs: cannot be written \(.*\); correct the URI"
    with pytest.raises(ConfigError, match=problem):
        remote_folder().probe()


def test_fetch_raises_os_error_when_local_disk_is_full(remote, tmp_path):
    remote.replace("first/a", b"1")
    with pytest.raises(OSError, match="No space left"):
        remote.fetch("first/a", Path("/dev/full"))
