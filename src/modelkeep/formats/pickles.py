"""Pickles of every protocol, bare or compressed, from joblib, and of PyTorch before 1.6: told, never loaded."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from modelkeep.errors import UnsafeContent
from modelkeep.formats.contents import Contents, Member
from modelkeep.formats.forms import Form, Place
from modelkeep.formats.limits import MIB, Limits
from modelkeep.formats.pickle_machine import Followed, Source, begins, pickles

_HEAD = 4096
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # of torch.save before 1.6: five pickles, then the storages' raw bytes


class _Unpacking(io.RawIOBase):
    """A packed stream of zlib, bzip2 or LZMA, unpacked while it is read. It has to end where its file ends."""

    def __init__(self, file: IO[bytes], unpacking: Any) -> None:
        self._file = file
        self._unpacking = unpacking

    def readable(self) -> Literal[True]:
        return True

    def readinto(self, buffer: Any) -> int:
        unpacked = b""
        while not unpacked and not self._unpacking.eof:
            unpacked = self._unpacking.decompress(self._packed(), len(buffer))
        if not unpacked and (self._unpacking.unused_data or self._file.read(1)):
            raise OSError("bytes behind the packed stream")
        buffer[: len(unpacked)] = unpacked
        return len(unpacked)

    def _packed(self) -> bytes:
        waiting: bytes = getattr(self._unpacking, "unconsumed_tail", b"")  # zlib's alone hands it back
        if waiting or not getattr(self._unpacking, "needs_input", True):
            return waiting
        if packed := self._file.read(64 * 1024):
            return packed
        raise EOFError("it ends in the midst of the packed stream")


def _unpacked(start: Callable[[], Any]) -> Callable[[IO[bytes]], io.BufferedReader]:
    return lambda file: io.BufferedReader(_Unpacking(file, start()), MIB)


# How a wrapped file begins → what unwraps it. LZ4 is known and not unwrapped.
_WRAPPINGS: dict[bytes, tuple[str, Callable[[IO[bytes]], Any]]] = {
    b"\x1f\x8b": ("gzip", lambda file: gzip.GzipFile(fileobj=file)),
    b"BZh": ("bzip2", _unpacked(bz2.BZ2Decompressor)),
    b"\xfd7zXZ": ("xz", _unpacked(lzma.LZMADecompressor)),
    b"\x5d\x00\x00": ("lzma", _unpacked(lzma.LZMADecompressor)),
    **{b"\x78" + level: ("zlib", _unpacked(zlib.decompressobj)) for level in (b"\x01", b"\x5e", b"\x9c", b"\xda")},
}
_UNPACKING_ERRORS = (EOFError, OSError, zlib.error, lzma.LZMAError)


def facts(stream: IO[bytes], limits: Limits, *, size: int, place: str = "") -> dict[str, Any]:
    """What a stream of pickles names and does, as JSON values.

    ``globals``: what is named, and how often each is called; ``unresolved`` and ``broken`` say what cannot be told;
    ``persistent`` counts ids that the reading program resolves; ``trailing`` tells of bytes behind the last pickle.
    """
    source = Source(stream, max(limits.expansion_floor, size * limits.expansion_ratio))
    followed: list[Followed] = []
    broken = None
    try:
        followed.extend(pickles(source, limits))
        trailing = bool(source.peek(1))
    except _UNPACKING_ERRORS as error:
        broken, trailing = f"it cannot be unpacked: {error}", False
    names = sorted({str(name) for one in followed for name in one.globals})
    return {
        "place": place,
        "protocol": max((one.protocol for one in followed), default=0),
        "opcodes": sum(one.opcodes for one in followed),
        "globals": {
            name: sum(calls for one in followed for known, calls in one.globals.items() if str(known) == name)
            for name in names
        },
        "unresolved": sorted({why for one in followed for why in one.unresolved}),
        "persistent": sum(len(one.persistent) for one in followed),
        "broken": broken or next((one.broken for one in followed if one.broken), None),
        "trailing": trailing and not (followed and followed[0].value == _TORCH_MAGIC),
    }


@contextmanager
def opened(path: Path) -> Iterator[tuple[IO[bytes], str | None]]:
    """A file of pickles to read from, unwrapped, and what it was wrapped in."""
    with path.open("rb") as file:
        start = file.read(8)
        file.seek(0)
        for magic, (name, unwrap) in _WRAPPINGS.items():
            if start.startswith(magic):
                with unwrap(file) as stream:
                    yield stream, name
                return
        yield file, None


def _recognise(place: Place) -> bool:
    if place.is_folder or not place.head:
        return False
    for magic, (_, unwrap) in _WRAPPINGS.items():
        if place.head.startswith(magic):
            return _is_pickle(_start(unwrap(io.BytesIO(place.head))))
    return _is_pickle(place.head)


def _is_pickle(head: bytes) -> bool:
    return begins(head, Limits())


def _start(stream: IO[bytes]) -> bytes:
    """The first bytes of what is packed in the head of a file, which breaks off."""
    found = b""
    try:
        while len(found) < _HEAD and (more := stream.read1(_HEAD)):  # type: ignore[attr-defined]
            found += more
    except _UNPACKING_ERRORS:
        pass
    return found


@contextmanager
def _read(place: Place, limits: Limits, thorough: bool) -> Iterator[Contents]:
    with opened(place.path) as (stream, wrapping):
        told = facts(stream, limits, size=place.size)
    details = {"pickles": [told], **({"wrapping": wrapping} if wrapping else {})}
    yield Contents(form="pickle", path=place.path, size=place.size, details=details)


def facts_of_member(member: Member, limits: Limits) -> dict[str, Any]:
    """The same of a pickle inside another form. Raises UnsafeContent where it cannot be read."""
    if member.read is None:
        raise UnsafeContent(f"the pickle {member.name} cannot be read")
    limits.check("config", member.size, f"the pickle {member.name} is too large")
    return facts(io.BytesIO(member.read()), limits, size=member.size, place=member.name)


FORM = Form(
    names=("pickle",),
    title="a pickle (.pkl, .joblib, .pt)",
    endings=(".pkl", ".pickle", ".joblib", ".pt", ".pth"),
    holds=frozenset(),
    recognise=_recognise,
    read=_read,
)
