"""BLAKE3 (https://github.com/BLAKE3-team/BLAKE3-specs), the one hash of the store.

It runs at several GB/s a core, faster than any disk a save waits for, and lets go of the interpreter's
lock while it does, so tensors are hashed on every core beside the writing.
"""

from __future__ import annotations

from collections.abc import Iterable

import blake3

from modelkeep.refs import Digest
from modelkeep.storage.protocol import Buffer

_MANY_THREADS_FROM = 4 * 2**20  # bytes; below, starting threads costs more than they bring


def digest_of(*chunks: Buffer) -> Digest:
    """The digest of the concatenation of ``chunks``."""
    if len(chunks) != 1:
        return digest_of_stream(chunks)
    (data,) = chunks
    threads = 1 if len(data) < _MANY_THREADS_FROM else blake3.blake3.AUTO
    return Digest("blake3:" + blake3.blake3(data, max_threads=threads).hexdigest())


def digest_of_stream(chunks: Iterable[Buffer]) -> Digest:
    """The digest of the concatenation of ``chunks``, each read when its turn comes, on this thread alone."""
    hasher = blake3.blake3()
    for chunk in chunks:
        hasher.update(chunk)
    return Digest("blake3:" + hasher.hexdigest())
