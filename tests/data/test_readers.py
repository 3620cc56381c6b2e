"""Readers are found by their modules."""

from ganseg_dist.data.readers import READERS
from ganseg_dist.registry import reader_names


def test_every_module_of_readers_has_a_reader_of_its_name():
    assert sorted(reader.name for reader in READERS) == reader_names()


def test_a_manifest_is_tried_first_and_folders_of_classes_last():
    assert [READERS[0].name, READERS[-1].name] == ["manifest", "class_folder"]
