"""Keys and certificates of a federation: trust, Flower's format, and protection of existing files."""

import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key
from cryptography.x509.verification import PolicyBuilder, Store
from flwr.cli.supernode.register import try_load_public_key
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from ganseg_dist.errors import ConfigError
from ganseg_dist.federation.certificates import make_certificates
from tests.cli.conftest import assert_error, run_command
from tests.modes import mode


def certificate(file):
    return x509.load_pem_x509_certificate(file.read_bytes())


@pytest.fixture
def certificates_folder(tmp_path):
    folder = tmp_path / "certificates"
    result = run_command("certificates", folder, "--host", "hub.example.org", "--host", "192.0.2.7", "--node", "north")
    assert result.code == 0, result.err
    return folder


def test_certificates_makes_private_keys_readable_by_owner_only(certificates_folder):
    files = {file.name: mode(file) for file in certificates_folder.iterdir()}
    assert set(files) == {"ca.key", "ca.crt", "server.key", "server.crt", "north.key", "north.pub"}
    assert {name for name, bits in files.items() if bits == 0o600} == {"ca.key", "server.key", "north.key"}
    assert mode(certificates_folder) == 0o700


@pytest.mark.parametrize(
    "host",
    [x509.DNSName("hub.example.org"), x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("192.0.2.7"))],
    ids=str,
)
def test_certificate_authority_verifies_server_under_each_host(certificates_folder, host):
    store = Store([certificate(certificates_folder / "ca.crt")])
    chain = (
        PolicyBuilder()
        .store(store)
        .build_server_verifier(host)
        .verify(certificate(certificates_folder / "server.crt"), [])
    )
    assert len(chain) == 2
    key = load_pem_private_key((certificates_folder / "server.key").read_bytes(), None)
    assert key.public_key() == certificate(certificates_folder / "server.crt").public_key()


def test_certificate_of_other_host_or_authority_fails_verification(certificates_folder, tmp_path):
    make_certificates(tmp_path / "other", ["hub.example.org"], [], days=1)
    for authority, name in ((certificates_folder, "elsewhere.example.org"), (tmp_path / "other", "hub.example.org")):
        store = Store([certificate(authority / "ca.crt")])
        verifier = PolicyBuilder().store(store).build_server_verifier(x509.DNSName(name))
        with pytest.raises(x509.verification.VerificationError):
            verifier.verify(certificate(certificates_folder / "server.crt"), [])


def test_node_key_pair_is_readable_by_flower(certificates_folder):
    private = load_ssh_private_key((certificates_folder / "north.key").read_bytes(), None)
    assert try_load_public_key(certificates_folder / "north.pub") == public_key_to_bytes(private.public_key())


def test_make_certificates_without_host_creates_node_key_pair_only(tmp_path):
    make_certificates(tmp_path, [], ["south"], days=1)
    assert {file.name for file in tmp_path.iterdir()} == {"south.key", "south.pub"}


def test_certificates_rejects_existing_key_and_changes_no_file(certificates_folder):
    before = {file.name: file.read_bytes() for file in certificates_folder.iterdir()}
    again = run_command("certificates", certificates_folder, "--node", "west", "--node", "north")
    assert_error(again, 2, certificates_folder / "north.key", "exists and is not replaced")
    assert {file.name: file.read_bytes() for file in certificates_folder.iterdir()} == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "--host or --node: give at least one"),
        (("--host", "https://hub.example.org:9092"), "--host https://hub.example.org:9092: is no host name"),
        (("--host", "a", "--node", "ca"), "--node ca"),
        (("--node", "two words"), "--node two words"),
        (("--node", "twice", "--node", "twice"), "--node twice"),
        (("--node", "north", "--node", "North"), "--node North: "),
    ],
)
def test_certificates_rejects_invalid_names(tmp_path, args, message):
    assert_error(run_command("certificates", tmp_path / "new", *args), 2, message)
    assert not (tmp_path / "new").exists()


def test_certificates_reports_unwritable_folder_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    assert_error(run_command("certificates", tmp_path / "file", "--node", "a"), 1, "cannot be written")


def test_make_certificates_rejects_node_name_with_path(tmp_path):
    with pytest.raises(ConfigError, match="--node"):
        make_certificates(tmp_path, [], ["../escape"], days=1)
