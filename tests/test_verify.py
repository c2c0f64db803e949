from __future__ import annotations

import os

import msgspec
import pytest

from modelkeep.errors import IntegrityError
from modelkeep.manifest import (
    Asset,
    CustomObject,
    Environment,
    Golden,
    Manifest,
    Part,
    Signature,
    Tensor,
    TensorSpec,
    encode,
)
from modelkeep.report import Finding, Severity
from modelkeep.storage.blobs import Blobs, TensorSource, blob_key
from modelkeep.storage.local import LocalStore
from modelkeep.storage.memory import MemoryStore
from modelkeep.verify import itemsize, verify

FLOATS = bytes(range(16))


def source(name, data=FLOATS, dtype="float32", shape=(2, 2)):
    return TensorSource(name, dtype, shape, len(data), lambda: data)


def part(blobs, name, data=b"{}"):
    return Part(name=name, digest=blobs.put(data), size=len(data))


def kept(blobs, **fields):
    """A version with a large tensor of its own, a pack of small ones, golden examples, an asset and a pipeline."""
    sources = [
        source("weights/large", bytes(2**20), "uint8", (2**20,)),
        source("weights/kernel"),
        source("weights/bias", bytes(8), "bfloat16", (4,)),
        source("golden/in", bytes(12), "int32", (1, 3)),
        source("golden/out", bytes(8), "float32", (1, 2)),
    ]
    parts = {"config.json": b"{}", "pipeline.json": b"[]", "assets/words/a b.txt": b"x"}
    standard = {
        "parts": tuple(part(blobs, name, data) for name, data in parts.items()),
        "tensors": blobs.write(sources).tensors,
        "pipeline": "pipeline.json",
        "assets": (Asset(name="words", kind="text", parts=("assets/words/a b.txt",)),),
        "golden": Golden(count=1, inputs={"tokens": "golden/in"}, outputs=["golden/out"]),
        "signature": Signature(
            inputs=(TensorSpec(name="tokens", shape=(None, 3), dtype="float32"),),
            outputs=(TensorSpec(name="p", shape=None, dtype="float32"),),
            input_structure={"tokens": "tokens"},
            output_structure=["p"],
        ),
    }
    return Manifest(model="m", version="1.0.0", created="", writer="", **{**standard, **fields})


def verified(blobs, manifest, **options):
    return verify("m:1.0.0", blobs.put(encode(manifest)), blobs, **options)


def told(report, severity=Severity.FAILURE):
    return {(finding.check, finding.subject): finding.message for finding in report if finding.severity is severity}


@pytest.fixture
def blobs():
    return Blobs(MemoryStore())


def test_a_whole_version_passes_and_says_what_was_read(blobs):
    report = verified(blobs, kept(blobs))
    assert report.ok
    assert [(finding.check, finding.severity) for finding in report] == [("manifest", "ok"), ("content", "ok")]
    assert "3 parts, 5 tensors" in report.findings[0].message
    assert "5 blobs, 1.0 MB, are what the manifest says" in report.findings[1].message


@pytest.mark.parametrize("name", ["weights/large", "weights/kernel", "config.json", "pipeline.json"])
@pytest.mark.parametrize("spoil", ["flip", "truncate", "remove"])
def test_damage_to_any_blob_is_found_and_named_and_the_rest_still_checked(tmp_path, name, spoil):
    blobs = Blobs(LocalStore(tmp_path))
    manifest = kept(blobs)
    items = {item.name: item for item in (*manifest.parts, *manifest.tensors)}
    blob = items[name].pieces[0].blob if isinstance(items[name], Tensor) else items[name].digest
    path = tmp_path / blob_key(blob)
    if spoil == "remove":
        path.unlink()
    elif spoil == "truncate":
        os.truncate(path, path.stat().st_size - 1)
    else:
        path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    report = verified(blobs, manifest)
    [((check, subject), message)] = told(report).items()
    assert (check, subject) == ("blob", blob)
    assert f"it holds {name}" in message
    with pytest.raises(IntegrityError, match=blob):
        report.raise_for_failures()


