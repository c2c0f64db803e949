"""Keys for tests, as files."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


def make_key(folder: Path, name: str, *, curve: ec.EllipticCurve | None = None, password: str | None = None) -> Path:
    """Write ``<name>.pem``, which is returned, and its public half ``<name>.pub.pem``."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    locked = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    private = folder / f"{name}.pem"
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    public_half(private).write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private


def public_half(private: Path) -> Path:
    """The file of a key's public half."""
    return private.with_name(f"{private.stem}.pub.pem")
