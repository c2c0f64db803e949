"""Keys that sign and keys that verify: ECDSA over NIST's P-256, P-384 and P-521, in PEM.

The id of a key is the hexadecimal SHA-256 of its public half in PEM, as OMS signatures hint at it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkeep.errors import MissingExtra, NotFound, StorageError, UsageError
from modelkeep.provenance import dsse

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey, EllipticCurvePublicKey

CURVES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}  # each with its hash
MAX_FILE = 2**20  # bytes: of a key, or a list of them
MAKE_ONE = "make one: openssl ecparam -name prime256v1 -genkey -noout -out key.pem"


class SigningKey:
    """A private key in hand. ``id`` is that of its public half, ``public`` that half as PEM."""

    def __init__(self, key: EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public = _pem(key.public_key())
        self.id = key_id(self.public)

    def seal(self, payload: bytes) -> bytes:
        """The bundle of a payload signed with this key."""
        return dsse.encode(payload, self._key.sign(dsse.pae(payload), _algorithm(self._key.curve.name)), self.id)


def read_signing_key(path: Path, password: str | None = None) -> SigningKey:
    """A private key from a PEM file. Raises UsageError for another kind or a wrong password, NotFound, MissingExtra."""
    serialization = _serialization()
    data = read_pem(path)
    try:
        key = serialization.load_pem_private_key(data, None if password is None else password.encode())
    except TypeError as error:  # a password where none is needed, or none where one is
        needed = password is None
        what = "is protected by a password" if needed else "has no password"
        hint = "set MODELKEEP_KEY_PASSWORD, or give password=" if needed else "leave the password out"
        raise UsageError(f"the key in {path} {what}", hint=hint) from error
    except Exception as error:
        raise UsageError(f"{path} holds no private key that can be read ({error})", hint=MAKE_ONE) from error
    _check_curve(key, str(path))
    return SigningKey(key)


def read_pem(path: Path) -> bytes:
    """The bytes of a small text file. Raises NotFound, StorageError, UsageError where it is too large for keys."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}", hint=MAKE_ONE) from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_FILE:
        raise UsageError(f"{path} is too large for keys", expected=f"at most {MAX_FILE:,} bytes")
    return data


def public_pem(data: bytes, where: str) -> str:
    """The public key in some PEM, written as its id is computed. Raises UsageError, also for a private key."""
    serialization = _serialization()
    if b"PRIVATE KEY" in data:
        raise UsageError(
            f"{where} holds a private key",
            expected="its public half",
            hint="openssl ec -in key.pem -pubout -out key.pub.pem",
        )
    try:
        key = serialization.load_pem_public_key(data)
    except Exception as error:
        raise UsageError(f"{where} holds no public key that can be read ({error})") from error
    _check_curve(key, where)
    return _pem(key)


def key_id(pem: str) -> str:
    """The id of a public key as :func:`public_pem` writes it."""
    return hashlib.sha256(pem.encode()).hexdigest()


def verifies(pem: str, bundle: dsse.Bundle) -> bool:
    """Whether the bundle's signature is this public key's. Raises UsageError where the PEM holds none."""
    serialization = _serialization()
    from cryptography.exceptions import InvalidSignature

    key = serialization.load_pem_public_key(public_pem(pem.encode(), "a trusted key").encode())
    try:
        key.verify(bundle.signature, dsse.pae(bundle.payload), _algorithm(key.curve.name))
    except InvalidSignature:
        return False
    return True


def _check_curve(key: Any, where: str) -> None:
    curve = getattr(key, "curve", None)
    if curve is None or curve.name not in CURVES:
        raise UsageError(
            f"{where} holds a key of another kind",
            found=curve.name if curve else type(key).__name__.lstrip("_"),
            expected="an elliptic curve key on P-256, P-384 or P-521",
            hint=MAKE_ONE,
        )


def _algorithm(curve: str) -> ECDSA:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.ECDSA(getattr(hashes, CURVES[curve])())


def _pem(key: EllipticCurvePublicKey) -> str:
    serialization = _serialization()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def _serialization() -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError as error:
        raise MissingExtra("signatures need cryptography", hint="pip install 'modelkeep[signing]'") from error
    return serialization