def test_a_damaged_or_missing_manifest_is_one_finding(tmp_path):
    blobs = Blobs(LocalStore(tmp_path))
    digest = blobs.put(encode(kept(blobs)))
    path = tmp_path / blob_key(digest)
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    assert told(verify("m", digest, blobs)).keys() == {("manifest", digest)}
    path.unlink()
    assert "is not in the store" in told(verify("m", digest, blobs))["manifest", digest]
    later = blobs.put(b'{"format":99}')
    assert "pip install --upgrade" in told(verify("m", later, blobs))["manifest", later]


def changed_tensor(manifest, name, **changes):
    tensors = tuple(
        msgspec.structs.replace(tensor, **changes) if tensor.name == name else tensor for tensor in manifest.tensors
    )
    return msgspec.structs.replace(manifest, tensors=tensors)


@pytest.mark.parametrize(
    ("changes", "check", "says"),
    [
        ({"shape": (2, 3)}, "tensor-size", "found 16 bytes, expected 24 for float32 (2, 3)"),
        ({"dtype": "float64"}, "tensor-size", "found 16 bytes, expected 32"),
        ({"dtype": "string"}, "tensor-size", "is no array"),
        ({"shape": (-2, -2)}, "tensor-size", "is no array"),
        ({"digest": f"blake3:{'0' * 64}"}, "tensor", "its bytes have another digest"),
    ],
)
def test_a_tensor_that_is_not_what_its_manifest_says_is_found(blobs, changes, check, says):
    report = verified(blobs, changed_tensor(kept(blobs), "weights/kernel", **changes))
    assert says in told(report)[check, "weights/kernel"]


def test_a_tensor_beyond_its_blob_is_found_and_not_read(blobs):
    manifest = kept(blobs)
    [piece] = next(tensor.pieces for tensor in manifest.tensors if tensor.name == "weights/kernel")
    beyond = msgspec.structs.replace(piece, offset=2**40)
    report = verified(blobs, changed_tensor(manifest, "weights/kernel", pieces=(beyond,)))
    assert "are not in a blob of" in told(report)["tensor-place", "weights/kernel"]


def test_a_tensor_in_several_pieces_is_checked_as_their_concatenation(blobs):
    manifest = kept(blobs)
    [whole] = next(tensor.pieces for tensor in manifest.tensors if tensor.name == "weights/large")
    half = 2**19
    pieces = tuple(msgspec.structs.replace(whole, offset=offset, size=half) for offset in (0, half))
    assert verified(blobs, changed_tensor(manifest, "weights/large", pieces=pieces)).ok
    assert not verified(blobs, changed_tensor(manifest, "weights/large", pieces=pieces[:1])).ok


@pytest.mark.parametrize(
    ("fields", "subject", "says"),
    [
        ({"parts": ()}, "architecture", "config.json is not in this version"),
        ({"pipeline": "other.json"}, "pipeline", "other.json is not"),
        ({"assets": (Asset(name="a", kind="text", parts=("gone",)),)}, "asset a", "gone is not"),
        ({"assets": (Asset(name="a", kind="array", tensors=("gone",)),)}, "asset a", "gone is not"),
        ({"golden": Golden(count=1, outputs={"a": ["gone"]})}, "golden", "gone is not"),
        ({"golden": Golden(count=1, outputs=(), raw="gone")}, "golden", "gone is not"),
        (
            {"custom_objects": (CustomObject(name="Mine", kind="layer", module="m", qualname="Mine", source="gone"),)},
            "custom object Mine",
            "gone is not",
        ),
    ],
)
def test_everything_that_is_named_must_be_there(blobs, fields, subject, says):
    assert says in told(verified(blobs, kept(blobs, **fields)))["reference", subject]


def test_a_weights_only_version_needs_no_architecture(blobs):
    assert verified(blobs, Manifest(model="m", version="1.0.0", created="", writer="", kind="weights")).ok


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../x", "a//b", "", "a/", "a\\b", "a\0b", "./a", "a\nb"])
def test_a_part_whose_name_could_leave_its_folder_is_refused(blobs, name):
    manifest = kept(blobs, kind="weights", parts=(part(blobs, name),), pipeline=None, assets=())
    assert told(verified(blobs, manifest)) == {("name", name): "is not a relative path"}


