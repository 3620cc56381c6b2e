"""Keys and certificates of a federation: an authority, the server's certificate, and a key pair for every node.

Flower reads a node's pair as OpenSSH writes it, on a NIST curve; certificates and the server's key are PEM.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ganseg_dist.atomic import OWNERS_ALONE, write_error
from ganseg_dist.errors import ConfigError
from ganseg_dist.names import NodeName, is_name

CURVE = ec.SECP384R1()
AUTHORITY, AUTHORITY_DAYS = "ganseg federation", 3650
"""Name of the issuer of both certificates, and days for which its own is valid."""
CLOCK_SKEW = datetime.timedelta(hours=1)
"""How much earlier a certificate becomes valid, for machines whose clocks are behind."""
HERE = ("localhost", "127.0.0.1", "::1")
"""Names by which the server's processes reach it."""
HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.(?!-)[A-Za-z0-9-]{1,63})*")
OWNERS_ONLY, ALL_READ = 0o600, 0o644

Files = dict[str, tuple[bytes, int]]
"""Content and mode of each file, by name."""


def make_certificates(folder: Path, hosts: Sequence[str], nodes: Sequence[str], *, days: int) -> list[Path]:
    """Write ca.crt, ca.key, server.crt and server.key for the hosts, NODE.key and NODE.pub for each node.

    Args:
        folder: created with access for its owner only; an existing one, and its files, stay as they are.
        hosts: names and addresses by which nodes reach the server; empty: no authority and no server certificate.
        nodes: each one's name, for its files and for the server's operator who registers it.
        days: validity of the server's certificate.

    Raises ConfigError for an invalid name and for an existing file, before anything is written;
    GansegError when the disk cannot be written.
    """
    files: Files = {}
    if hosts:
        files |= _server_files(hosts, days)
    for node in nodes:
        if not is_name(node, NodeName) or f"{node}.key".lower() in map(str.lower, files):
            raise ConfigError(
                f"--node {node}: take letters, digits, dashes and underscores, at most 40, each name once "
                "whatever the case of its letters, and neither ca nor server"
            )
        files |= _node_files(node)
    for name in files:
        if (folder / name).exists():
            raise ConfigError(f"{folder / name}: exists and is not replaced; choose another folder or name")
    for name, (content, mode) in files.items():
        _write(folder / name, content, mode)
    return [folder / name for name in files]


def _server_files(hosts: Sequence[str], days: int) -> Files:
    authority_key, key = ec.generate_private_key(CURVE), ec.generate_private_key(CURVE)
    certificate = _server_certificate(key.public_key(), hosts, days, authority_key)
    return {
        "ca.key": (_pem(authority_key), OWNERS_ONLY),
        "ca.crt": (_authority(authority_key).public_bytes(Encoding.PEM), ALL_READ),
        "server.key": (_pem(key), OWNERS_ONLY),
        "server.crt": (certificate.public_bytes(Encoding.PEM), ALL_READ),
    }


def _node_files(node: str) -> Files:
    key = ec.generate_private_key(CURVE)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return {
        f"{node}.key": (key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), OWNERS_ONLY),
        f"{node}.pub": (public + f" {node}\n".encode(), ALL_READ),
    }


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        _base(AUTHORITY, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA384())
    )


def _server_certificate(
    key: ec.EllipticCurvePublicKey, hosts: Sequence[str], days: int, authority_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    reached_by = [_general_name(host) for host in dict.fromkeys((*hosts, *HERE))]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    return (
        _base(hosts[0][:64], key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(reached_by), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority_key, hashes.SHA384())
    )


def _base(name: str, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(AUTHORITY))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if not HOST_NAME.fullmatch(host):
            raise ConfigError(
                f"--host {host}: is no host name and no address; give it without https:// and without a port"
            ) from None
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(file: Path, content: bytes, mode: int) -> None:
    """Create a new file, with its mode set before it has any content."""
    try:
        file.parent.mkdir(mode=OWNERS_ALONE, parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
            opened.write(content)
    except OSError as error:
        raise write_error(file, error) from None


def check_server_certificate(certificate: Path, key: Path) -> datetime.timedelta:
    """How long the server's certificate is still valid.

    Raises ConfigError for one that has expired, and for files that are no certificate with its key.
    """
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except ssl.SSLError:
        raise ConfigError(
            f"{key}: is not the key of {certificate}; give the folder that ganseg certificates wrote"
        ) from None
    except (OSError, ValueError):
        raise ConfigError(f"{certificate}: is no certificate; give the folder that ganseg certificates wrote") from None
    remaining = found.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    if remaining <= datetime.timedelta():
        raise ConfigError(
            f"{certificate}: has expired on {found.not_valid_after_utc:%Y-%m-%d}; make another in a new folder with "
            "ganseg certificates, and send its ca.crt to the hospitals"
        )
    return remaining
