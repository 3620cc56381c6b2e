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
def test_a_pipe_or_device_is_not_waited_for(pipe, read):
    with pytest.raises(OSError, match="is not a regular file"):
        read(pipe)
    with pytest.raises(OSError, match="is not a regular file"):
        read(type(pipe)("/dev/zero"))


@pytest.mark.parametrize("read", [check_regular, read_bytes, read_text, read_json, sha256])
def test_a_folder_or_link_to_itself_is_an_oserror(tmp_path, read):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place in (tmp_path, tmp_path / "loop", tmp_path / "missing"):
        with pytest.raises(OSError, match=r".+"):
            read(place)


def test_a_link_to_a_file_is_read(tmp_path):
    (tmp_path / "file").write_bytes("Ü".encode())
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_text(tmp_path / "link") == "Ü"
    assert sha256(tmp_path / "link") == hashlib.sha256("Ü".encode()).hexdigest()


@pytest.mark.parametrize("text", ["[" * 100_000, "NaN", '{"a": -Infinity}', "9" * 10_000, "{", b"\xff"])
def test_json_that_is_none_is_a_valueerror(text):
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)


def test_json_of_any_value():
    assert parse_json('{"a": [1, 2.5, null, "x", true]}') == {"a": [1, 2.5, None, "x", True]}
