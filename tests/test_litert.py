"""LiteRT models read as data, and the FlatBuffers they lie in, with every offset of a damaged one checked."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.errors import IntegrityError, LimitExceeded, ModelkeepError
from modelkeep.formats import litert as form
from modelkeep.formats.contents import Contents
from modelkeep.formats.flatbuffers import root
from modelkeep.formats.forms import look, recognise
from modelkeep.formats.limits import DEFAULT, Limits
from modelkeep.manifest import TensorSpec
from modelkeep.safety.scanning import scan

KERNEL = np.arange(6, dtype="float32").reshape(2, 3)


def tensor(name: str, shape: list[int], *, buffer: int = 0, dtype: int = 0, rows: int | None = None) -> Any:
    made = schema.TensorT()
    made.name, made.shape, made.buffer, made.type = name.encode(), shape, buffer, dtype
    made.shapeSignature = None if rows is None else [rows, *shape[1:]]
    return made


def operator_code(number: int, custom: str | None = None) -> Any:
    made = schema.OperatorCodeT()
    made.builtinCode, made.deprecatedBuiltinCode = number, min(number, 127)
    made.customCode = custom and custom.encode()
    return made


def model(*, codes: Any = (9,), custom: tuple[str, ...] = (), signature: bool = True) -> Any:
    """``out = x @ kernel``, by operators of the given numbers and custom names."""
    graph = schema.SubGraphT()
    graph.tensors = [tensor("x", [1, 3], rows=-1), tensor("kernel", [2, 3], buffer=1), tensor("y", [1, 2], rows=-1)]
    graph.inputs, graph.outputs, graph.operators = [0], [2], []
    made = schema.ModelT()
    made.version, made.description = 3, b"by hand"
    made.operatorCodes = [*map(operator_code, codes), *(operator_code(32, name) for name in custom)]
    for index in range(len(made.operatorCodes)):
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = index, [0, 1], [2]
        graph.operators.append(operator)
    empty, kernel = schema.BufferT(), schema.BufferT()
    kernel.data = np.frombuffer(KERNEL.tobytes(), "uint8")
    made.buffers, made.subgraphs = [empty, kernel], [graph]
    if signature:
        named = schema.SignatureDefT()
        named.signatureKey, named.inputs, named.outputs = b"serving_default", [mapped("inputs", 0)], [mapped("out", 2)]
        made.signatureDefs = [named]
    return made


def mapped(name: str, index: int) -> Any:
    made = schema.TensorMapT()
    made.name, made.tensorIndex = name.encode(), index
    return made


def packed(made: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(made.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def saved(made: Any, path: Path) -> Path:
    path.write_bytes(made if isinstance(made, bytes) else packed(made))
    return path


@contextmanager
def opened(path: Path, limits: Limits = DEFAULT) -> Iterator[Contents]:
    with form.read(look(path), limits, True) as contents:
        yield contents


def test_a_model_tells_its_signature_operators_and_weights(tmp_path: Path) -> None:
    path = saved(model(codes=(9, 209), custom=("FlexAdd",)), tmp_path / "m.tflite")
    assert recognise(look(path)) is form.FORM
    with opened(path) as contents:
        assert contents.writer == {"producer": "by hand"}
        assert contents.signatures["serving_default"].inputs == (
            TensorSpec(name="inputs", shape=(None, 3), dtype="float32"),
        )
        assert contents.signatures["serving_default"].outputs[0].name == "out"
        assert contents.details["ops"] == {"FULLY_CONNECTED": 1, "FlexAdd": 1, "STABLEHLO_CASE": 1}
        assert [one.name for one in contents.tensors] == ["kernel"]
        np.testing.assert_array_equal(contents.tensors[0].read(), KERNEL, strict=True)


def test_a_model_without_signatures_has_that_of_its_first_graph(tmp_path: Path) -> None:
    with opened(saved(model(signature=False), tmp_path / "m.tflite")) as contents:
        assert contents.signatures["main"].inputs == (TensorSpec(name="x", shape=(None, 3), dtype="float32"),)


@pytest.mark.parametrize(
    ("name", "rule", "ok"),
    [
        ("FlexAdd", "litert-custom-operator", True),
        ("MyOwn", "litert-custom-operator", True),
        ("FlexWriteFile", "litert-flex-outside", False),
        ("FlexEagerPyFunc", "litert-flex-outside", False),
        ("FlexSaveV2", "litert-flex-outside", False),
    ],
)
def test_operators_that_are_not_litert_own_are_judged_by_what_they_may_do(
    name: str, rule: str, ok: bool, tmp_path: Path
) -> None:
    found = scan(saved(model(custom=(name,)), tmp_path / "m.tflite"))
    assert [finding.rule for finding in found.findings] == [rule]
    assert found.ok is ok


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    group = schema.ExternalBufferGroupT()
    group.name = b"/etc/passwd"
    made = model()
    made.externalBufferGroups = [group]
    assert [finding.rule for finding in scan(saved(made, tmp_path / "m.tflite")).refused] == ["litert-external-data"]


def test_a_tensor_whose_bytes_do_not_fill_its_shape_is_damage(tmp_path: Path) -> None:
    made = model()
    made.subgraphs[0].tensors[1].shape = [2_000_000_000, 2_000_000_000]
    with opened(saved(made, tmp_path / "m.tflite")) as contents:
        assert [problem.rule for problem in contents.problems] == ["damaged"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda made: setattr(made.subgraphs[0], "inputs", [7]) or setattr(made, "signatureDefs", None), "an input"),
        (lambda made: setattr(made.subgraphs[0].operators[0], "opcodeIndex", 5), "an operator is not there"),
        (lambda made: setattr(made.subgraphs[0].tensors[1], "buffer", 9), "tensor 'kernel' is not there"),
        (lambda made: setattr(made.subgraphs[0].tensors[1], "shape", [-1, 3]), "a length below zero"),
        (lambda made: setattr(made.signatureDefs[0], "subgraphIndex", 3), "a signature's graph"),
        (lambda made: setattr(made, "subgraphs", []), "without a graph"),
    ],
)
def test_an_index_that_leads_nowhere_is_refused(change: Any, reason: str, tmp_path: Path) -> None:
    made = model()
    change(made)
    path = saved(made, tmp_path / "m.tflite")
    with pytest.raises(IntegrityError, match=reason), opened(path):
        pass


def test_more_than_a_limit_is_refused_before_it_is_taken(tmp_path: Path) -> None:
    path = saved(model(codes=(9, 9)), tmp_path / "m.tflite")
    for limits in (Limits(tensors=1), Limits(nodes=1), Limits(functions=1), Limits(graph=10)):
        with pytest.raises(LimitExceeded), opened(path, limits):
            pass


def test_a_vector_longer_than_the_file_is_refused_before_it_is_read() -> None:
    data = struct.pack("<IHHHHiII", 12, 6, 8, 4, 0, 8, 4, 2**31)
    with pytest.raises(IntegrityError, match="a vector is longer than the file"):
        root(memoryview(data)).numbers(0, "i")


@given(data=st.data())
def test_a_damaged_model_is_refused_in_the_librarys_own_words(data: Any, tmp_path_factory: Any) -> None:
    whole = bytearray(packed(model(custom=("FlexAdd",))))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(8, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "m.tflite"
    path.write_bytes(bytes(whole[: data.draw(st.integers(8, len(whole)))]))
    try:
        with opened(path) as contents:
            for one in contents.tensors:
                one.read()
    except ModelkeepError:
        pass