def test_names_must_be_unique_and_sizes_true(blobs):
    config = part(blobs, "config.json")
    manifest = kept(blobs, parts=(config, msgspec.structs.replace(config, size=3)), pipeline=None, assets=())
    assert told(verified(blobs, manifest)) == {
        ("name", "config.json"): "more than one part has this name",
        ("part-size", "config.json"): "found 2 bytes, expected 3",
    }


def spec(shape, dtype="float32"):
    return (TensorSpec(name="x", shape=shape, dtype=dtype),)


@pytest.mark.parametrize(
    ("inputs", "outputs", "warned"),
    [
        (spec((None, 3)), spec((None, 2)), set()),
        (spec((1, 4)), spec((None, 2)), {"golden/in"}),
        (spec((None,)), spec((None, 3)), {"golden/in", "golden/out"}),
        (spec((None, 3), "int64"), spec((None, 2), "float16"), {"golden/out"}),
    ],
)
def test_golden_examples_that_do_not_fit_the_signature_are_warned_of(blobs, inputs, outputs, warned):
    signature = Signature(inputs=inputs, outputs=outputs, input_structure="x", output_structure="x")
    report = verified(blobs, kept(blobs, signature=signature))
    assert report.ok
    assert {subject for _, subject in told(report, Severity.WARNING)} == warned
    fewer = msgspec.structs.replace(signature, input_structure=[])
    assert "1 inputs in the examples, 0 in the signature" in str(verified(blobs, kept(blobs, signature=fewer)))


def test_raw_examples_are_the_pipelines_business(blobs):
    golden = Golden(count=1, raw="pipeline.json", outputs="golden/out")
    signature = Signature(inputs=spec((9,)), outputs=spec((9,)), input_structure="x", output_structure="x")
    assert not told(verified(blobs, kept(blobs, golden=golden, signature=signature)), Severity.WARNING)


def test_what_loading_needs_and_what_was_let_pass_is_noted(blobs):
    mine = CustomObject(name="Mine", kind="layer", module="my.layers", qualname="Mine")
    report = verified(blobs, kept(blobs, custom_objects=(mine,), notices=("lambda: kept on request",)))
    assert told(report, Severity.NOTE) == {
        ("custom-object", "Mine"): "a layer that loading needs, from my.layers.Mine",
        ("notice", ""): "lambda: kept on request",
    }


def test_the_ledgers_and_the_environments_findings_are_part_of_the_report(blobs):
    ledger = [Finding("ledger", Severity.OK, "42 entries")]
    saved = Environment(python="3.11.7", platform="l", machine="m")

    def compare(environment):
        return [Finding("environment", Severity.WARNING, environment.python, "python")]

    report = verified(blobs, kept(blobs, environment=saved), ledger=ledger, environment=compare)
    assert report.findings[0] is ledger[0]
    assert told(report, Severity.WARNING) == {("environment", "python"): "3.11.7"}
    assert not told(verified(blobs, kept(blobs), environment=compare), Severity.WARNING)


def test_progress_counts_every_byte(blobs):
    steps = []
    verified(blobs, kept(blobs), progress=lambda *step: steps.append(step))
    for what in ("checking blobs", "checking tensors"):
        done = [(done, total) for step, done, total in steps if step == what]
        assert done[-1][0] == done[-1][1] > 0
        assert done == sorted(done)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        ("bool", 1), ("int8", 1), ("uint16", 2), ("bfloat16", 2), ("float16", 2), ("float32", 4), ("int64", 8),
        ("complex64", 8), ("complex128", 16), ("float8_e4m3fn", 1), ("float8_e5m2", 1), ("int4", 1), ("uint2", 1),
        ("string", None), ("object", None), ("<f4", None), ("float", None), ("datetime64", None),
    ],
)  # fmt: skip
def test_the_width_of_a_dtype_is_read_from_its_name(dtype, size):
    assert itemsize(dtype) == size
