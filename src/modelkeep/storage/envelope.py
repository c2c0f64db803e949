"""A document that says by its first bytes whether any of the rest was changed.

It is exactly ``{"digest":"blake3:…","entry":{…}}``: the digest is BLAKE3 of the bytes of ``entry``.
"""

from __future__ import annotations

from modelkeep.storage.hashing import digest_of

_HEAD, _MIDDLE, _TAIL = b'{"digest":"', b'","entry":', b"}"
_BODY = len(_HEAD) + len("blake3:") + 64 + len(_MIDDLE)


def seal(body: bytes) -> tuple[bytes, str]:
    """The envelope around a body, and the body's digest, which the envelope begins with."""
    digest = digest_of(body)
    return b"".join((_HEAD, digest.encode(), _MIDDLE, body, _TAIL)), digest


def unseal(data: bytes) -> tuple[bytes, str]:
    """The body in an envelope, and its digest. Raises ValueError unless every byte fits."""
    body = data[_BODY:-1]
    digest = digest_of(body)
    if data[:_BODY] != b"".join((_HEAD, digest.encode(), _MIDDLE)) or data[-1:] != _TAIL:
        raise ValueError("its bytes are not what its digest says")
    return body, digest
