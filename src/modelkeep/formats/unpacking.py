"""Zip and tar files unpacked into a private folder: regular files, each once, and nothing outside it.

Names that are no plain paths, links and devices are told and passed over. Each file is made below the folder by
a descriptor, none through a link; modes, owners and times in the archive have no effect. What a compressed
stream becomes is measured while it is read.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelkeep.errors import IntegrityError, LimitExceeded, MissingExtra, ModelkeepError, StorageError
from modelkeep.formats import tar_reading
from modelkeep.formats.contents import Problem
from modelkeep.formats.limits import MIB, Limits
from modelkeep.formats.member_names import fault_of
from modelkeep.formats.streams import ByteRange, Chunks, open_regular
from modelkeep.formats.zip_reading import open_zip
from modelkeep.storage.local import write_all

ZIP, TAR, TAR_GZ, TAR_ZST = "zip", "tar", "tar.gz", "tar.zst"
_CHUNK = MIB  # bytes handled at a time
_ZIP_STARTS, _GZIP, _ZSTD = (b"PK\x03\x04", b"PK\x05\x06"), b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_GZIP_BITS = 16 + zlib.MAX_WBITS
_WINDOW = 2**27  # bytes that zstd may look back, as with its own --long
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BELOW = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def kind_of(head: bytes) -> str | None:
    """Which kind of archive begins with these bytes, at least 512 where the file is as long; None for no archive."""
    if head.startswith(_ZIP_STARTS):
        return ZIP
    if _begins_tar(head):
        return TAR
    if head.startswith(_GZIP):
        with suppress(zlib.error):
            return TAR_GZ if _begins_tar(zlib.decompressobj(_GZIP_BITS).decompress(head, tar_reading.BLOCK)) else None
    return TAR_ZST if head.startswith(_ZSTD) else None


def unpack(path: Path, kind: str, folder: Path, limits: Limits) -> tuple[Problem, ...]:
    """Unpack an archive into an empty folder, and tell what is odd about it.

    Raises IntegrityError, LimitExceeded, StorageError, MissingExtra for zstd.
    """
    with _Unpacking.below(folder) as unpacking:
        if kind == ZIP:
            return _unpack_zip(path, unpacking, limits)
        file = open_regular(path)
        try:
            return _unpack_tar(ByteRange(file, 0, os.fstat(file).st_size), kind, unpacking, limits)
        finally:
            os.close(file)


def _unpack_zip(path: Path, unpacking: _Unpacking, limits: Limits) -> tuple[Problem, ...]:
    with open_zip(path, limits) as archive:
        for name, entry in archive.entries.items():
            if not fault_of(name, limits) and not entry.fault:
                unpacking.file(name, archive.chunks(name))
        return tuple(archive.problems)


def _unpack_tar(packed: ByteRange, kind: str, unpacking: _Unpacking, limits: Limits) -> tuple[Problem, ...]:
    unpacked = {TAR: _plain, TAR_GZ: _gunzipped, TAR_ZST: _decompressed}[kind](packed)
    with closing(Chunks(_measured(unpacked, packed, limits))) as stream:
        tar = tar_reading.TarStream(stream, limits)
        for entry, data in tar:
            name = entry.name.removeprefix("./")  # tar's own word for what is in the folder that it packs
            if name in ("", ".") and entry.is_folder:
                continue
            if fault := fault_of(name, limits):
                tar.problems.append(Problem("tar-path", f"{name[:200]!r} is no plain path: {fault}", name))
            elif not entry.is_folder and not unpacking.file(name, data):
                tar.problems.append(Problem("tar-duplicate-name", f"{name!r} is there twice", name))
        return tuple(tar.problems)


@dataclass(frozen=True, slots=True)
class _Unpacking:
    """Files made below a folder, by its descriptor."""

    folder: int

    @classmethod
    @contextmanager
    def below(cls, folder: Path) -> Iterator[_Unpacking]:
        """Until the block ends."""
        descriptor = os.open(folder, _BELOW)
        try:
            yield cls(descriptor)
        except ModelkeepError:
            raise
        except OSError as error:
            raise StorageError(f"cannot unpack: {error.strerror}", hint="free some space in TMPDIR") from error
        finally:
            os.close(descriptor)

    def file(self, name: str, chunks: Iterator[memoryview]) -> bool:
        """Make a file, and the folders that lead to it; False where something else has its name."""
        *folders, last = name.split("/")
        with ExitStack() as opened:
            try:
                parent = self.folder
                for part in folders:
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o700, dir_fd=parent)
                    parent = os.open(part, _BELOW, dir_fd=parent)
                    opened.callback(os.close, parent)
                file = os.open(last, _NEW_FILE, 0o600, dir_fd=parent)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                return False
            opened.callback(os.close, file)
            for chunk in chunks:
                write_all(file, [chunk])
        return True


# --- streams


def _begins_tar(head: bytes) -> bool:
    try:
        return len(head) >= tar_reading.BLOCK and any(head[:512]) and bool(tar_reading.parsed(head[:512]))
    except IntegrityError:
        return False


def _plain(packed: ByteRange) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(_CHUNK))
    while count := packed.readinto(buffer):
        yield buffer[:count]


def _gunzipped(packed: ByteRange) -> Iterator[memoryview]:
    """gzip (RFC 1952): one member or several, each with its checksum, and zeros behind them."""
    stream = zlib.decompressobj(_GZIP_BITS)
    try:
        for chunk in _plain(packed):
            rest: bytes | memoryview = chunk
            while len(rest):
                if stream.eof:
                    if not bytes(rest).strip(b"\0"):
                        break
                    stream = zlib.decompressobj(_GZIP_BITS)
                yield memoryview(stream.decompress(rest, _CHUNK))
                rest = stream.unused_data if stream.eof else stream.unconsumed_tail
        while not stream.eof and (left := stream.decompress(stream.unconsumed_tail, _CHUNK)):
            yield memoryview(left)
    except zlib.error as error:
        raise IntegrityError("the archive is damaged", found=str(error)) from error
    if not stream.eof:
        raise IntegrityError("the archive is cut short")


def _decompressed(packed: ByteRange) -> Iterator[memoryview]:
    """Zstandard (RFC 8878): one frame or several."""
    zstandard = zstandard_library()
    try:
        with zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(
            packed, read_across_frames=True
        ) as stream:
            while data := stream.read(_CHUNK):
                yield memoryview(data)
    except zstandard.ZstdError as error:
        raise IntegrityError("the archive is damaged", found=str(error)) from error


def _measured(chunks: Iterator[memoryview], packed: ByteRange, limits: Limits) -> Iterator[memoryview]:
    """The same pieces, as long as they are no more than what was read of the archive can honestly become."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        limits.check("file", size, "the archive unpacks to too much")
        if size > limits.expansion_floor and size > limits.expansion_ratio * packed.tell():
            raise LimitExceeded(
                "the archive unpacks to suspiciously much",
                found=f"{packed.tell():,} bytes that become more than {size:,}",
                expected=f"at most {limits.expansion_ratio} times as many",
            )
        if len(chunk):
            yield chunk


def zstandard_library() -> Any:
    """The package that knows zstd. Raises MissingExtra."""
    try:
        import zstandard
    except ImportError as error:
        raise MissingExtra(".tar.zst needs zstandard", hint="pip install 'modelkeep[archives]'") from error
    return zstandard
