"""Versions that answer and hold no Keras model: kept byte by byte, run by an engine, held to what they answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from modelkeep.engines.engine import open_engine
from modelkeep.errors import IntegrityError, UsageError
from modelkeep.formats.forms import open_contents
from modelkeep.live import servable
from modelkeep.live.loading import load
from modelkeep.live.variables import array_source
from modelkeep.manifest import Manifest, Part
from modelkeep.storage.blobs import Blobs
from modelkeep.storage.local import LocalStore
from test_engines import LEFT, TIMES, write_onnx, write_openvino

pytestmark = pytest.mark.keras
KERNEL = np.arange(6, dtype="float32").reshape(3, 2)


def write_with_weights_beside(path: Path) -> Path:
    """``y = x @ kernel``, the kernel in a file of a folder below."""
    from onnx import TensorProto, external_data_helper, helper, numpy_helper, save

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, n]) for name, n in (("x", 3), ("y", 2))]
    kernel = numpy_helper.from_array(KERNEL, "kernel")
    external_data_helper.set_external_data(kernel, "deep/weights.bin", 0, KERNEL.nbytes)
    kernel.data_location = TensorProto.EXTERNAL
    kernel.ClearField("raw_data")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "kernel"], ["y"])], "g", values[:1], values[1:], [kernel]
    )
    path.mkdir()
    (path / "deep").mkdir()
    (path / "deep" / "weights.bin").write_bytes(KERNEL.tobytes())
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path / "m.onnx")
    return path / "m.onnx"


def kept(path: Path, blobs: Blobs, examples: Any = None) -> Manifest:
    """The manifest of a version made of a servable file."""
    with open_contents(path) as contents:
        gathered = servable.gather(contents, open_engine(contents.form, path), examples)
        parts = {name: file.read_bytes() for name, file in gathered.parts.items()} | gathered.recorded.parts
        arrays = [array_source(name, array) for name, array in gathered.recorded.arrays.items()]
    return Manifest(
        model="m",
        version="1.0.0",
        created="2026-01-01T00:00:00Z",
        writer="tests",
        kind="servable",
        signature=gathered.signature,
        golden=gathered.recorded.golden,
        parts=tuple(Part(name=name, digest=blobs.put(data), size=len(data)) for name, data in parts.items()),
        tensors=blobs.write(arrays).tensors,
    )


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(LocalStore(tmp_path / "store"))


@pytest.mark.parametrize(
    ("write", "parts"),
    [
        (write_onnx, {"servable/onnx/model.onnx"}),
        (write_openvino, {"servable/openvino/model.bin", "servable/openvino/model.xml"}),
        (write_with_weights_beside, {"servable/onnx/deep/weights.bin", "servable/onnx/model.onnx"}),
    ],
)
def test_a_servable_version_comes_back_and_answers_as_it_did(
    write: Any, parts: set[str], tmp_path: Path, blobs: Blobs
) -> None:
    manifest = kept(write(tmp_path / "file"), blobs)
    assert {part.name for part in manifest.parts} == parts
    assert manifest.golden is not None
    assert manifest.golden.probe
    assert manifest.signature is not None
    engine = servable.open_parts(manifest, blobs)
    assert engine.signature.inputs == manifest.signature.inputs
    assert engine.signature.outputs == manifest.signature.outputs
    report = load(manifest, blobs).replay(same_backend=True)
    assert [finding.message for finding in report] == ["equal to the bit"]


def test_examples_are_kept_with_what_the_engine_answered(tmp_path: Path, blobs: Blobs) -> None:
    manifest = kept(write_onnx(tmp_path / "m.onnx"), blobs, {"left": LEFT, "times": TIMES})
    assert manifest.golden is not None
    assert (manifest.golden.count, manifest.golden.probe) == (3, False)
    assert manifest.golden.inputs == {"left": "golden/inputs/left", "times": "golden/inputs/times"}


def test_one_array_will_do_where_there_is_one_input(tmp_path: Path, blobs: Blobs) -> None:
    manifest = kept(write_with_weights_beside(tmp_path / "m"), blobs, np.ones((4, 3), "float32"))
    assert manifest.golden is not None
    assert manifest.golden.count == 4
    with pytest.raises(UsageError, match=r"do not say which input each is.*a mapping with left, times"):
        kept(write_onnx(tmp_path / "two.onnx"), blobs, LEFT)


def test_an_answer_that_changed_fails_the_replay_with_its_numbers(tmp_path: Path, blobs: Blobs) -> None:
    manifest = kept(write_onnx(tmp_path / "m.onnx"), blobs, {"left": LEFT, "times": TIMES})
    (outputs,) = [tensor for tensor in manifest.tensors if "outputs" in tensor.name]
    (other,) = blobs.write([array_source(outputs.name, LEFT * 3)]).tensors
    tensors = tuple(other if tensor is outputs else tensor for tensor in manifest.tensors)
    changed = msgspec.structs.replace(manifest, tensors=tensors)
    report = load(changed, blobs).replay(same_backend=True)
    assert "values differ" in report.failures[0].message


@pytest.mark.parametrize("name", ["servable/onnx/../../m.onnx", "servable//etc/m.onnx", "servable/m.onnx"])
def test_a_part_that_would_leave_its_folder_is_refused(name: str, tmp_path: Path, blobs: Blobs) -> None:
    manifest = kept(write_onnx(tmp_path / "m.onnx"), blobs)
    moved = tuple(msgspec.structs.replace(part, name=name) for part in manifest.parts)
    with pytest.raises(IntegrityError, match="no honest name"):
        servable.open_parts(msgspec.structs.replace(manifest, parts=moved), blobs)


def test_a_version_without_such_parts_is_refused(blobs: Blobs) -> None:
    empty = Manifest(model="m", version="1.0.0", created="", writer="", kind="servable")
    with pytest.raises(IntegrityError, match="holds no form that answers"):
        servable.open_parts(empty, blobs)
