import errno
import json
import os
import resource
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest
from filelock import FileLock

from clients import egress
from clients.egress import EgressManifest
from ganseg_dist.errors import FederationError, GansegError, RunError
from ganseg_dist.federation.egress_manifest import START, Content, verify
from tests.modes import mode

WEIGHTS = {"networks.segmenter.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "home" / "egress.jsonl"


def send(path, round=1):
    return EgressManifest(path).record(Content.of("train", "lgg", round, WEIGHTS, {"loss": 0.5}))


def rounds(path):
    """Rounds of an intact manifest."""
    found = []
    with path.open("rb") as lines:
        verdict = verify(lines, lambda entry: found.append(entry.round))
    assert verdict.faults == ()
    return found


def test_egress_manifest_chains_one_line_per_message(path):
    manifest = EgressManifest(path)
    assert path.read_bytes() == b""
    entries = [manifest.record(Content.of("train", "lgg", round, WEIGHTS, {"loss": 0.5})) for round in range(3)]
    entries.append(send(path, 3))
    assert [entry.previous == START for entry in entries] == [True, False, False, False]
    assert rounds(path) == [0, 1, 2, 3]
    assert [json.loads(line)["hash"] for line in path.read_text().splitlines()] == [entry.hash for entry in entries]


def test_egress_manifest_is_private_and_holds_no_path(path):
    before = os.umask(0)
    try:
        send(path)
    finally:
        os.umask(before)
    assert mode(path) == 0o600
    assert str(path.parent) not in path.read_text()
    path.chmod(0o644)
    send(path)
    assert mode(path) == 0o600


def test_egress_manifest_rejects_forbidden_message_without_line(path):
    manifest = EgressManifest(path)
    for arrays, metrics in (({"w": np.array(["p19"])}, {}), ({}, {"loss": float("nan")}), ({"/p19": np.ones(1)}, {})):
        with pytest.raises(FederationError):
            manifest.record(Content.of("train", "lgg", 1, arrays, metrics))
    assert path.read_bytes() == b""


def test_egress_manifest_moves_partial_line_to_separate_file(path):
    send(path, 1)
    whole = path.read_bytes()
    send(path, 2)
    half = path.read_bytes()[len(whole) :]
    aside = path.with_name("egress.jsonl.half")
    for length in (1, 2, 50, len(half) // 2, len(half) - 2):
        path.write_bytes(whole + half[:length])
        aside.unlink(missing_ok=True)
        EgressManifest(path)
        assert path.read_bytes() == whole
        assert aside.read_bytes() == half[:length] + b"\n"
        assert mode(aside) == 0o600
    send(path, 2)
    assert rounds(path) == [1, 2]


def test_egress_manifest_recovers_from_partial_first_line_and_second_power_cut(path):
    path.parent.mkdir()
    path.write_bytes(b'{"bytes":2')
    assert send(path).previous == START
    with path.open("ab") as file:
        file.write(b'{"byt')
    send(path, 2)
    assert rounds(path) == [1, 2]
    assert path.with_name("egress.jsonl.half").read_bytes() == b'{"bytes":2\n{"byt\n'


def test_egress_manifest_recovers_from_partial_line_of_other_process(path):
    manifest = EgressManifest(path)
    send(path, 1)
    with path.open("ab") as file:
        file.write(b'{"bytes":2')
    manifest.record(Content.of("train", "lgg", 2, {}, {}))
    assert rounds(path) == [1, 2]


def test_egress_manifest_keeps_line_without_line_feed(path):
    send(path, 1)
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    send(path, 2)
    assert rounds(path) == [1, 2]
    assert not path.with_name("egress.jsonl.half").exists()


@pytest.mark.parametrize("ending", [b"\n", b""])
def test_egress_manifest_raises_run_error_for_altered_last_line(path, ending):
    manifest = EgressManifest(path)
    send(path, 1)
    send(path, 2)
    altered = path.read_bytes().replace(b'"round":2', b'"round":3').removesuffix(b"\n") + ending
    path.write_bytes(altered)
    for use in (lambda: EgressManifest(path), lambda: manifest.record(Content.of("train", "lgg", 3, {}, {}))):
        with pytest.raises(RunError, match=r"egress\.jsonl: its last line was altered.*ganseg audit") as caught:
            use()
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == altered
    assert not path.with_name("egress.jsonl.half").exists()


def test_egress_manifest_rejects_foreign_file(path):
    path.parent.mkdir()
    path.write_text("notes of the ward\n")
    with pytest.raises(RunError):
        EgressManifest(path)
    assert path.read_text() == "notes of the ward\n"


@pytest.fixture
def largest_file():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 1, 100])
def test_egress_manifest_raises_when_disk_is_full(path, largest_file, room):
    send(path, 1)
    before = path.read_bytes()
    largest_file(len(before) + room)
    with pytest.raises(GansegError, match=r"egress\.jsonl: cannot be written .*free space"):
        send(path, 2)
    largest_file(-1)
    assert path.read_bytes() == before
    send(path, 2)
    assert rounds(path) == [1, 2]


def test_egress_manifest_raises_when_fsync_fails(path, monkeypatch):
    send(path, 1)
    before = path.read_bytes()

    def fails(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(GansegError, match=r"egress\.jsonl: cannot be written \(Input/output error\)"):
            send(path, 2)
    assert path.read_bytes() == before


def test_egress_manifest_syncs_line_before_record_returns(path, monkeypatch):
    manifest = EgressManifest(path)
    seen = []
    flush = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (flush(descriptor), seen.append(os.fstat(descriptor).st_size)))
    manifest.record(Content.of("evaluate", "lgg", 1, {}, {"dice": 0.75}))
    assert seen == [path.stat().st_size]


def test_egress_manifest_syncs_folder_before_first_line(path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(stat.S_ISDIR(os.fstat(descriptor).st_mode)))
    send(path)
    assert seen == [True, False]


def test_egress_manifest_rejects_unwritable_path_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "file" / "egress.jsonl", tmp_path / "folder"):
        with pytest.raises(GansegError, match="cannot be written") as caught:
            EgressManifest(place)
        assert str(caught.value).startswith(f"{place}: ")


def test_egress_manifest_raises_after_lock_timeout(path, monkeypatch):
    send(path)
    monkeypatch.setattr(egress, "LONGEST_WAIT_SECONDS", 0.01)
    with FileLock(f"{path}.lock"), pytest.raises(GansegError, match=r"egress\.jsonl: another process"):
        send(path)
    assert rounds(path) == [1]


def test_egress_manifest_serializes_writes_of_threads(path):
    def several(first):
        for round in range(first, first + 10):
            send(path, round)

    threads = [threading.Thread(target=several, args=(first,)) for first in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(rounds(path)) == list(range(30))


WRITER = """
import sys
from pathlib import Path
from clients.egress import EgressManifest
from ganseg_dist.federation.egress_manifest import Content
for round in range(int(sys.argv[2]), int(sys.argv[2]) + 20):
    EgressManifest(Path(sys.argv[1])).record(Content.of("train", "lgg", round, {}, {"loss": 0.5}))
"""


def test_egress_manifest_serializes_writes_of_processes(path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(first)]) for first in (0, 20)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert sorted(rounds(path)) == list(range(40))
