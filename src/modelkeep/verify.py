"""A version checked cold: every byte that it names, and whether what it says of itself fits together.

Reading the bytes is the proof; nothing is rebuilt and nothing runs. What a live replay finds is added by
the live room.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Any, TypeVar

from modelkeep.catalog import Attachment
from modelkeep.errors import FormatTooNew, IntegrityError, LimitExceeded, ModelkeepError, NotFound, StorageError
from modelkeep.manifest import CONFIG, MAX_MANIFEST, Environment, Manifest, Piece, Tensor, TensorSpec, decode
from modelkeep.refs import short_digest
from modelkeep.report import Finding, Report, Severity, several
from modelkeep.sizes import human_bytes
from modelkeep.storage.blobs import Blobs
from modelkeep.storage.hashing import digest_of
from modelkeep.storage.protocol import Progress

UNREADABLE = (IntegrityError, FormatTooNew, LimitExceeded, NotFound, StorageError)  # what is told, not raised
_WIDTH = re.compile(r"(?:u?int|bfloat|float|complex)(\d+)(?:_e\d+m\d+\w*)?")
_UNSAFE = re.compile(r"^/|\\|[\x00-\x1f\x7f]|(^|/)\.{0,2}(/|$)")
Item = TypeVar("Item", bound=Hashable)


def verify(
    title: str,
    digest: str,
    blobs: Blobs,
    *,
    ledger: Iterable[Finding] = (),
    attachments: Iterable[Attachment] = (),
    environment: Callable[[Environment], Iterable[Finding]] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Check the version whose manifest has this digest; damage never stops it.

    ``ledger`` are the findings about the chain that leads to the version, ``attachments`` what the ledger names
    beside it; ``environment`` compares where it
    was saved with where it is now. Bytes are read on all cores.
    """
    found = list(ledger)
    try:
        manifest = decode(blobs.get(digest, limit=MAX_MANIFEST))
    except UNREADABLE as error:
        return Report(title, (*found, Finding("manifest", Severity.FAILURE, str(error), digest)))
    found.append(Finding("manifest", Severity.OK, _counted(manifest), short_digest(digest)))
    sizes, damage = check_blobs(manifest, blobs, progress)
    found += damage
    found += check_structure(manifest, sizes)
    found += check_tensors(manifest, blobs, sizes, progress)
    found += _check_attachments(attachments, blobs)
    if not any(finding.severity is Severity.FAILURE for finding in found):
        size = human_bytes(sum(sizes.values()))
        found.append(Finding("content", Severity.OK, f"{len(sizes):,} blobs, {size}, are what the manifest says"))
    found += _told(manifest)
    if environment and manifest.environment:
        found += environment(manifest.environment)
    return Report(title, tuple(found))


def _counted(manifest: Manifest) -> str:
    return f"{len(manifest.parts):,} parts, {len(manifest.tensors):,} tensors, {manifest.parameters:,} parameters"


# --- bytes


def check_blobs(
    manifest: Manifest, blobs: Blobs, progress: Progress | None = None
) -> tuple[dict[str, int], list[Finding]]:
    """Compare every blob with its digest; the sizes of those that are whole, and what is wrong with the rest."""
    expected = _expected_sizes(manifest)
    found = on_all_cores("checking blobs", expected, blobs.check, progress)
    sizes = {digest: size for digest, size in found.items() if isinstance(size, int)}
    damage = [
        Finding("blob", Severity.FAILURE, f"{error}; it holds {_held(manifest, digest)}", digest)
        for digest, error in found.items()
        if not isinstance(error, int)
    ]
    return sizes, damage


def check_tensors(
    manifest: Manifest, blobs: Blobs, sizes: Mapping[str, int], progress: Progress | None = None
) -> list[Finding]:
    """Compare with their own digest the tensors that are not one whole blob, which tells all by itself.

    ``sizes`` are those of the blobs that are there and whole; a tensor in another is passed over.
    """
    inside = {
        tensor: tensor.nbytes
        for tensor in manifest.tensors
        if tensor.pieces != (Piece(blob=tensor.digest, size=sizes.get(tensor.digest, -1)),)
        and all(_fits(piece, sizes) for piece in tensor.pieces)
    }
    maps = {digest: blobs.map_blob(digest) for digest in {piece.blob for tensor in inside for piece in tensor.pieces}}

    def check(tensor: Tensor) -> int:
        found = digest_of(*(maps[p.blob][p.offset : p.offset + p.size] for p in tensor.pieces))
        if found != tensor.digest:
            raise IntegrityError("its bytes have another digest", found=found, expected=tensor.digest)
        return tensor.nbytes

    found = on_all_cores("checking tensors", inside, check, progress)
    return [
        Finding("tensor", Severity.FAILURE, str(error), tensor.name)
        for tensor, error in found.items()
        if not isinstance(error, int)
    ]


