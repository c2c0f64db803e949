"""Plain files: bytes with a name, for whatever no other codec knows."""

from __future__ import annotations

import bz2
import io
import lzma
import os
import pickletools
import stat
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from modelkeep.assets.codec import Packed, Stored, one_part
from modelkeep.errors import AlreadyExists, LimitExceeded, NotFound, StorageError, UnsafeContent, UsageError

MAX_FILE = 2**30  # bytes
_PREFIX = 4096


@dataclass(frozen=True, slots=True)
class File:
    """A file's name, without folders, and its bytes. Raises UsageError for a name that could leave a folder."""

    name: str
    data: bytes

    def __post_init__(self) -> None:
        if not _is_file_name(self.name):
            raise UsageError("not a plain file name", found=repr(self.name)[:80], expected="a name without folders")

    def __repr__(self) -> str:
        return f"File({self.name!r}, {len(self.data)} bytes)"

    def save_to(self, folder: str | os.PathLike[str]) -> Path:
        """Write it into a folder that exists, and return its path.

        Raises AlreadyExists where something of that name is there (a link too), StorageError where the
        folder is not, or the disk refuses.
        """
        path = Path(folder) / self.name
        try:
            with path.open("xb") as target:
                target.write(self.data)
        except FileExistsError as error:
            raise AlreadyExists(f"{path} is there already", hint="move it away, or choose another folder") from error
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror}") from error
        return path


class PlainFile:
    """A path or a :class:`File`, read whole; at most ``MAX_FILE`` bytes, and never a pickle."""

    kind = "file"

    def accepts(self, value: Any) -> bool:
        """A :class:`pathlib.Path` or a :class:`File`."""
        return isinstance(value, Path | File)

    def pack(self, name: str, value: Path | File) -> Packed:
        """Raises NotFound, LimitExceeded, UsageError for a folder, UnsafeContent for a pickle."""
        file = value if isinstance(value, File) else read(value)
        refuse_pickle(file.data, file.name)
        return one_part(name, self.kind, file.data, {"name": file.name, "size": len(file.data)})

    def unpack(self, stored: Stored) -> File:
        """A :class:`File`."""
        name = stored.asset.info.get("name")
        if not isinstance(name, str) or not _is_file_name(name):
            raise UnsafeContent(f"the asset {stored.asset.name!r} has a file name that could leave its folder")
        return File(name, stored.part())


def read(path: str | os.PathLike[str]) -> File:
    """A regular file of at most ``MAX_FILE`` bytes. Raises NotFound, UsageError, LimitExceeded, StorageError."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{path} is not a regular file", hint="give each file as an asset of its own")
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}") from error
    except IsADirectoryError as error:
        raise UsageError(f"{path} is a folder", hint="give each file as an asset of its own, or zip them") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_FILE:
        raise LimitExceeded(f"{path} is too large for an asset", expected=f"at most {MAX_FILE} bytes")
    return File(path.name, data)


def refuse_pickle(data: bytes, name: str) -> None:
    """Raise UnsafeContent for a pickle, by content, plain or compressed. Nothing in it is run."""
    if any(_is_pickle(layer) for layer in (data, *_decompressed(data))):
        raise UnsafeContent(
            f"{name} is a pickle, which runs code when it is opened",
            hint="load it in Python where you trust it, and give what is inside: keep.save(…, assets={'name': value})",
        )


def _is_pickle(data: bytes) -> bool:
    """Whether ``data`` reads as pickle opcodes.

    From protocol 2 on a pickle says so at its start, and a few opcodes settle it: joblib writes raw
    arrays in between. Older ones are text, and must read as opcodes to the very end: a file of ``N.``
    would by chance.
    """
    says_so = len(data) > 1 and data[0] == 0x80 and 2 <= data[1] <= 5
    end = len(data.rstrip()) - 1
    if not says_so and data[end : end + 1] != b".":
        return False
    try:
        if says_so:
            return bool(list(islice(pickletools.genops(io.BytesIO(data)), 5)))
        last = deque(pickletools.genops(io.BytesIO(data)), maxlen=3)
    except (ValueError, IndexError, OverflowError):
        return False
    return len(last) == 3 and last[-1][2] == end


def _decompressed(data: bytes) -> list[bytes]:
    """The first bytes of ``data`` under each compression that joblib and people use, where it is that."""
    openers: dict[bytes, Callable[[bytes], bytes]] = {
        b"\x1f\x8b": lambda d: zlib.decompressobj(31).decompress(d, _PREFIX),
        b"\x78": lambda d: zlib.decompressobj().decompress(d, _PREFIX),
        b"BZh": lambda d: bz2.BZ2Decompressor().decompress(d, _PREFIX),
        b"\xfd7zXZ": lambda d: lzma.LZMADecompressor().decompress(d, _PREFIX),
        b"\x5d\x00": lambda d: lzma.LZMADecompressor().decompress(d, _PREFIX),
    }
    found = []
    for magic, opener in openers.items():
        if data.startswith(magic):
            try:
                found.append(opener(data))
            except (zlib.error, OSError, lzma.LZMAError, EOFError):
                continue
    return found


def _is_file_name(name: str) -> bool:
    """One part of a path on every system: no separators, drives, control characters, ``.`` or ``..``."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return False
    return 0 < size <= 255 and name.strip(". ") != "" and not any(c in "/\\:" or not c.isprintable() for c in name)
