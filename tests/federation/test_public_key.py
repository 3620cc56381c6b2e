"""Fingerprints of nodes' keys: the ones that OpenSSH computes, of Flower's keys only."""

import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ganseg_dist.errors import ConfigError
from ganseg_dist.federation.certificates import make_certificates
from ganseg_dist.federation.public_key import KeyFingerprint, PublicKey, short_key
from ganseg_dist.names import is_name


@pytest.fixture
def pair(tmp_path):
    make_certificates(tmp_path, [], ["north"], days=1)
    return tmp_path


def test_public_key_has_same_fingerprint_from_each_file_format(pair):
    key = PublicKey.read(pair / "north.pub")
    assert PublicKey.of_secret(pair / "north.key") == key == PublicKey.from_pem(key.pem)
    assert is_name(key.fingerprint, KeyFingerprint)
    assert key.fingerprint.startswith(short_key(key.fingerprint))
    assert len(short_key(key.fingerprint)) == len("SHA256:") + 12


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="this machine has no ssh-keygen")
def test_fingerprint_is_the_one_of_ssh_keygen(pair):
    printed = subprocess.run(
        ["ssh-keygen", "-lf", pair / "north.pub"], capture_output=True, text=True, check=True, timeout=20
    ).stdout
    assert printed.split()[1] == PublicKey.read(pair / "north.pub").fingerprint


@pytest.mark.parametrize(
    "key", [ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)], ids=["ed25519", "rsa"]
)
def test_public_key_rejects_keys_that_flower_does_not_take(tmp_path, key):
    (tmp_path / "a.pub").write_bytes(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    with pytest.raises(ConfigError, match=r"a\.pub: is no public key of a node"):
        PublicKey.read(tmp_path / "a.pub")


@pytest.mark.parametrize("content", [b"", b"ecdsa-sha2-nistp384 AAAA", b"\xff" * 100, b"-----BEGIN PUBLIC KEY-----"])
def test_public_key_rejects_other_files(tmp_path, content):
    (tmp_path / "a.pub").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.pub: is no public key of a node; give the NODE"):
        PublicKey.read(tmp_path / "a.pub")
    (tmp_path / "a.key").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.key: is no secret key of a node; give the NODE"):
        PublicKey.of_secret(tmp_path / "a.key")