def _check_attachments(attachments: Iterable[Attachment], blobs: Blobs) -> Iterator[Finding]:
    for attachment in attachments:
        try:
            size = blobs.check(attachment.digest)
        except UNREADABLE as error:
            yield _failed("attachment", attachment.kind, str(error))
            continue
        if size != attachment.size:
            yield _failed("attachment", attachment.kind, f"found {size:,} bytes, expected {attachment.size:,}")


def _fits(piece: Piece, sizes: Mapping[str, int]) -> bool:
    return piece.offset >= 0 and piece.size >= 0 and piece.offset + piece.size <= sizes.get(piece.blob, -1)


def _expected_sizes(manifest: Manifest) -> dict[str, int]:
    """Bytes of each blob as far as the manifest tells: of a pack, to the end of the last tensor named."""
    sizes: dict[str, int] = {part.digest: part.size for part in manifest.parts}
    for tensor in manifest.tensors:
        for piece in tensor.pieces:
            sizes[piece.blob] = max(sizes.get(piece.blob, 0), piece.offset + piece.size)
    return sizes


def _held(manifest: Manifest, blob: str) -> str:
    """What is lost with a blob, for people."""
    names = [part.name for part in manifest.parts if part.digest == blob]
    names += [t.variable or t.name for t in manifest.tensors if any(piece.blob == blob for piece in t.pieces)]
    return several(names)


def on_all_cores(
    what: str, items: Mapping[Item, int], check: Callable[[Item], int], progress: Progress | None
) -> dict[Item, int | ModelkeepError]:
    """The bytes that ``check`` read of each item, or its error. ``items`` are with their bytes, for progress."""

    def attempt(item: Item) -> int | ModelkeepError:
        try:
            return check(item)
        except UNREADABLE as error:
            return error

    found, done, total = {}, 0, sum(items.values())
    with ThreadPoolExecutor(os.cpu_count(), "modelkeep-verify") as pool:
        for item, result in zip(items, pool.map(attempt, items), strict=True):
            found[item] = result
            done += items[item]
            if progress:
                progress(what, done, total)
    return found


# --- what the manifest says


def check_structure(manifest: Manifest, sizes: Mapping[str, int]) -> list[Finding]:
    """Whether names, sizes and references of a manifest fit each other, and the blobs of these ``sizes``."""
    return [
        *_check_names(manifest),
        *_check_parts(manifest, sizes),
        *(finding for tensor in manifest.tensors for finding in _check_tensor(tensor, sizes)),
        *_check_references(manifest),
        *_check_golden(manifest),
    ]


def _failed(check: str, subject: str, message: str) -> Finding:
    return Finding(check, Severity.FAILURE, message, subject)


def _check_names(manifest: Manifest) -> Iterator[Finding]:
    kinds = {
        "part": Counter(part.name for part in manifest.parts),
        "tensor": Counter(tensor.name for tensor in manifest.tensors),
        "asset": Counter(asset.name for asset in manifest.assets),
    }
    for kind, names in kinds.items():
        for name in (name for name, count in names.items() if count > 1):
            yield _failed("name", name, f"more than one {kind} has this name")
    for part in manifest.parts:
        if _UNSAFE.search(part.name):
            yield _failed("name", part.name, "is not a relative path")


def _check_parts(manifest: Manifest, sizes: Mapping[str, int]) -> Iterator[Finding]:
    for part in manifest.parts:
        size = sizes.get(part.digest, part.size)
        if size != part.size:
            yield _failed("part-size", part.name, f"found {size:,} bytes, expected {part.size:,}")


def _check_tensor(tensor: Tensor, sizes: Mapping[str, int]) -> Iterator[Finding]:
    width = itemsize(tensor.dtype)
    if width is None or any(length < 0 for length in tensor.shape):
        yield _failed("tensor-size", tensor.name, f"{tensor.dtype} {tensor.shape} is no array")
    elif tensor.nbytes != prod(tensor.shape) * width:
        expected = prod(tensor.shape) * width
        message = f"found {tensor.nbytes:,} bytes, expected {expected:,} for {tensor.dtype} {tensor.shape}"
        yield _failed("tensor-size", tensor.name, message)
    for piece in tensor.pieces:
        if piece.blob in sizes and not _fits(piece, sizes):
            message = (
                f"bytes {piece.offset:,} to {piece.offset + piece.size:,} are not in a blob of {sizes[piece.blob]:,}"
            )
            yield _failed("tensor-place", tensor.name, message)


