"""Signed bytes as they travel: a DSSE envelope in a Sigstore bundle, the layout of OMS v1.0 signatures.

Sources: DSSE https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md; the bundle
https://docs.sigstore.dev/about/bundle/ (v0.3, JSON); OMS https://github.com/ossf/model-signing-spec.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

from modelkeep.errors import LimitExceeded, UnsafeContent

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_BUNDLE = 64 * 2**20  # bytes: a model of 100,000 blobs takes about 20 MB


class _Signature(msgspec.Struct):
    sig: bytes  # base64 in JSON, as is the payload
    keyid: str | None = ""


class _Envelope(msgspec.Struct, rename="camel"):
    payload: bytes
    payload_type: str
    signatures: list[_Signature]


class _PublicKey(msgspec.Struct):
    hint: str = ""


class _Material(msgspec.Struct, rename="camel", omit_defaults=True):
    public_key: _PublicKey | None = None
    certificate: Any = None


class Bundle(msgspec.Struct, rename="camel"):
    """A parsed bundle; nothing in it is to be believed before :mod:`keys` or :mod:`keyless` has checked it."""

    media_type: str
    verification_material: _Material
    dsse_envelope: _Envelope

    @property
    def payload(self) -> bytes:
        """What is signed."""
        return self.dsse_envelope.payload

    @property
    def signature(self) -> bytes:
        """The one signature over :func:`pae` of the payload."""
        return self.dsse_envelope.signatures[0].sig

    @property
    def hint(self) -> str:
        """The id of the key that is said to have signed; empty where none is named."""
        return self.verification_material.public_key.hint if self.verification_material.public_key else ""

    @property
    def key_id(self) -> str:
        """What the signature is kept under: the key's id, as far as it is named, else its own digest."""
        return self.hint if re.fullmatch("[0-9a-f]{64}", self.hint) else hashlib.sha256(self.signature).hexdigest()

    @property
    def keyless(self) -> bool:
        """Whether a certificate stands in the place of a key."""
        return self.verification_material.certificate is not None


def pae(payload: bytes) -> bytes:
    """The pre-authentication encoding: the bytes that are signed, which name their own type."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def encode(payload: bytes, signature: bytes, key_id: str) -> bytes:
    """The bundle of a payload signed with a key."""
    envelope = _Envelope(payload, PAYLOAD_TYPE, [_Signature(signature)])
    return msgspec.json.encode(Bundle(MEDIA_TYPE, _Material(_PublicKey(key_id)), envelope))


def decode(data: bytes) -> Bundle:
    """Read a bundle with exactly one signature over an in-toto statement.

    Raises UnsafeContent for anything else: cut short, of another type, with several signatures; LimitExceeded.
    """
    if len(data) > MAX_BUNDLE:
        raise LimitExceeded(
            "a signature is too large", found=f"{len(data):,} bytes", expected=f"at most {MAX_BUNDLE:,}"
        )
    try:
        bundle = msgspec.json.decode(data, type=Bundle)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnsafeContent(f"a signature cannot be read: {error}", hint="sign again") from error
    envelope = bundle.dsse_envelope
    for what, found, expected in (
        ("a signature's media type", bundle.media_type, MEDIA_TYPE),
        ("the type of what is signed", envelope.payload_type, PAYLOAD_TYPE),
        ("the number of signatures in an envelope", len(envelope.signatures), 1),
    ):
        if found != expected:
            raise UnsafeContent(f"{what} is another", found=found, expected=expected)
    return bundle
