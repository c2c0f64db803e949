"""A bundle: one version in one portable ``.zip``.

The first member is ``manifest.json``; then each blob that it names, in the order of their digests, as
``blobs/<hex>``. :mod:`modelkeep.formats.zip` leaves nothing else to choice, so a version has exactly one
bundle, and what is not byte for byte that file is refused. Aliases, history and attachments belong to a
store and do not travel; gate results, lineage and environment are in the manifest and do.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import blake3

from modelkeep.errors import IntegrityError, LimitExceeded, NotFound, StorageError, UsageError
from modelkeep.formats.durable import new_file
from modelkeep.formats.zip import Member, directory, local_header, read_header
from modelkeep.manifest import MAX_MANIFEST, Manifest, decode, encode
from modelkeep.refs import Digest
from modelkeep.report import Report
from modelkeep.storage.blobs import Blobs
from modelkeep.storage.hashing import digest_of
from modelkeep.storage.local import write_all
from modelkeep.storage.protocol import Buffer, Progress
from modelkeep.verify import check_structure, check_tensors

MAX_BUNDLE = 100 * 2**30  # bytes
MAX_MEMBERS = 100_000  # blobs; a tensor of 1 MiB or more is one
MANIFEST = "manifest.json"

_CHUNK = 2**20  # bytes read at a time
_LONGEST_HEADER = 512  # bytes; names have 70 characters at most


# --- out


def write(
    manifest: bytes, blobs: Blobs, path: Path, *, overwrite: bool = False, progress: Progress | None = None
) -> int:
    """Write the bundle of the version whose manifest has these bytes; returns its size in bytes.

    The file is there whole and durably, or not at all; the same manifest always gives the same bytes.
    Every blob is checked on its way out. Raises AlreadyExists unless ``overwrite``, BlobMissing,
    IntegrityError, StorageError.
    """
    described = decode(manifest)
    digests = sorted(described.blobs())
    members: list[Member] = []

    def add(name: str, data: Buffer, crc: int) -> None:
        members.append(Member(name, len(data), crc, members[-1].end if members else 0))
        write_all(file, [local_header(members[-1]), data])
        if progress:
            progress("writing the bundle", min(members[-1].end, described.size), described.size)

    with new_file(path, overwrite=overwrite) as file, ThreadPoolExecutor(os.cpu_count()) as pool:
        add(MANIFEST, manifest, zlib.crc32(manifest))
        # The CRC takes longer than the digest and the copy together, so it runs ahead on the other cores.
        for digest, crc in zip(digests, pool.map(partial(_crc_of_whole, blobs), digests), strict=True):
            add(_member_name(digest), blobs.map_blob(digest), crc)
        end = directory(members)
        write_all(file, [end])
    return members[-1].end + len(end)


def _crc_of_whole(blobs: Blobs, digest: str) -> int:
    blobs.check(digest)
    return zlib.crc32(blobs.map_blob(digest))


def _member_name(digest: str) -> str:
    return f"blobs/{digest.removeprefix('blake3:')}"


# --- in


def recognise(path: Path) -> bool:
    """Whether a file begins as a bundle does, whatever its name. Raises NotFound, StorageError."""
    try:
        with path.open("rb") as file:
            start = file.read(_LONGEST_HEADER)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    return start.startswith(b"PK\x03\x04") and start[30 : 30 + len(MANIFEST)] == MANIFEST.encode()


@dataclass(frozen=True, slots=True)
class Bundle:
    """An open bundle, every byte of which was checked. Made by :func:`read`."""

    manifest: Manifest
    digest: Digest  # of the manifest: the version's identity
    size: int  # bytes of the file
    _file: int
    _members: dict[str, Member]  # by the digest of the blob

    def blob(self, digest: str) -> bytearray:
        """The bytes of a blob, checked again, since the file may have changed. Raises IntegrityError."""
        member = self._members[digest]
        data = _read(self._file, member)
        if digest_of(data) != digest:
            raise _damaged(member, "its bytes have another digest")
        return data


@contextmanager
def read(path: Path, *, progress: Progress | None = None) -> Iterator[Bundle]:
    """Open a bundle and check all of it before anything is used; closed when the block ends.

    Headers, directory, padding, sizes, CRCs, the manifest's own sense, and the digest of every blob. The
    file is read in pieces of 1 MiB. Raises NotFound, LimitExceeded beyond the limits above, FormatTooNew,
    StorageError, and IntegrityError, naming the place, for everything else.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    try:
        yield _checked(path, file, progress)
    finally:
        os.close(file)


