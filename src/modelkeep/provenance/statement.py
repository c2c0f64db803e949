"""What a signature says: an in-toto statement about the files of a model, by name and digest.

``https://model_signing/signature/v1.0`` is that of OMS (https://github.com/ossf/model-signing-spec): one subject,
named for the model, whose SHA-256 is of the files' digests one after another in the order of their names, and
the files themselves. Its hints of what to leave out are not followed here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from modelkeep.errors import UnsafeContent
from modelkeep.manifest import canonical_json
from modelkeep.report import several

STATEMENT = "https://in-toto.io/Statement/v1"
SIGNATURE = "https://model_signing/signature/v1.0"
HASHES = ("sha256", "blake3")  # of files; both of 32 bytes

Files = Mapping[str, str]  # by name: "sha256:<hex>" or "blake3:<hex>"


class Subject(msgspec.Struct, frozen=True):
    """What a statement is about."""

    name: str
    digest: dict[str, str]


class Statement(msgspec.Struct, frozen=True, kw_only=True, rename={"type": "_type", "predicate_type": "predicateType"}):
    """An in-toto statement, https://github.com/in-toto/attestation/tree/main/spec/v1."""

    type: str = STATEMENT
    subject: tuple[Subject, ...]
    predicate_type: str
    predicate: dict[str, Any]


class _Resource(msgspec.Struct, frozen=True):
    name: str
    algorithm: str
    digest: str


class _Serialization(msgspec.Struct, frozen=True):
    method: str


class _Signed(msgspec.Struct, frozen=True):
    serialization: _Serialization
    resources: tuple[_Resource, ...]


def of_files(name: str, files: Files, *, ignored: tuple[str, ...] = ()) -> Statement:
    """The statement that signs ``files`` of the model ``name``, all of them hashed alike.

    ``ignored`` tells OMS' own verifier which files lie beside them, such as the signature.
    """
    resources = [_Resource(file, *files[file].split(":")) for file in _in_order(files)]
    serialization: dict[str, Any] = {
        "method": "files",
        "hash_type": resources[0].algorithm,
        "allow_symlinks": False,
        "ignore_paths": list(ignored),
    }
    return Statement(
        subject=(Subject(name, {"sha256": _root(_in_order(files), files)}),),
        predicate_type=SIGNATURE,
        predicate={"serialization": serialization, "resources": msgspec.to_builtins(resources)},
    )


def _root(names: Sequence[str], files: Files) -> str:
    """The hexadecimal SHA-256 over the digests of files, in the order of ``names``."""
    return hashlib.sha256(b"".join(bytes.fromhex(files[name].partition(":")[2]) for name in names)).hexdigest()


def _in_order(files: Files) -> list[str]:
    return sorted(files, key=lambda name: name.split("/"))  # as OMS sorts paths


def encode(statement: Statement) -> bytes:
    """The bytes that are signed."""
    return canonical_json(statement)


def decode(payload: bytes, predicate_type: str) -> Statement:
    """Read a statement about one subject, of this predicate type. Raises UnsafeContent for another."""
    try:
        statement = msgspec.json.decode(payload, type=Statement)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnsafeContent(f"what is signed is no in-toto statement: {error}") from error
    for what, found, expected in (
        ("the type of the signed statement", statement.type, STATEMENT),
        ("what the signed statement says", statement.predicate_type, predicate_type),
        ("the number of subjects", len(statement.subject), 1),
    ):
        if found != expected:
            raise UnsafeContent(f"{what} is another", found=found, expected=expected)
    return statement


def files_of(statement: Statement) -> dict[str, str]:
    """The files that an OMS statement signs. Raises UnsafeContent where it does not agree with itself."""
    try:
        signed = msgspec.convert(statement.predicate, _Signed)
        files = {each.name: f"{each.algorithm}:{bytes.fromhex(each.digest).hex()}" for each in signed.resources}
    except (msgspec.ValidationError, ValueError) as error:
        raise UnsafeContent(f"a signature does not say what it signs: {error}") from error
    if signed.serialization.method != "files":
        raise UnsafeContent("a signature of pieces of files", found=signed.serialization.method, expected="files")
    if len(files) != len(signed.resources):
        raise UnsafeContent("a signature names a file twice")
    algorithms = {each.algorithm for each in signed.resources}
    if len(algorithms) != 1 or not algorithms <= set(HASHES):
        found = ", ".join(sorted(algorithms)) or "no file"
        raise UnsafeContent("a signature by other hashes", found=found, expected=f"either {' or '.join(HASHES)}")
    if any(len(digest.partition(":")[2]) != 64 for digest in files.values()):
        raise UnsafeContent("a signature by digests of another length")
    if statement.subject[0].digest.get("sha256") != _root([each.name for each in signed.resources], files):
        raise UnsafeContent("a signature's own digest is not that of the files it names")
    return files


def check_files(found: Files, signed: Files) -> None:
    """Raise UnsafeContent, naming what is different, unless the files are exactly those that are signed."""
    for what, names in (
        ("changed since they were signed", [n for n in found if n in signed and found[n] != signed[n]]),
        ("not signed", [n for n in found if n not in signed]),
        ("signed, and missing", [n for n in signed if n not in found]),
    ):
        if names:
            raise UnsafeContent(f"files are {what}: {several(sorted(names))}")
