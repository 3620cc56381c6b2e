from ganseg_dist.cli.words import LABELS_HELP, LAYOUT_HELP
from ganseg_dist.data.labels import SCHEMES
from ganseg_dist.data.readers import READERS


def test_every_layout_that_can_be_read_can_be_asked_for():
    assert [reader.name for reader in READERS if reader.name not in LAYOUT_HELP] == []


def test_every_label_scheme_can_be_asked_for():
    assert [name for name in SCHEMES if name not in LABELS_HELP] == []
