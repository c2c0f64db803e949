"""Signatures over versions, and over files and folders on disk; made and checked.

A version is signed as the files that its bundle holds, ``manifest.json`` and ``blobs/<hex>``, by SHA-256; so the same
signature beside the unpacked bundle is one of OMS v1.0, which ``model_signing verify key`` checks. Here it is checked
by the manifest alone, which names every blob by its BLAKE3, and whose bytes whoever reads the version compares. The
statement's subject is ``model:version``, and the manifest says so once more: a signature fits one version only.
Beside it stands an SLSA provenance, over the same root digest: who, when, from what, where, how good.

A checker here follows no hint in a signature: no file is left out, no link is followed, every name must be signed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import blake3

from modelkeep.catalog import Attachment
from modelkeep.entry import TrustedKey, moment
from modelkeep.errors import (
    LimitExceeded,
    MissingExtra,
    ModelkeepError,
    NotFound,
    StorageError,
    UnsafeContent,
    UsageError,
)
from modelkeep.formats.durable import new_file
from modelkeep.manifest import MAX_MANIFEST, Manifest
from modelkeep.provenance import dsse, keyless, keys, statement, trust
from modelkeep.provenance.statement import Statement, Subject
from modelkeep.registry import Registry
from modelkeep.report import Finding, Report, Severity
from modelkeep.storage.blobs import Blobs
from modelkeep.storage.local import write_all
from modelkeep.version import Version

SIGNATURE = "signature:"  # kinds of attachments, each followed by the id of the key
PROVENANCE = "provenance:"
SLSA = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://github.com/modelkeep/modelkeep/blob/main/docs/guide/provenance.md#provenance"
MAX_FILES, MAX_DEPTH = 100_000, 64

_MANIFEST = "manifest.json"
_DIGEST = re.compile(r"\b([a-z]+[0-9]+):([0-9a-f]{32,128})\b")
_CHUNK = 2**20  # bytes
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Signer(Protocol):
    """Whoever signs: a :class:`keys.SigningKey` or a :class:`keyless.KeylessSigner`."""

    @property
    def id(self) -> str:
        """The key's id."""

    def seal(self, payload: bytes) -> bytes:
        """The Sigstore bundle of a payload."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A version's signature, made with the key ``key_id``: the bytes of a Sigstore bundle, as they lie in the store."""

    ref: str
    key_id: str
    signature: bytes


def signer(key: Path | None, *, password: str | None = None, token: str | None = None) -> Signer:
    """Whoever signs with a private key in a PEM file; without one, as whoever Sigstore knows.

    Raises UsageError, NotFound, MissingExtra.
    """
    return keyless.KeylessSigner(token) if key is None else keys.read_signing_key(key, password)


def read_signature(path: Path) -> bytes:
    """The bytes of a signature on disk. Raises NotFound, StorageError."""
    try:
        with path.open("rb") as file:
            return file.read(dsse.MAX_BUNDLE + 1)
    except FileNotFoundError as error:
        raise NotFound(f"there is no signature {path}", hint="name it: --signature FILE") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error


# --- a version


def files_of(manifest: Manifest, digest: str) -> dict[str, str]:
    """The blobs behind the files of a version's bundle; ``digest`` is the manifest's."""
    return {_MANIFEST: digest} | {f"blobs/{blob.removeprefix('blake3:')}": blob for blob in manifest.blobs()}


def hash_version(manifest: Manifest, digest: str, blobs: Blobs) -> dict[str, str]:
    """The SHA-256 of the files of a version's bundle, every blob checked. Raises BlobMissing, IntegrityError."""

    def sha256(blob: str) -> str:
        blobs.check(blob)
        return f"sha256:{hashlib.sha256(blobs.map_blob(blob)).hexdigest()}"

    files = files_of(manifest, digest)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(files, pool.map(sha256, files.values()), strict=True))


def statements(manifest: Manifest, digest: str, actor: str, blobs: Blobs) -> tuple[Statement, Statement]:
    """What a signature of a version says, and its provenance; ``actor`` is who published it."""
    signature = statement.of_files(ref_of(manifest), hash_version(manifest, digest, blobs), ignored=("model.sig",))
    made = Statement(subject=signature.subject, predicate_type=SLSA, predicate=provenance(manifest, actor))
    return signature, made


