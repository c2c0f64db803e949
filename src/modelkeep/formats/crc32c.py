"""CRC-32C (Castagnoli), which TensorFlow keeps of every tensor. Computed by a library where one is installed."""

from __future__ import annotations

from functools import cache
from typing import Protocol

EXTRA = "pip install 'modelkeep[savedmodel]'"


class _Extend(Protocol):
    def __call__(self, crc: int, chunk: bytes) -> int: ...


@cache
def _extend() -> _Extend | None:
    try:
        from google_crc32c import extend, implementation
    except ImportError:
        return None
    # Its fallback in Python would take minutes for what takes the other a second.
    return extend if implementation == "c" else None


def available() -> bool:
    """Whether checksums can be computed here."""
    return _extend() is not None


def crc32c(data: bytes, before: int = 0) -> int | None:
    """The checksum of data that follows what has the checksum ``before``; None where no library is installed."""
    extend = _extend()
    return None if extend is None else extend(before, data)


def masked(crc: int) -> int:
    """A checksum as TensorFlow stores it, so that checksums of checksums stay sound (LevelDB's masking)."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
