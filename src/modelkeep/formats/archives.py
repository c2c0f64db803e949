"""Folders, ``.zip``, ``.tar``, ``.tar.gz`` and ``.tar.zst`` that hold one model of another form, read and written.

What is in an archive is unpacked into a private folder, which is gone when the model is closed. Only regular
files and folders are made, each below that folder by a descriptor, none through a link and none twice; names,
modes and times of the archive have no other effect.
"""

from __future__ import annotations

import os
import re
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelkeep.errors import IntegrityError, LimitExceeded, MissingExtra, ModelkeepError, StorageError, UsageError
from modelkeep.formats import forms, tar_reading
from modelkeep.formats.contents import Contents, Member, Problem
from modelkeep.formats.folders import open_folder
from modelkeep.formats.forms import Form, Place, look
from modelkeep.formats.limits import MIB, Limits
from modelkeep.formats.member_names import fault_of
from modelkeep.formats.streams import ByteRange, Chunks
from modelkeep.formats.zip_reading import open_regular, open_zip
from modelkeep.storage.local import write_all

FOLDER, ZIP, TAR, TAR_GZ, TAR_ZST = "folder", "zip", "tar", "tar.gz", "tar.zst"
_CHUNK = MIB  # bytes handled at a time
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_GZIP_BITS = 16 + zlib.MAX_WBITS
_WINDOW = 2**27  # bytes that zstd may look back, as with its own --long
_MANY = 1_000  # entries of a folder, beyond which nobody looks for one model in it
# Left by macOS and Windows wherever they pack or show a folder.
_LEFT_OVER = re.compile(r"__MACOSX|\._.*|\.DS_Store|Thumbs\.db|desktop\.ini")
_SHARD = re.compile(r".+_\d{5}\.weights\.h5")
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BELOW = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def recognise(place: Place) -> bool:
    """Whether it is an archive, or a folder that holds a model of any other form."""
    if place.is_folder:
        return bool(_models_in(place.path))
    return kind_of(place) is not None


def kind_of(place: Place) -> str | None:
    """Which kind of archive a file is, or that it is a folder."""
    if place.is_folder:
        return FOLDER
    if place.head.startswith((b"PK\x03\x04", b"PK\x05\x06")) or place.members:
        return ZIP
    if _begins_tar(place.head):
        return TAR
    if place.head.startswith(_GZIP):
        with suppress(zlib.error):
            return TAR_GZ if _begins_tar(zlib.decompressobj(_GZIP_BITS).decompress(place.head, 512)) else None
    return TAR_ZST if place.head.startswith(_ZSTD) else None


@contextmanager
def read(place: Place, limits: Limits, thorough: bool) -> Iterator[Contents]:
    """Open the one model in it; see :class:`modelkeep.formats.forms.Form`.

    ``details["archive"]`` has the ``form`` of what is outside and the ``member`` that is the model, ``members``
    the files beside it. Raises UsageError where there is no model or more than one.
    """
    kind = kind_of(place)
    if kind == FOLDER:
        with _model_of(place.path, place, kind, (), limits, thorough) as contents:
            yield contents
        return
    if limits.nested < 1:
        raise LimitExceeded(f"{place.path.name} lies in too many archives", hint="unpack the outer ones first")
    with tempfile.TemporaryDirectory(prefix="modelkeep-", ignore_cleanup_errors=True) as folder:
        problems = _unpack(place, kind, Path(folder), limits)
        inner = replace(limits, nested=limits.nested - 1)
        with _model_of(Path(folder), place, kind, problems, inner, thorough) as contents:
            yield contents


# --- the model in a folder


@contextmanager
def _model_of(
    folder: Path, outer: Place, kind: str | None, problems: tuple[Problem, ...], limits: Limits, thorough: bool
) -> Iterator[Contents]:
    model, form = _one_model(folder, outer.path.name)
    with open_folder(folder, limits) as files, form.read(model, limits, thorough) as contents:
        limits.check("file", model.size, f"{model.path.name} is too large")
        where = "" if model.path == folder else model.path.relative_to(folder).as_posix()
        beside = [name for name in files.sizes if name != where and not name.startswith(f"{where}/") and where]
        archive = {"form": kind, "member": where}
        if "archive" in contents.details:
            archive["archive"] = contents.details["archive"]
        yield replace(
            contents,
            path=contents.path,
            size=outer.size or sum(files.sizes.values()),
            members=(*contents.members, *(Member(name, files.sizes[name]) for name in beside)),
            pickles=(*contents.pickles, *_pickles(folder, beside)),
            details={**contents.details, "archive": archive},
            problems=(*problems, *files.problems, *contents.problems),
        )


def _one_model(folder: Path, name: str) -> tuple[Place, Form]:
    found = _models_in(folder)
    if len(found) == 1:
        return found[0]
    names = ", ".join(place.path.name for place, _ in found[:10])
    raise UsageError(
        f"{name} holds {'no model file that is known' if not found else 'more than one model'}",
        found=names or None,
        hint="name the one that is meant" if found else None,
    )


