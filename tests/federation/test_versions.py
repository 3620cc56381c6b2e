"""The versions of a federation's two ends: protocols that differ are errors, codes that differ are warnings."""

import json

import pytest

from ganseg_dist import __version__
from ganseg_dist.errors import FederationError
from ganseg_dist.federation import versions
from ganseg_dist.federation.protocol import RoundInstruction, describe_error
from ganseg_dist.federation.site_info import SiteInfo
from ganseg_dist.federation.versions import (
    PROTOCOL,
    PROTOCOL_CODES,
    OtherProtocolError,
    Versions,
    code_digest,
    difference,
    installed,
)

INSTRUCTION = RoundInstruction("run", 1, 0, 0, 2, config="{}")
SITE = SiteInfo("north", 5, 6, 7, (), (), ())


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The only package that digests cover; `code_digest` is cached, so that tests clear it."""
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "__init__.py").write_text("one = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(versions, "PACKAGES", ("few",))
    code_digest.cache_clear()
    yield tmp_path / "few"
    code_digest.cache_clear()


def digest_after_change() -> str:
    code_digest.cache_clear()
    return code_digest()


def test_code_digest_changes_with_content_and_names_of_python_files_only(package):
    first = code_digest()
    (package / "notes.txt").write_text("x")
    assert digest_after_change() == first
    (package / "__init__.py").write_text("one = 2\n")
    second = digest_after_change()
    (package / "more.py").write_text("")
    third = digest_after_change()
    (package / "more.py").rename(package / "other.py")
    assert len({first, second, third, digest_after_change()}) == 4


def test_instruction_and_site_info_hold_installed_versions():
    assert INSTRUCTION.versions == SITE.versions == installed()
    assert installed() == Versions(protocol=PROTOCOL, version=__version__, code=code_digest())
    assert RoundInstruction.from_json(INSTRUCTION.to_json()).versions == installed()
    assert SiteInfo.read(SITE.counts(), SITE.description()).versions == installed()


def test_difference_names_end_with_other_code_of_same_protocol():
    other = Versions(protocol=PROTOCOL, version="0.2.0", code="ab" * 32)
    warning = difference(other, "north")
    assert warning is not None
    assert warning.startswith(
        "north runs other code (ganseg-dist 0.2.0, code abababababab; here ganseg-dist 0.1.0, code "
    )
    assert warning.endswith("; install one version at both ends")
    assert difference(installed(), "north") is None
    assert difference(Versions(protocol=PROTOCOL), "north") is None


@pytest.mark.parametrize(
    ("protocol", "remedy"),
    [
        (PROTOCOL + 1, "upgrade ganseg-dist here to the version of the server"),
        (PROTOCOL - 1, f"upgrade the server to ganseg-dist {__version__}"),
    ],
)
def test_instruction_of_other_protocol_names_end_to_upgrade_despite_unknown_fields(protocol, remedy):
    fields = json.loads(INSTRUCTION.to_json()) | {"protocol": protocol, "a field of that protocol": 1}
    with pytest.raises(OtherProtocolError, match=remedy) as caught:
        RoundInstruction.from_json(json.dumps(fields))
    assert describe_error(caught.value) == (PROTOCOL_CODES.start + PROTOCOL, "the site runs another protocol")


def test_site_info_of_other_protocol_names_end_to_upgrade():
    with pytest.raises(OtherProtocolError, match="upgrade the site to ganseg-dist"):
        SiteInfo.read(SITE.counts() | {"protocol": PROTOCOL - 1, "new": 1}, SITE.description())


@pytest.mark.parametrize("protocol", [True, -1, 1e9, "2", None, 10**30])
def test_protocol_that_is_no_small_number_is_a_malformed_message(protocol):
    fields = json.loads(INSTRUCTION.to_json()) | {"protocol": protocol}
    with pytest.raises(FederationError) as caught:
        RoundInstruction.from_json(json.dumps(fields))
    assert not isinstance(caught.value, OtherProtocolError)