def sign(registry: Registry, version: Version, signer: Signer, *, reason: str | None = None) -> Signed:
    """Sign a version; signature and provenance are attached to it, in the place of earlier ones by this key.

    Raises as signers do, BlobMissing, IntegrityError, StorageError.
    """
    said, made = statements(version.manifest, version.digest, version.actor, registry.blobs)
    signature, provenance = (signer.seal(statement.encode(each)) for each in (said, made))
    _attach(registry, version, PROVENANCE + signer.id, provenance, reason)
    _attach(registry, version, SIGNATURE + signer.id, signature, reason)
    return Signed(version.ref, signer.id, signature)


def adopt(registry: Registry, version: Version, signature: bytes, *, reason: str | None = None) -> Signed:
    """Attach a signature that was made elsewhere, such as for the same version in another store.

    It must be of this version; whose it is, verifying tells. Raises UnsafeContent, StorageError.
    """
    bundle = dsse.decode(signature)
    _signed_subject(signature, version.manifest, version.digest, registry.blobs)
    _attach(registry, version, SIGNATURE + bundle.key_id, signature, reason)
    return Signed(version.ref, bundle.key_id, signature)


def _attach(registry: Registry, version: Version, kind: str, data: bytes, reason: str | None) -> None:
    attachment = Attachment(kind=kind, digest=registry.blobs.put(data), size=len(data), media=dsse.MEDIA_TYPE)
    registry.attach(version.ref, attachment, reason=reason)


def ref_of(manifest: Manifest) -> str:
    """``model:version``."""
    return f"{manifest.model}:{manifest.version}"


def provenance(manifest: Manifest, actor: str) -> dict[str, Any]:
    """How a version came to be, as an SLSA v1 predicate (https://slsa.dev/spec/v1.0/provenance)."""
    environment = manifest.environment
    facts = {
        "actor": actor,
        "metrics": manifest.metrics,
        "metadata": manifest.metadata,
        "gates": [gate.gate for gate in manifest.gates if gate.passed],
        "python": environment.python if environment else None,
        "platform": environment.platform if environment else None,
        "backend": environment.backend if environment else None,
    }
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"model": manifest.model, "version": manifest.version},
            "internalParameters": {name: value for name, value in facts.items() if value},
            "resolvedDependencies": list(_dependencies(manifest)),
        },
        "runDetails": {
            "builder": {"id": "https://github.com/modelkeep/modelkeep", "version": _writer(manifest)},
            "metadata": {"finishedOn": manifest.created},
        },
    }


def _writer(manifest: Manifest) -> dict[str, str]:
    name, _, version = manifest.writer.partition(" ")
    return {name: version}


