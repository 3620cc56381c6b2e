"""Readers are registered by their modules."""

from ganseg_dist.data.readers import READERS
from ganseg_dist.registry import reader_names


def test_readers_match_their_modules():
    assert sorted(reader.name for reader in READERS) == reader_names()


def test_readers_try_manifest_first_and_class_folder_last():
    assert [READERS[0].name, READERS[-1].name] == ["manifest", "class_folder"]