def itemsize(dtype: str) -> int | None:
    """Bytes of one value of a dtype as stored, None for what is no dtype of numbers.

    Everything below a byte takes a byte: Keras packs two ``int4`` into an ``int8`` itself.
    """
    found = _WIDTH.fullmatch(dtype)
    if found is None:
        return 1 if dtype == "bool" else None
    return max(int(found[1]) // 8, 1)


def _check_references(manifest: Manifest) -> Iterator[Finding]:
    """Everything that is named must be listed."""
    parts = {part.name for part in manifest.parts}
    tensors = {tensor.name for tensor in manifest.tensors}
    for user, name, listed in _references(manifest, parts, tensors):
        if name not in listed:
            yield _failed("reference", user, f"{name} is not in this version")


def _references(manifest: Manifest, parts: set[str], tensors: set[str]) -> Iterator[tuple[str, str, set[str]]]:
    if manifest.kind == "whole":
        yield "architecture", CONFIG, parts
    if manifest.pipeline is not None:
        yield "pipeline", manifest.pipeline, parts
    for asset in manifest.assets:
        yield from ((f"asset {asset.name}", name, parts) for name in asset.parts)
        yield from ((f"asset {asset.name}", name, tensors) for name in asset.tensors)
    for item in manifest.custom_objects:
        if item.source is not None:
            yield f"custom object {item.name}", item.source, parts
    if manifest.golden is not None:
        # Arrays of text and plain values are JSON parts, and named so.
        names = [*_leaves(manifest.golden.inputs), *_leaves(manifest.golden.outputs)]
        yield from (("golden", name, parts if name.endswith(".json") else tensors) for name in names)
        if manifest.golden.raw is not None:
            yield "golden", manifest.golden.raw, parts


def _leaves(structure: Any) -> list[str]:
    match structure:
        case str():
            return [structure]
        case Mapping():
            return [leaf for inner in structure.values() for leaf in _leaves(inner)]
        case list() | tuple():
            return [leaf for inner in structure for leaf in _leaves(inner)]
    return []


def _check_golden(manifest: Manifest) -> Iterator[Finding]:
    """Whether the examples are what the signature says. Raw inputs, and answers of a pipeline, are not its business."""
    golden, signature = manifest.golden, manifest.signature
    if golden is None or signature is None or golden.raw is not None:
        return
    tensors = {tensor.name: tensor for tensor in manifest.tensors}
    sides = (
        ("inputs", golden.inputs, signature.input_structure, signature.inputs),
        ("outputs", golden.outputs, signature.output_structure, signature.outputs),
    )
    for side, structure, declared, specs in sides:
        names, by_name = _leaves(structure), {spec.name: spec for spec in specs}
        spec_names = _leaves(declared)
        if len(names) != len(spec_names):
            message = f"{len(names)} {side} in the examples, {len(spec_names)} in the signature"
            yield Finding("golden", Severity.WARNING, message)
            continue
        for name, spec_name in zip(names, spec_names, strict=True):
            if name in tensors and spec_name in by_name:
                yield from _check_example(tensors[name], by_name[spec_name], exact=side == "outputs")


def _check_example(tensor: Tensor, spec: TensorSpec, *, exact: bool) -> Iterator[Finding]:
    """``exact`` wants the same dtype, too: inputs are cast by the network."""
    same_shape = spec.shape is None or (
        len(spec.shape) == len(tensor.shape)
        and all(wanted in (None, length) for wanted, length in zip(spec.shape, tensor.shape, strict=True))
    )
    if not same_shape or (exact and spec.dtype != tensor.dtype):
        message = f"is {tensor.dtype} {tensor.shape}, the signature says {spec.dtype} {spec.shape}"
        yield Finding("golden", Severity.WARNING, message, tensor.name)


def _told(manifest: Manifest) -> Iterator[Finding]:
    """What a reader of the report should know, though nothing is wrong."""
    for item in manifest.custom_objects:
        message = f"a {item.kind} that loading needs, from {item.module}.{item.qualname}"
        yield Finding("custom-object", Severity.NOTE, message, item.name)
    yield from (Finding("notice", Severity.NOTE, notice) for notice in manifest.notices)