def _dependencies(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """What a version was made from, as in-toto resource descriptors."""
    lineage = manifest.lineage
    if lineage.git_commit is not None:
        commit = {"name": "code", "digest": {"gitCommit": lineage.git_commit}}
        yield commit | ({"annotations": {"dirty": True}} if lineage.git_dirty else {})
    told = [("data", lineage.data_digest), ("parent", lineage.parent), ("file", lineage.source)]
    told += [("averaged", parent) for parent in lineage.parents]
    told += [("transfer", transfer.source) for transfer in lineage.transfers]
    told += [("run", lineage.run)]
    for kind, text in told:
        if text is not None:
            yield {"name": f"{kind} {text}", "digest": dict(_DIGEST.findall(text)) or {"other": text}}
    if manifest.environment is not None:
        for package, version in sorted(manifest.environment.packages.items()):
            yield {"uri": f"pkg:pypi/{package}@{version}"}


def check_version(
    manifest: Manifest,
    digest: str,
    attachments: Iterable[Attachment],
    blobs: Blobs,
    trusted: Sequence[TrustedKey],
    *,
    now: str,
) -> list[Finding]:
    """What each signature and each provenance of a version is worth at a moment (RFC 3339, UTC).

    ``ok`` is signed by a trusted key, over exactly these files; a signature by a key that does not count (unknown,
    expired, revoked, for other models) is a warning; one that is wrong a failure. ``details["key"]`` is the key's id.
    """
    attachments = list(attachments)
    checking = _Checking(manifest, digest, blobs, trusted, now)
    signatures = [checking.judge(each, checking.signature) for each in attachments if each.kind.startswith(SIGNATURE)]
    # After them: a provenance is of the files that a signature names.
    made = [checking.judge(each, checking.provenance) for each in attachments if each.kind.startswith(PROVENANCE)]
    return signatures + made


@dataclass(slots=True)
class _Checking:
    """The attachments of one version being judged."""

    manifest: Manifest
    digest: str
    blobs: Blobs
    trusted: Sequence[TrustedKey]
    now: str
    subjects: list[Subject] = field(default_factory=list)  # of signatures that hold

    def judge(self, attachment: Attachment, check: Callable[[bytes], None]) -> Finding:
        name, _, key_id = attachment.kind.partition(":")
        try:
            data = self.blobs.get(attachment.digest, limit=dsse.MAX_BUNDLE)
            key, objection = signer_of(data, self.trusted, self.manifest.model, self.now)
            if key is not None:
                check(data)
        except MissingExtra:
            raise
        except ModelkeepError as error:
            return Finding(name, Severity.FAILURE, str(error), key_id[:8], {"key": key_id})
        key_id = key.id if key else key_id
        return Finding(name, *_worth(key, objection), key_id[:8], {"key": key_id})

    def signature(self, data: bytes) -> None:
        self.subjects.append(_signed_subject(data, self.manifest, self.digest, self.blobs))

    def provenance(self, data: bytes) -> None:
        if statement.decode(dsse.decode(data).payload, SLSA).subject[0] not in self.subjects:
            raise UnsafeContent("it is of other files than any signature that holds")


def _signed_subject(data: bytes, manifest: Manifest, digest: str, blobs: Blobs) -> Subject:
    """What a signature is about, if that is this version. Raises UnsafeContent."""
    said = statement.decode(dsse.decode(data).payload, statement.SIGNATURE)
    signed = statement.files_of(said)
    found = {name: signed.get(name, "") for name in files_of(manifest, digest)}
    found[_MANIFEST] = f"sha256:{hashlib.sha256(blobs.get(digest, limit=MAX_MANIFEST)).hexdigest()}"
    statement.check_files(found, signed)
    if said.subject[0].name != ref_of(manifest):
        raise UnsafeContent("it signs another version", found=said.subject[0].name, expected=ref_of(manifest))
    return said.subject[0]


def _worth(key: TrustedKey | None, objection: str | None) -> tuple[Severity, str]:
    if key is None:
        return Severity.WARNING, "by a key that is not trusted here"
    return (Severity.WARNING, f"the key {key.name} {objection}") if objection else (Severity.OK, f"by {key.name}")


def signer_of(data: bytes, trusted: Sequence[TrustedKey], model: str, now: str) -> tuple[TrustedKey | None, str | None]:
    """The trusted key that made a signature, and why it does not count for the model; None where no key is known.

    Raises UnsafeContent for bytes that are no signature, and for one that names a trusted key and is not by it.
    """
    bundle = dsse.decode(data)
    candidates = [key for key in trusted if (key.pem is None) == bundle.keyless and bundle.hint in ("", key.id)]
    for key in candidates:
        if keyless.verifies(key, data) if key.pem is None else keys.verifies(key.pem, bundle):
            return key, trust.objection(key, model, now)
    if bundle.hint and candidates:
        raise UnsafeContent(f"it names the key {candidates[0].name}, and is not by it: what is signed was changed")
    return None, None


def require(findings: Iterable[Finding], needed: int = 1) -> Finding:
    """Whether enough different trusted keys have signed, by what :func:`check_version` found."""
    good = {f.details["key"]: f.message for f in findings if (f.check, f.severity) == ("signature", Severity.OK)}
    if len(good) >= needed:
        return Finding("signed", Severity.OK, ", ".join(sorted(good.values())))
    found = f"{len(good)} of {needed} signatures by trusted keys" if good else "no signature by a trusted key"
    return Finding("signed", Severity.FAILURE, found)


# --- files and folders on disk


def beside(path: Path) -> Path:
    """Where the signature of a file or folder lies unless told otherwise: ``model.sig`` in it, or ``<file>.sig``."""
    return path / "model.sig" if path.is_dir() else path.with_name(f"{path.name}.sig")


def sign_path(path: Path, signer: Signer, *, signature: Path | None = None) -> bytes:
    """The OMS signature of a file or a folder, for the file ``signature`` (see :func:`beside`), which need not exist.

    Every file is covered, by SHA-256. Raises UnsafeContent for a link or a device, NotFound, StorageError.
    """
    ignored = _inside(path, signature or beside(path))
    files = hash_files(path, "sha256", leave_out=ignored)
    if not files:
        raise UsageError(f"{path} holds no file to sign")
    said = statement.of_files(path.resolve().name, files, ignored=(ignored,) if ignored else ())
    return signer.seal(statement.encode(said))


def verify_path(
    path: Path, trusted: Sequence[TrustedKey], *, signature: Path | None = None, now: str | None = None
) -> Report:
    """Whether a trusted key signed exactly what lies at ``path``; the report's error is UnsafeContent.

    A key's scope is asked by the name that is signed. Nothing but the signature itself is left out, no link is
    followed. Raises NotFound, StorageError.
    """
    at = signature or beside(path)
    title = f"verify {path}"
    try:
        data = read_signature(at)
        said = statement.decode(dsse.decode(data).payload, statement.SIGNATURE)
        key, objection = signer_of(data, trusted, said.subject[0].name, now or moment(datetime.now(UTC)))
        if key is None or objection:
            raise UnsafeContent(f"{at.name} is {_worth(key, objection)[1]}")
        signed = statement.files_of(said)
        algorithm = next(iter(signed.values()), "sha256:").partition(":")[0]
        statement.check_files(hash_files(path, algorithm, leave_out=_inside(path, at)), signed)
    except UnsafeContent as error:
        return Report(title, (Finding("signature", Severity.FAILURE, str(error), at.name),), UnsafeContent)
    message = f"{len(signed):,} files signed by {key.name} as {said.subject[0].name}"
    return Report(title, (Finding("signature", Severity.OK, message, at.name, {"key": key.id}),), UnsafeContent)


def write(signature: bytes, path: Path) -> Path:
    """Write a signature durably, in the place of an earlier one. Raises StorageError."""
    with new_file(path, overwrite=True) as file:
        write_all(file, [signature])
    return path


def _inside(folder: Path, file: Path) -> str:
    """The name of ``file`` within ``folder``; empty where it lies elsewhere."""
    folder, file = folder.absolute(), file.absolute()
    return file.relative_to(folder).as_posix() if folder in file.parents and folder.is_dir() else ""


def hash_files(path: Path, algorithm: str, *, leave_out: str = "") -> dict[str, str]:
    """The digests of every file in a folder by its name there; of a single file under the name ``.``, as OMS has it.

    Raises UnsafeContent for links, devices and names that are not UTF-8, LimitExceeded, NotFound, StorageError.
    """
    if path.is_symlink():
        raise UnsafeContent(f"{path} is a link, and links are not followed", hint="name what it leads to")
    try:
        if not path.is_dir():
            return {".": _hash(os.open(path, _FLAGS), algorithm, str(path))}
        names = {}
        for name, folder, file in _walk(path):
            if name != leave_out:
                names[name] = _hash(os.open(file, _FLAGS, dir_fd=folder), algorithm, name)
        return names
    except FileNotFoundError as error:
        raise NotFound(f"there is no file or folder {path}") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafeContent(f"{error.filename or path} is a link, and links are not followed") from error
        raise StorageError(f"cannot read {path}: {error.strerror}") from error


def _walk(path: Path) -> Iterator[tuple[str, int, str]]:
    """Every file below a folder: its name there, and the descriptor and name to open it by."""
    count = 0
    for folder, folders, files, descriptor in os.fwalk(path, onerror=_raise):
        inner = Path(folder).relative_to(path)
        count += len(files)
        if len(inner.parts) > MAX_DEPTH or count > MAX_FILES:
            raise LimitExceeded(f"{path} holds too much", expected=f"{MAX_FILES:,} files, {MAX_DEPTH} folders deep")
        for name in folders:
            if stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                raise UnsafeContent(f"{inner / name} is a link, and links are not followed")
        for name in files:
            yield _utf8((inner / name).as_posix()), descriptor, name


def _raise(error: OSError) -> None:
    raise error


def _utf8(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UnsafeContent(f"the name {name!r} is not UTF-8") from error
    return name


def _hash(file: int, algorithm: str, name: str) -> str:
    with open(file, "rb", buffering=0) as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise UnsafeContent(f"{name} is not a regular file")
        hasher = blake3.blake3() if algorithm == "blake3" else hashlib.new(algorithm)
        while chunk := opened.read(_CHUNK):
            hasher.update(chunk)
    return f"{algorithm}:{hasher.hexdigest()}"
