from ganseg_dist.cli.options import LABELS_HELP, LAYOUT_HELP
from ganseg_dist.data.labels import SCHEMES
from ganseg_dist.registry import reader_names


def test_layout_help_names_every_reader():
    assert [name for name in reader_names() if name not in LAYOUT_HELP] == []


def test_labels_help_names_every_scheme():
    assert [name for name in SCHEMES if name not in LABELS_HELP] == []
