"""Signatures of versions and of folders: what they cover, whose they are, and every way to cheat with one."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import modelkeep as mk
from key_files import make_key, public_half
from modelkeep.catalog import Attachment
from modelkeep.errors import (
    LimitExceeded,
    MissingExtra,
    NotFound,
    StorageError,
    UnsafeContent,
    UsageError,
)
from modelkeep.manifest import Environment, Lineage, Transfer
from modelkeep.provenance import dsse, keys, signing, statement, trust
from modelkeep.registry import Registry
from modelkeep.storage import marker
from modelkeep.storage.blobs import blob_key
from modelkeep.storage.local import LocalStore
from modelkeep.storage.memory import MemoryStore
from small_versions import publish

OMS = Path(__file__).parent / "foreign" / "oms"
NOW = "2026-06-01T00:00:00.000000Z"


@pytest.fixture
def keep(tmp_path: Path) -> mk.Keep:
    """A store with ``sentiment`` 1.0.0 and 1.1.0, of one part and two packed tensors each."""
    store = LocalStore(tmp_path / "models")
    marker.ensure(store)
    registry = Registry(store, actor="ada@lab")
    environment = Environment(python="3.11.9", platform="Linux", machine="x86_64", packages={"keras": "3.15.1"})
    lineage = Lineage(
        data_digest="sha256:" + "0" * 64,
        git_commit="1" * 40,
        git_dirty=True,
        parent="sentiment:0.9.0@blake3:" + "2" * 64,
        source="old.h5",
        parents=("sentiment:0.8.0@blake3:" + "3" * 64,),
        transfers=(Transfer(source="backbone.keras: Keras (blake3:" + "4" * 64 + ")"),),
        run="sentiment-run@1200",
    )
    publish(registry, "sentiment", "1.0.0", tensors=[b"weights", b"bias"], environment=environment, lineage=lineage)
    publish(registry, "sentiment", "1.1.0", part=b"[]", tensors=[b"weights", b"other"], metrics={"accuracy": 0.9})
    return mk.open(store)


@pytest.fixture
def ada(tmp_path: Path) -> Path:
    return make_key(tmp_path, "ada")


@pytest.fixture
def grace(tmp_path: Path) -> Path:
    return make_key(tmp_path, "grace")


def found(keep: mk.Keep, ref: str, trusted: Path) -> dict[str, str]:
    """What a check of the signatures finds: severity by check, the worst of each."""
    report = keep.verify(ref, signature=trusted)
    order = ["ok", "note", "warning", "failure"]
    return {f.check: str(f.severity) for f in sorted(report, key=lambda f: order.index(f.severity))}


def attached(keep: mk.Keep, ref: str, kind: str = "signature:") -> Any:
    return next(each for each in keep.resolve(ref).attachments if each.kind.startswith(kind))


def bundle_of(signature: bytes, **changes: Any) -> bytes:
    """The same signature with another envelope."""
    bundle = json.loads(signature)
    bundle["dsseEnvelope"] |= changes
    return json.dumps(bundle).encode()


# --- versions


def test_a_signed_version_verifies_against_the_public_half(keep: mk.Keep, ada: Path) -> None:
    signed = keep.sign("sentiment:1.0.0", key=ada)
    assert (signed.ref, len(signed.key_id)) == ("sentiment:1.0.0", 64)
    checks = found(keep, "sentiment:1.0.0", public_half(ada))
    assert (checks["signature"], checks["provenance"], checks["signed"]) == ("ok", "ok", "ok")


def test_an_unsigned_version_fails_the_check_that_asks_for_a_signature_and_no_other(keep: mk.Keep, ada: Path) -> None:
    keep.verify("sentiment:1.1.0").raise_for_failures()
    assert [f.check for f in keep.verify("sentiment:1.1.0", signature=public_half(ada)).failures] == ["signed"]


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_the_larger_curves_of_nist_sign_as_well(keep: mk.Keep, tmp_path: Path, curve: ec.EllipticCurve) -> None:
    key = make_key(tmp_path, "large", curve=curve)
    keep.sign("sentiment", key=key)
    assert found(keep, "sentiment", public_half(key))["signed"] == "ok"


def test_several_people_sign_one_version(keep: mk.Keep, ada: Path, grace: Path, tmp_path: Path) -> None:
    for key in (ada, grace, ada):
        keep.sign("sentiment:1.0.0", key=key)
    both = tmp_path / "both"
    both.mkdir()
    for key in (ada, grace):
        shutil.copy(public_half(key), both)
    report = keep.verify("sentiment:1.0.0", signature=both)
    assert sorted(f.message for f in report if f.check == "signature") == ["by ada", "by grace"]


def test_signatures_outlive_a_gc_and_a_lost_one_is_found(keep: mk.Keep, ada: Path) -> None:
    keep.sign("sentiment:1.0.0", key=ada)
    keep.gc(grace=timedelta(0))
    assert found(keep, "sentiment:1.0.0", public_half(ada))["signed"] == "ok"
    keep.store.delete(blob_key(attached(keep, "sentiment:1.0.0").digest))
    assert [f.check for f in keep.verify("sentiment:1.0.0").failures] == ["attachment"]
    assert not keep.fsck().ok


def test_the_provenance_says_who_when_and_from_what(keep: mk.Keep, ada: Path) -> None:
    keep.sign("sentiment:1.0.0", key=ada)
    data = keep._registry.blobs.get(attached(keep, "sentiment:1.0.0", "provenance:").digest)
    said = statement.decode(dsse.decode(data).payload, signing.SLSA)
    made = said.predicate["buildDefinition"]
    assert made["externalParameters"] == {"model": "sentiment", "version": "1.0.0"}
    assert made["internalParameters"]["actor"] == "ada@lab"
    assert {"uri": "pkg:pypi/keras@3.15.1"} in made["resolvedDependencies"]
    digests = {each["name"].split()[0]: each["digest"] for each in made["resolvedDependencies"] if "name" in each}
    assert digests["data"] == {"sha256": "0" * 64}
    assert (digests["parent"], digests["file"]) == ({"blake3": "2" * 64}, {"other": "old.h5"})
    assert (digests["averaged"], digests["transfer"]) == ({"blake3": "3" * 64}, {"blake3": "4" * 64})
    assert digests["run"] == {"other": "sentiment-run@1200"}
    assert made["resolvedDependencies"][0]["annotations"] == {"dirty": True}
    assert said.predicate["runDetails"]["metadata"] == {"finishedOn": "2024-05-01T00:00:00Z"}


def test_a_signature_made_elsewhere_is_taken_in(keep: mk.Keep, ada: Path, tmp_path: Path) -> None:
    (tmp_path / "model.sig").write_bytes(keep.sign("sentiment:1.1.0", key=ada).signature)
    other = MemoryStore()
    marker.ensure(other)
    publish(
        Registry(other), "sentiment", "1.1.0", part=b"[]", tensors=[b"weights", b"other"], metrics={"accuracy": 0.9}
    )
    elsewhere = mk.open(other)
    elsewhere.sign("sentiment:1.1.0", signature=tmp_path / "model.sig")
    assert found(elsewhere, "sentiment:1.1.0", public_half(ada))["signed"] == "ok"
    with pytest.raises(UnsafeContent, match=r"changed since they were signed: manifest\.json"):
        keep.sign("sentiment:1.0.0", signature=tmp_path / "model.sig")


# --- cheating with a version


def test_a_changed_blob_is_found_before_its_signature_is_believed(keep: mk.Keep, ada: Path) -> None:
    keep.sign("sentiment:1.0.0", key=ada)
    blob = keep.resolve("sentiment:1.0.0").manifest.parts[0].digest
    path = Path(keep.store.root) / blob_key(blob)
    path.chmod(0o644)
    path.write_bytes(b"[]")
    with pytest.raises(mk.errors.IntegrityError):
        keep.verify("sentiment:1.0.0", signature=public_half(ada)).raise_for_failures()


def attach_forged(keep: mk.Keep, ref: str, data: bytes, like: str) -> None:
    """Put bytes in the place of the signature that ``like`` has, as whoever can write to the store could."""
    registry = Registry(keep.store)
    attachment = Attachment(
        kind=attached(keep, like).kind, digest=registry.blobs.put(data), size=len(data), media=dsse.MEDIA_TYPE
    )
    registry.attach(ref, attachment)


def test_a_signature_does_not_fit_another_version(keep: mk.Keep, ada: Path) -> None:
    signature = keep.sign("sentiment:1.0.0", key=ada).signature
    attach_forged(keep, "sentiment:1.1.0", signature, like="sentiment:1.0.0")
    checks = found(keep, "sentiment:1.1.0", public_half(ada))
    assert (checks["signature"], checks["signed"]) == ("failure", "failure")


def test_a_signature_of_the_same_files_under_another_name_does_not_fit(keep: mk.Keep, ada: Path) -> None:
    version = keep.resolve("sentiment:1.0.0")
    files = signing.hash_version(version.manifest, version.digest, Registry(keep.store).blobs)
    said = statement.of_files("sentiment:9.9.9", files)
    keep.sign("sentiment:1.0.0", key=ada)
    attach_forged(
        keep, "sentiment:1.0.0", keys.read_signing_key(ada).seal(statement.encode(said)), like="sentiment:1.0.0"
    )
    report = keep.verify("sentiment:1.0.0", signature=public_half(ada))
    assert "found sentiment:9.9.9, expected sentiment:1.0.0" in report.failures[0].message


def test_a_key_that_is_not_trusted_proves_nothing(keep: mk.Keep, ada: Path, grace: Path) -> None:
    keep.sign("sentiment:1.0.0", key=grace)
    checks = found(keep, "sentiment:1.0.0", public_half(ada))
    assert (checks["signature"], checks["signed"]) == ("warning", "failure")


def test_a_signature_in_the_name_of_another_key_is_wrong(keep: mk.Keep, ada: Path, grace: Path) -> None:
    keep.sign("sentiment:1.0.0", key=ada)
    bundle = json.loads(keep.sign("sentiment:1.0.0", key=grace).signature)
    bundle["verificationMaterial"]["publicKey"]["hint"] = keys.read_signing_key(ada).id
    attach_forged(keep, "sentiment:1.0.0", json.dumps(bundle).encode(), like="sentiment:1.0.0")
    assert found(keep, "sentiment:1.0.0", public_half(ada))["signature"] == "failure"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"[" * 100_000,
        lambda data: bundle_of(data, payloadType="application/vnd.in-toto+xml"),
        lambda data: bundle_of(data, payload=base64.b64encode(b'{"_type": "changed"}').decode()),
        lambda data: bundle_of(data, signatures=[]),
        lambda data: bundle_of(data, signatures=json.loads(data)["dsseEnvelope"]["signatures"] * 2),
        lambda data: data.replace(b"bundle.v0.3", b"bundle.v9.9"),
    ],
    ids=["cut", "empty", "deep", "payload type", "payload", "no signature", "two signatures", "media type"],
)
def test_a_spoilt_signature_fails(keep: mk.Keep, ada: Path, spoil: Callable[[bytes], bytes]) -> None:
    signature = keep.sign("sentiment:1.0.0", key=ada).signature
    attach_forged(keep, "sentiment:1.0.0", spoil(signature), like="sentiment:1.0.0")
    checks = found(keep, "sentiment:1.0.0", public_half(ada))
    assert (checks["signature"], checks["signed"]) == ("failure", "failure")


def test_what_was_signed_as_another_type_of_payload_is_not_taken_for_a_statement(keep: mk.Keep, ada: Path) -> None:
    # The same bytes and the same key; only what DSSE says they are is another.
    signed = keep.sign("sentiment:1.0.0", key=ada)
    payload = dsse.decode(signed.signature).payload
    key = load_pem_private_key(ada.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    raw = key.sign(b"DSSEv1 10 text/plain %d %s" % (len(payload), payload), ec.ECDSA(SHA256()))
    attach_forged(keep, "sentiment:1.0.0", dsse.encode(payload, raw, signed.key_id), like="sentiment:1.0.0")
    assert found(keep, "sentiment:1.0.0", public_half(ada))["signature"] == "failure"


def test_a_provenance_of_another_version_does_not_fit(keep: mk.Keep, ada: Path) -> None:
    for ref in ("sentiment:1.0.0", "sentiment:1.1.0"):
        keep.sign(ref, key=ada)
    other = attached(keep, "sentiment:1.1.0", "provenance:")
    Registry(keep.store).attach("sentiment:1.0.0", other)
    checks = found(keep, "sentiment:1.0.0", public_half(ada))
    assert (checks["signature"], checks["provenance"]) == ("ok", "failure")


def test_a_damaged_version_is_not_signed(keep: mk.Keep, ada: Path) -> None:
    keep.store.delete(blob_key(keep.resolve("sentiment:1.0.0").manifest.parts[0].digest))
    with pytest.raises(mk.errors.BlobMissing):
        keep.sign("sentiment:1.0.0", key=ada)


def test_a_provenance_is_not_taken_for_a_signature(keep: mk.Keep, ada: Path) -> None:
    keep.sign("sentiment:1.0.0", key=ada)
    data = keep._registry.blobs.get(attached(keep, "sentiment:1.0.0", "provenance:").digest)
    attach_forged(keep, "sentiment:1.0.0", data, like="sentiment:1.0.0")
    assert found(keep, "sentiment:1.0.0", public_half(ada))["signature"] == "failure"


def test_the_hint_of_what_to_ignore_is_not_followed() -> None:
    said = statement.of_files("m", {"a": "sha256:" + "0" * 64}, ignored=("b",))
    with pytest.raises(UnsafeContent, match="files are not signed: b"):
        statement.check_files({"a": "sha256:" + "0" * 64, "b": "sha256:" + "1" * 64}, statement.files_of(said))


def test_an_endless_signature_is_not_read() -> None:
    with pytest.raises(LimitExceeded):
        dsse.decode(b" " * (dsse.MAX_BUNDLE + 1))


digests = st.binary(min_size=32, max_size=32).map(lambda data: f"sha256:{data.hex()}")


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), digests, min_size=1))
def test_whatever_files_are_named_are_read_back(files: dict[str, str]) -> None:
    said = statement.decode(statement.encode(statement.of_files("m", files)), statement.SIGNATURE)
    assert statement.files_of(said) == files


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_no_byte_of_what_is_signed_can_change(ada: Path, data: st.DataObject) -> None:
    trusted = trust.read(public_half(ada))
    payload = statement.encode(statement.of_files("m", {"a": "sha256:" + "0" * 64}))
    bundle = bytearray(keys.read_signing_key(ada).seal(payload))
    place = data.draw(st.integers(0, 2**16)) % len(bundle)  # a signature is not always of the same length
    bundle[place] ^= data.draw(st.integers(1, 255))
    try:
        key, _ = signing.signer_of(bytes(bundle), trusted, "m", NOW)
    except UnsafeContent:
        return
    assert key is None or dsse.decode(bytes(bundle)).payload == payload


# --- who is trusted


def trusted_file(folder: Path, key: Path, **said: Any) -> Path:
    path = folder / "trusted_keys.json"
    path.write_text(json.dumps({"keys": [{"name": "ada", "file": public_half(key).name, **said}]}))
    return path


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"revoked": True}, "is revoked"),
        ({"not_after": "2020-12-31"}, "expired at 2020-12-31T23:59:59.999999Z"),
        ({"not_before": "2999-01-01"}, "is not valid before 2999-01-01T00:00:00.000000Z"),
        ({"models": ["team/*"]}, "is not trusted for sentiment, only for team/*"),
    ],
)
def test_a_key_counts_only_while_and_where_it_is_trusted(
    keep: mk.Keep, ada: Path, tmp_path: Path, said: dict[str, Any], why: str
) -> None:
    keep.sign("sentiment:1.0.0", key=ada)
    report = keep.verify("sentiment:1.0.0", signature=trusted_file(tmp_path, ada, **said))
    assert why in next(f.message for f in report.warnings if f.check == "signature")
    assert [f.check for f in report.failures] == ["signed"]


def test_a_key_counts_within_its_time_and_scope(keep: mk.Keep, ada: Path, tmp_path: Path) -> None:
    keep.sign("sentiment:1.0.0", key=ada)
    said = {"not_before": "2020-01-01", "not_after": "2999-01-01T00:00:00+02:00", "models": ["team/*", "senti*"]}
    assert found(keep, "sentiment:1.0.0", trusted_file(tmp_path, ada, **said))["signed"] == "ok"


def test_the_environment_may_say_who_is_trusted(keep: mk.Keep, ada: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep.sign("sentiment:1.0.0", key=ada)
    with pytest.raises(UsageError, match="nobody is trusted to sign sentiment"):
        keep.verify("sentiment:1.0.0", signature=True)
    monkeypatch.setenv("MODELKEEP_TRUSTED_KEYS", str(public_half(ada)))
    keep.verify("sentiment:1.0.0", signature=True).raise_for_failures()


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"keys": []}',
        '{"keys": [{"name": "ada"}]}',
        '{"keys": [{"name": "ada", "identity": "ada@lab"}]}',
        '{"keys": [{"name": "ada", "pem": "nonsense"}]}',
        '{"keys": [{"name": "ada", "identity": "a", "issuer": "b"}, {"name": "ada", "identity": "c", "issuer": "d"}]}',
        '{"keys": [{"name": "ada", "identity": "a", "issuer": "b", "not_after": "some day"}]}',
        '{"keys": [{"name": "ada", "identity": "a", "issuer": "b", "trusted": true}]}',
    ],
)
def test_a_list_of_keys_that_makes_no_sense_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(UsageError):
        trust.read(tmp_path / "keys.json")


def test_a_private_key_is_not_taken_for_a_public_one(ada: Path) -> None:
    with pytest.raises(UsageError, match="holds a private key"):
        trust.read(ada)


@pytest.mark.keras
def test_a_load_asks_who_signed_as_far_as_the_reader_wants(
    tmp_path: Path, ada: Path, grace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    keep = mk.open(tmp_path / "kept")
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    for _ in range(2):
        keep.save(model, "m", check=False)
    keep.sign("m:1.0.0", key=ada)
    monkeypatch.setenv("MODELKEEP_TRUSTED_KEYS", str(public_half(ada)))
    keep.load("m:1.0.0")
    keep.load("m:1.1.0")  # not signed, and nobody asks for it
    with pytest.raises(UnsafeContent, match="no signature by a trusted key"):
        keep.load("m:1.1.0", signature=public_half(ada))
    with pytest.raises(UsageError, match="found verify=None"):
        keep.load("m:1.0.0", verify=None)
    monkeypatch.setenv("MODELKEEP_TRUSTED_KEYS", str(public_half(grace)))
    with pytest.raises(UnsafeContent, match=r"m:1\.0\.0 is not vouched for"):
        keep.load("m:1.0.0")
    keep.load("m:1.0.0", signature=False)
    required = tmp_path / "keys.json"
    required.write_text(json.dumps({"required": True, "keys": [{"name": "ada", "file": public_half(ada).name}]}))
    monkeypatch.setenv("MODELKEEP_TRUSTED_KEYS", str(required))
    keep.load("m:1.0.0")
    with pytest.raises(UnsafeContent):
        keep.load("m:1.1.0", into=model)


# --- keys


def test_a_key_behind_a_password(keep: mk.Keep, tmp_path: Path) -> None:
    key = make_key(tmp_path, "locked", password="secret")
    with pytest.raises(UsageError, match="is protected by a password"):
        keep.sign("sentiment", key=key)
    with pytest.raises(UsageError, match="no private key that can be read"):
        keep.sign("sentiment", key=key, password="wrong")
    keep.sign("sentiment", key=key, password="secret")


def test_another_kind_of_key_is_named(keep: mk.Keep, tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "ed.pem").write_bytes(key)
    with pytest.raises(UsageError, match="found Ed25519PrivateKey, expected an elliptic curve key on P-256"):
        keep.sign("sentiment", key=tmp_path / "ed.pem")
    make_key(tmp_path, "koblitz", curve=ec.SECP256K1())
    with pytest.raises(UsageError, match="found secp256k1"):
        keep.sign("sentiment", key=tmp_path / "koblitz.pem")


def test_a_file_that_is_no_key(keep: mk.Keep, tmp_path: Path) -> None:
    (tmp_path / "large.pem").write_bytes(bytes(keys.MAX_FILE + 1))
    with pytest.raises(UsageError, match="too large for keys"):
        keep.sign("sentiment", key=tmp_path / "large.pem")
    with pytest.raises(StorageError, match="cannot read"):
        keep.sign("sentiment", key=tmp_path)
    with pytest.raises(StorageError, match="cannot read"):
        keep.sign("sentiment", signature=tmp_path)


def test_a_key_that_is_not_there(keep: mk.Keep, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="openssl ecparam"):
        keep.sign("sentiment", key=tmp_path / "none.pem")
    with pytest.raises(UsageError, match="expected one of key, keyless, signature"):
        keep.sign("sentiment")


def test_without_cryptography_the_line_that_installs_it(
    keep: mk.Keep, ada: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(MissingExtra, match=r"pip install 'modelkeep\[signing\]'"):
        keep.sign("sentiment", key=ada)


def test_keyless_signing_says_what_it_lacks(keep: mk.Keep) -> None:
    with pytest.raises((MissingExtra, StorageError), match="sign"):
        keep.sign("sentiment", keyless=True)


# --- folders and files


@pytest.fixture
def folder(tmp_path: Path, ada: Path) -> Path:
    """A signed folder."""
    folder = tmp_path / "exported"
    (folder / "assets").mkdir(parents=True)
    (folder / "assets" / "vocabulary.txt").write_text("a\nthe\n")
    (folder / "config.json").write_text("{}")
    (folder / "model.sig").write_bytes(signing.sign_path(folder, keys.read_signing_key(ada)))
    return folder


def verified(path: Path, key: Path, **said: Any) -> mk.Report:
    return signing.verify_path(path, trust.read(public_half(key)), now=NOW, **said)


def test_what_the_reference_implementation_of_oms_signed_is_accepted(tmp_path: Path) -> None:
    trusted = trust.read(OMS / "key.pub.pem")
    report = signing.verify_path(OMS / "small", trusted, now=NOW)
    assert [f.message for f in report] == ["3 files signed by key as small"]
    shutil.copytree(OMS / "small", tmp_path / "small")
    (tmp_path / "small" / "weights.bin").write_bytes(b"01234567")
    assert not signing.verify_path(tmp_path / "small", trusted, now=NOW).ok


def test_a_signed_folder_verifies_wherever_it_lies(folder: Path, ada: Path) -> None:
    verified(folder, ada).raise_for_failures()
    verified(folder.rename(folder.with_name("moved")), ada).raise_for_failures()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda folder: (folder / "config.json").write_text("[]"), "changed since they were signed: config.json"),
        (lambda folder: (folder / "more.txt").write_text(""), "not signed: more.txt"),
        (lambda folder: (folder / ".gitignore").write_text(""), "not signed: .gitignore"),
        (lambda folder: (folder / "assets" / "model.sig").write_text(""), "not signed: assets/model.sig"),
        (lambda folder: (folder / "config.json").unlink(), "signed, and missing: config.json"),
        (lambda folder: (folder / "assets" / "vocabulary.txt").rename(folder / "vocabulary.txt"), "not signed"),
        (lambda folder: (folder / "link").symlink_to("config.json"), "link is a link"),
        (lambda folder: (folder / "linked").symlink_to("assets"), "linked is a link"),
        (lambda folder: os.mkfifo(folder / "pipe"), "pipe is not a regular file"),
        (lambda folder: open(os.fsencode(folder) + b"/\xff", "x").close(), "is not UTF-8"),
    ],
)
def test_a_folder_that_is_not_what_was_signed(
    folder: Path, ada: Path, spoil: Callable[[Path], object], why: str
) -> None:
    spoil(folder)
    report = verified(folder, ada)
    assert why in report.failures[0].message
    with pytest.raises(UnsafeContent):
        report.raise_for_failures()


def test_a_file_replaced_by_a_link_to_the_same_bytes_is_refused(folder: Path, ada: Path, tmp_path: Path) -> None:
    (folder / "config.json").rename(tmp_path / "config.json")
    (folder / "config.json").symlink_to(tmp_path / "config.json")
    assert "links are not followed" in verified(folder, ada).failures[0].message


def test_a_folder_that_is_itself_a_link_or_too_deep_is_refused(folder: Path, ada: Path) -> None:
    folder.with_name("latest").symlink_to(folder)
    assert "latest is a link" in verified(folder.with_name("latest"), ada).failures[0].message
    folder.joinpath(*"d" * (signing.MAX_DEPTH + 1)).mkdir(parents=True)
    assert "holds too much" in verified(folder, ada).failures[0].message


def test_a_folder_signed_by_somebody_else(folder: Path, grace: Path) -> None:
    assert "by a key that is not trusted here" in verified(folder, grace).failures[0].message


def test_a_signed_file(tmp_path: Path, ada: Path) -> None:
    file = tmp_path / "model.keras"
    file.write_bytes(b"bytes")
    (tmp_path / "model.keras.sig").write_bytes(signing.sign_path(file, keys.read_signing_key(ada)))
    verified(file, ada).raise_for_failures()
    file.write_bytes(b"other")
    assert not verified(file, ada).ok


def test_the_signature_of_a_version_is_that_of_its_unpacked_bundle(keep: mk.Keep, ada: Path, tmp_path: Path) -> None:
    signature = keep.sign("sentiment:1.0.0", key=ada).signature
    keep.export("sentiment:1.0.0", to=tmp_path / "sentiment.zip")
    shutil.unpack_archive(tmp_path / "sentiment.zip", tmp_path / "unpacked")
    (tmp_path / "unpacked" / "model.sig").write_bytes(signature)
    assert verified(tmp_path / "unpacked", ada).ok


def test_nothing_to_sign_or_to_verify(tmp_path: Path, ada: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no file to sign"):
        signing.sign_path(tmp_path / "empty", keys.read_signing_key(ada))
    with pytest.raises(NotFound, match="there is no signature"):
        verified(tmp_path / "empty", ada)
    with pytest.raises(NotFound, match="there is no file or folder"):
        signing.sign_path(tmp_path / "none", keys.read_signing_key(ada))


@pytest.mark.parametrize(
    "change",
    [
        {"resources": []},
        {"resources": [{"name": "a", "algorithm": "md5", "digest": "00" * 16}]},
        {"resources": [{"name": "a", "algorithm": "sha256", "digest": "00"}]},
        {"resources": [{"name": "a", "algorithm": "sha256", "digest": "zz" * 32}]},
        {"resources": [{"name": "a", "algorithm": "sha256", "digest": "11" * 32}]},
        {"resources": [{"name": "a", "algorithm": "sha256", "digest": "00" * 32}] * 2},
        {"serialization": {"method": "shards"}},
        {"resources": None},
    ],
)
def test_a_statement_that_does_not_agree_with_itself(change: dict[str, Any]) -> None:
    said = statement.of_files("m", {"a": "sha256:" + "00" * 32})
    said.predicate.update(change)
    with pytest.raises(UnsafeContent):
        statement.files_of(said)