def import_into(blobs: Blobs, bundle: Bundle, *, progress: Progress | None = None) -> int:
    """Keep every blob of an open bundle in a store, ready to be published; returns the bytes added.

    Two blobs are in memory at a time: one is written while the other waits for the disk. Raises
    IntegrityError, also where a tensor in a pack has another digest than the manifest says; StorageError.
    What was added by then is left for ``gc``.
    """
    added, done = 0, 0
    with ThreadPoolExecutor(2) as pool:
        stored = pool.map(lambda digest: blobs.create(digest, [bundle.blob(digest)]), bundle._members)
        for member, size in zip(bundle._members.values(), stored, strict=True):
            added += size
            done += member.size
            if progress:
                progress("storing the bundle", done, bundle.size)
    sizes = {digest: member.size for digest, member in bundle._members.items()}
    found = check_tensors(bundle.manifest, blobs, sizes, progress)
    Report("the bundle's tensors", tuple(found)).raise_for_failures()
    return added


def _checked(path: Path, file: int, progress: Progress | None) -> Bundle:
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        raise IntegrityError(f"{path} is not a regular file")
    _limit("the bundle", status.st_size, MAX_BUNDLE, "bytes")
    try:
        return _audited(file, status.st_size, progress)
    except (IntegrityError, UsageError) as error:
        raise IntegrityError(
            f"{path} is not a whole bundle: {error.what}",
            found=error.found,
            expected=error.expected,
            hint="export it again; a bundle packed anew by another tool is not one",
        ) from error


def _audited(file: int, size: int, progress: Progress | None) -> Bundle:
    first = _member(file, 0, size, MANIFEST)
    _limit("the manifest", first.size, MAX_MANIFEST, "bytes")
    data = bytes(_read(file, first))
    digest = digest_of(data)
    if zlib.crc32(data) != first.crc:
        raise _damaged(first, "its bytes have another CRC-32")
    manifest = decode(data)
    if encode(manifest) != data:
        raise _damaged(first, "it is not written as modelkeep writes it")
    _limit("its blobs", len(manifest.blobs()), MAX_MEMBERS, "files")
    members: dict[str, Member] = {}
    end = first.end
    for blob in sorted(manifest.blobs()):
        members[blob] = _member(file, end, size, _member_name(blob))
        end = members[blob].end
    tail = directory([first, *members.values()])
    if _some(file, len(tail) + 1, end) != tail:
        raise IntegrityError(f"the directory at byte {end:,} is not that of its members")
    sizes = {blob: member.size for blob, member in members.items()}
    Report("its manifest", tuple(check_structure(manifest, sizes))).raise_for_failures()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        checks = pool.map(partial(_check, file), members.values(), members)
        for member, _ in zip(members.values(), checks, strict=True):
            if progress:
                progress("checking the bundle", member.end, size)
    return Bundle(manifest, digest, size, file, members)


def _member(file: int, offset: int, size: int, name: str) -> Member:
    """The member whose header is at ``offset``; it must be the one of that name, and within the file."""
    member = read_header(_some(file, _LONGEST_HEADER, offset), offset)
    if member.name != name:
        raise IntegrityError(f"another file at byte {offset:,}", found=repr(member.name), expected=repr(name))
    if member.end > size:
        raise IntegrityError(
            f"{name} is cut short", found=f"a file of {size:,} bytes", expected=f"at least {member.end:,}"
        )
    return member


def _check(file: int, member: Member, digest: str) -> None:
    hasher, crc = blake3.blake3(), 0
    for chunk in _chunks(file, member):
        hasher.update(chunk)
        crc = zlib.crc32(chunk, crc)
    if f"blake3:{hasher.hexdigest()}" != digest:
        raise _damaged(member, "its bytes have another digest")
    if crc != member.crc:
        raise _damaged(member, "its header has another CRC-32")


def _chunks(file: int, member: Member) -> Iterator[memoryview]:
    """The member's bytes, 1 MiB at a time in the same memory."""
    buffer = memoryview(bytearray(min(_CHUNK, member.size)))
    for at in range(member.data_offset, member.end, _CHUNK):
        chunk = buffer[: member.end - at]
        _fill(chunk, file, at)
        yield chunk


def _read(file: int, member: Member) -> bytearray:
    data = bytearray(member.size)
    _fill(memoryview(data), file, member.data_offset)
    return data


def _fill(view: memoryview, file: int, at: int) -> None:
    with _named_errors():
        while view:
            count = os.preadv(file, [view], at)
            if not count:
                raise IntegrityError(f"the file ends at byte {at:,}")
            view, at = view[count:], at + count


def _some(file: int, length: int, at: int) -> bytes:
    with _named_errors():
        return os.pread(file, length, at)


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot read the bundle: {error.strerror}") from error


def _damaged(member: Member, what: str) -> IntegrityError:
    return IntegrityError(f"{member.name} at byte {member.offset:,}: {what}")


def _limit(what: str, found: int, most: int, unit: str) -> None:
    if found > most:
        raise LimitExceeded(f"{what} is too large", found=f"{found:,} {unit}", expected=f"at most {most:,}")
