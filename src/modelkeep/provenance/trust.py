"""Whose signatures count: public keys and identities, each with the models and the time it is trusted for.

Trust comes from the reader's side alone; a key that travels with a model proves nothing. It is one of

* a PEM file: that key, for everything, for ever;
* a folder: every ``*.pem`` in it, likewise;
* a JSON file, where more can be said of each::

    {"keys": [{"name": "ada", "pem": "-----BEGIN PUBLIC KEY-----…", "models": ["sentiment", "team/*"],
               "not_before": "2026-01-01", "not_after": "2027-01-01", "revoked": false},
              {"name": "release", "identity": "release@example.com", "issuer": "https://accounts.google.com"}]}

  with ``"file": "ada.pub.pem"``, beside the JSON file, in the place of ``"pem"`` if one likes; and with
  ``"required": true`` beside ``"keys"``, nothing is loaded that none of them signed.

A signature carries no time that can be believed, so a key counts only while it is valid: what an expired key signed has
to be signed again.
"""

from __future__ import annotations

import hashlib
import os
import re
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from modelkeep.entry import TrustedKey, moment
from modelkeep.errors import UsageError
from modelkeep.provenance import keys

MAX_KEYS = 1000
VARIABLE = "MODELKEEP_TRUSTED_KEYS"  # names a trust file


class _Listed(msgspec.Struct, forbid_unknown_fields=True):
    """A key as it is written in the JSON file."""

    name: str
    pem: str | None = None
    file: str | None = None
    identity: str | None = None
    issuer: str | None = None
    models: tuple[str, ...] = ("*",)
    not_before: str | None = None
    not_after: str | None = None
    revoked: bool = False


class _File(msgspec.Struct, forbid_unknown_fields=True):
    keys: tuple[_Listed, ...]
    required: bool = False


def here(path: Path | None, what: str) -> tuple[TrustedKey, ...]:
    """The keys of a trust file, or of the one that the environment names.

    Raises UsageError where there is none: nobody is trusted to sign ``what``. And as :func:`read`.
    """
    if path is None and VARIABLE not in os.environ:
        raise UsageError(
            f"nobody is trusted to sign {what}", hint=f"name a file of public keys, here or in ${VARIABLE}"
        )
    return read(path or Path(os.environ[VARIABLE]))


def read(path: Path) -> tuple[TrustedKey, ...]:
    """The keys of a trust file or folder. Raises NotFound, UsageError for what is none, MissingExtra."""
    if _is_pem(path):
        found = tuple(map(_from_pem, sorted(path.glob("*.pem")) if path.is_dir() else [path]))
    else:
        found = tuple(_from_listed(key, path) for key in _listed(path).keys)
    if not 0 < len(found) <= MAX_KEYS:
        raise UsageError(f"{path} names {len(found)} keys", expected=f"1 to {MAX_KEYS}")
    if any(len({getattr(key, each) for key in found}) < len(found) for each in ("id", "name")):
        raise UsageError(f"{path} names a key twice, or two keys alike")
    return found


def _from_pem(path: Path) -> TrustedKey:
    pem = keys.public_pem(keys.read_pem(path), str(path))
    return TrustedKey(id=keys.key_id(pem), name=path.name.removesuffix(".pem").removesuffix(".pub"), pem=pem)


def demands(path: Path) -> bool:
    """Whether a trust file wants nothing loaded that is not signed. Raises like :func:`read`."""
    return not _is_pem(path) and _listed(path).required


def _is_pem(path: Path) -> bool:
    return path.is_dir() or keys.read_pem(path).lstrip().startswith(b"-----BEGIN")


def _listed(path: Path) -> _File:
    try:
        return msgspec.json.decode(keys.read_pem(path), type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"{path} is no list of trusted keys: {error}", hint="see docs/guide/provenance.md, or name a PEM file"
        ) from error


def _from_listed(key: _Listed, path: Path) -> TrustedKey:
    where = f"{key.name!r} in {path}"
    given = [name for name in ("pem", "file", "identity") if getattr(key, name) is not None]
    if len(given) != 1 or (key.identity is None) != (key.issuer is None):
        raise UsageError(f"{where} is not one key", expected="pem, or file, or identity with issuer")
    if key.identity is not None:
        pem, key_id = None, identity_id(key.identity, str(key.issuer))
    else:
        data = key.pem.encode() if key.pem is not None else keys.read_pem(path.parent / str(key.file))
        pem = keys.public_pem(data, where)
        key_id = keys.key_id(pem)
    return TrustedKey(
        id=key_id,
        name=key.name,
        pem=pem,
        identity=key.identity,
        issuer=key.issuer,
        models=key.models,
        not_before=None if key.not_before is None else moment(_from_its_beginning(key.not_before)),
        not_after=None if key.not_after is None else moment(key.not_after),
        revoked=key.revoked,
    )


def _from_its_beginning(text: str) -> str:
    """A date as the time at which it begins; a time as it is."""
    return f"{text}T00:00Z" if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) else text


def identity_id(identity: str, issuer: str) -> str:
    """What stands for a key's id where somebody signs by who they are."""
    return hashlib.sha256(f"{issuer}\n{identity}".encode()).hexdigest()


def objection(key: TrustedKey, model: str, now: str) -> str | None:
    """Why a key's signature does not count for a model at a moment (RFC 3339, UTC); None where it does."""
    if key.revoked:
        return "is revoked"
    if not any(fnmatchcase(model, pattern) for pattern in key.models):
        return f"is not trusted for {model}, only for {', '.join(key.models)}"
    if key.not_before is not None and now < key.not_before:
        return f"is not valid before {key.not_before}"
    if key.not_after is not None and now > key.not_after:
        return f"expired at {key.not_after}"
    return None