def _models_in(folder: Path) -> list[tuple[Place, Form]]:
    """The folder itself where it is a model, else those that it holds, one level deep.

    A folder that holds nothing but another one stands for that. Files that hold no model, such as a pickled
    tokenizer, count only where there is nothing else.
    """
    while True:
        if form := _form_of(look(folder)):
            return [(look(folder), form)]
        entries = _entries(folder)
        if len(entries) != 1 or not entries[0].is_dir():
            break
        folder = entries[0]
    found = [(place, form) for place in map(look, entries) if (form := _form_of(place))]
    if any(place.path.name.endswith(".weights.json") for place, _ in found):
        found = [(place, form) for place, form in found if not _SHARD.fullmatch(place.path.name)]
    return [(place, form) for place, form in found if form.holds] or found


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder but for links and left-overs; nothing where it is too much to be one model's."""
    entries = [entry for entry in os.scandir(folder) if not _LEFT_OVER.fullmatch(entry.name)]
    if len(entries) > _MANY:
        return []
    plain = [entry for entry in entries if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)]
    return sorted(Path(entry.path) for entry in plain)


def _form_of(place: Place) -> Form | None:
    """The form of what is at a place; of a folder only its own, not that of what it holds."""
    known = (form for form in forms.all_forms() if not (place.is_folder and form is FORM))
    return next((form for form in known if form.recognise(place)), None)


def _pickles(folder: Path, names: list[str]) -> tuple[Member, ...]:
    """Those among the files beside a model that Python would unpickle."""
    pickles = []
    for name in names:
        place = look(folder / name)
        form = _form_of(place)
        if form is not None and "pickle" in form.names:
            pickles.append(Member(name, place.size, place.path.read_bytes))
    return tuple(pickles)


# --- unpacking


def _unpack(place: Place, kind: str | None, folder: Path, limits: Limits) -> tuple[Problem, ...]:
    with _Unpacking.below(folder, limits) as unpacking:
        if kind == ZIP:
            return _unpack_zip(place.path, unpacking, limits)
        file = open_regular(place.path)
        try:
            return _unpack_tar(file, place, kind, unpacking, limits)
        finally:
            os.close(file)


def _unpack_zip(path: Path, unpacking: _Unpacking, limits: Limits) -> tuple[Problem, ...]:
    with open_zip(path, limits) as archive:
        for name, entry in archive.entries.items():
            if not fault_of(name, limits) and not entry.fault:
                unpacking.file(name, archive.chunks(name))
        return tuple(archive.problems)


def _unpack_tar(
    file: int, place: Place, kind: str | None, unpacking: _Unpacking, limits: Limits
) -> tuple[Problem, ...]:
    packed = ByteRange(file, 0, place.size)
    chunks = {TAR: _plain, TAR_GZ: _gunzipped, TAR_ZST: _decompressed}[kind or TAR](packed)
    tar = tar_reading.TarStream(Chunks(_measured(chunks, packed, limits)), limits)
    for entry, data in tar:
        if fault := fault_of(entry.name, limits) if entry.name not in (".", "") else None:
            # "./model.keras" is how tar names what is in the folder that it packs.
            name = entry.name.removeprefix("./")
            if fault_of(name, limits):
                tar.problems.append(Problem("tar-path", f"{entry.name[:200]!r} is no plain path: {fault}", entry.name))
                continue
            entry = replace(entry, name=name)
        if entry.is_folder:
            continue
        if not unpacking.file(entry.name, data):
            tar.problems.append(Problem("tar-duplicate-name", f"{entry.name!r} is there twice", entry.name))
    return tuple(tar.problems)


@dataclass(frozen=True, slots=True)
class _Unpacking:
    """Files made below a folder, by its descriptor."""

    folder: int
    limits: Limits

    @classmethod
    @contextmanager
    def below(cls, folder: Path, limits: Limits) -> Iterator[_Unpacking]:
        """Until the block ends."""
        descriptor = os.open(folder, _BELOW)
        try:
            yield cls(descriptor, limits)
        except ModelkeepError:
            raise
        except OSError as error:
            raise StorageError(f"cannot unpack: {error.strerror}", hint="free some space in TMPDIR") from error
        finally:
            os.close(descriptor)

    def file(self, name: str, chunks: Iterator[memoryview]) -> bool:
        """Make a file, and the folders that lead to it; False where something else has its name."""
        *folders, last = name.split("/")
        with ExitStack() as closing:
            try:
                parent = self.folder
                for part in folders:
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o700, dir_fd=parent)
                    parent = os.open(part, _BELOW, dir_fd=parent)
                    closing.callback(os.close, parent)
                file = os.open(last, _NEW_FILE, 0o600, dir_fd=parent)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                return False
            closing.callback(os.close, file)
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
    zstandard = _zstandard()
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


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise MissingExtra(".tar.zst needs zstandard", hint="pip install 'modelkeep[archives]'") from error
    return zstandard


FORM = Form(
    names=tuple(forms.TITLES),
    title="folder or archive of one of these (.zip, .tar, .tar.gz, .tar.zst)",
    endings=(".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst"),
    holds=frozenset({"architecture", "weights", "optimizer", "servable"}),
    recognise=recognise,
    read=read,
)
