import hashlib
import os

import pytest

from ganseg_dist.files import check_regular, parse_json, read_bytes, read_json, read_text, sha256


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.mark.timeout(10)
@pytest.mark.parametrize("read", [check_regular, read_bytes, read_text, read_json, sha256])
def test_reading_rejects_pipe_and_device(pipe, read):
    with pytest.raises(OSError, match="is not a regular file"):
        read(pipe)
    with pytest.raises(OSError, match="is not a regular file"):
        read(type(pipe)("/dev/zero"))


@pytest.mark.parametrize("read", [check_regular, read_bytes, read_text, read_json, sha256])
def test_reading_raises_os_error_for_folder_and_link_loop(tmp_path, read):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place in (tmp_path, tmp_path / "loop", tmp_path / "missing"):
        with pytest.raises(OSError, match=r".+"):
            read(place)


def test_reading_follows_link_to_file(tmp_path):
    (tmp_path / "file").write_bytes("Ü".encode())
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_text(tmp_path / "link") == "Ü"
    assert sha256(tmp_path / "link") == hashlib.sha256("Ü".encode()).hexdigest()


@pytest.mark.parametrize("text", ["[" * 100_000, "NaN", '{"a": -Infinity}', "9" * 10_000, "{", b"\xff"])
def test_parse_json_raises_value_error_for_invalid_json(text):
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)


def test_parse_json_reads_all_value_types():
    assert parse_json('{"a": [1, 2.5, null, "x", true]}') == {"a": [1, 2.5, None, "x", True]}
