"""A node's public key, and the fingerprint by which people compare it, which `ssh-keygen -lf NODE.pub` prints too."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
    load_ssh_private_key,
    load_ssh_public_key,
)
from cryptography.hazmat.primitives.serialization.ssh import SSHPublicKeyTypes
from pydantic import Field

from ganseg_dist.errors import ConfigError
from ganseg_dist.files import read_bytes

KeyFingerprint = Annotated[str, Field(pattern=r"^SHA256:[A-Za-z0-9+/]{43}$")]
"""SHA-256 of the key as SSH encodes it, in base64."""
PREFIX, SHOWN = "SHA256:", 12
CURVES = ("secp192r1", "secp224r1", "secp256r1", "secp384r1", "secp521r1")
"""NIST's, the only ones that Flower takes."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An elliptic-curve key that Flower can authenticate a node by."""

    pem: bytes
    """As Flower sends and stores it."""
    fingerprint: str

    @classmethod
    def read(cls, file: Path) -> PublicKey:
        """From a NODE.pub. Raises ConfigError for a file that holds no such key."""
        try:
            return cls._of(load_ssh_public_key(read_bytes(file)))
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read ({error.strerror}); check the path") from None
        except (ValueError, UnsupportedAlgorithm):
            raise ConfigError(
                f"{file}: is no public key of a node; give the NODE.pub that ganseg certificates wrote"
            ) from None

    @classmethod
    def of_secret(cls, file: Path) -> PublicKey:
        """The public half of a NODE.key. Raises ConfigError for a file that holds no such key."""
        try:
            return cls._of(load_ssh_private_key(read_bytes(file), None).public_key())
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read ({error.strerror}); check the path") from None
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ConfigError(
                f"{file}: is no secret key of a node; give the NODE.key that ganseg certificates wrote"
            ) from None

    @classmethod
    def from_pem(cls, pem: bytes) -> PublicKey:
        """From a key as Flower stores it. Raises ValueError for another kind of key."""
        key = load_pem_public_key(pem)
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError("no elliptic-curve key")
        return cls._of(key)

    @classmethod
    def _of(cls, key: SSHPublicKeyTypes) -> PublicKey:
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
            raise ValueError("no key on a NIST curve")
        encoded = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1]
        digest = base64.b64encode(hashlib.sha256(base64.b64decode(encoded)).digest())
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return cls(pem, PREFIX + digest.decode().rstrip("="))


def short_key(fingerprint: str) -> str:
    """The fingerprint's first digits, 72 bits, as lists and logs show them."""
    return fingerprint[: len(PREFIX) + SHOWN]
