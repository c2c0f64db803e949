"""ONNX models read as data: what they tell, what of them can be read, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from modelkeep.errors import IntegrityError, LimitExceeded, ModelkeepError
from modelkeep.formats import onnx as form
from modelkeep.formats.contents import Contents
from modelkeep.formats.forms import look, recognise
from modelkeep.formats.limits import DEFAULT, Limits
from modelkeep.manifest import TensorSpec
from modelkeep.safety import graphs
from modelkeep.safety.scanning import scan
from wire import message

KERNEL = np.arange(6, dtype="float32").reshape(3, 2)


def model(*, nodes: Any = (), initializers: Any = (), functions: Any = (), **options: Any) -> Any:
    """``y = x @ kernel``, and what else is given."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "kernel"], ["y"]), *nodes],
        "graph",
        [x],
        [y],
        [numpy_helper.from_array(KERNEL, "kernel"), *initializers],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    options = {"producer_name": "tests", "producer_version": "1", **options}
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions), **options)


def saved(made: Any, path: Path) -> Path:
    path.write_bytes(made.SerializeToString())
    return path


@contextmanager
def opened(path: Path, limits: Limits = DEFAULT) -> Iterator[Contents]:
    place = look(path)
    assert form.recognise(place)
    with form.read(place, limits, True) as contents:
        yield contents


def with_weights_at(path: Path, location: str) -> Path:
    """A model whose kernel lies in a file beside, at ``location``."""
    made = model()
    external_data_helper.set_external_data(made.graph.initializer[0], location, 0, KERNEL.nbytes)
    made.graph.initializer[0].data_location = TensorProto.EXTERNAL
    made.graph.initializer[0].ClearField("raw_data")
    return saved(made, path)


def test_a_model_tells_its_writer_signature_operators_and_metadata(tmp_path: Path) -> None:
    made = model(nodes=[helper.make_node("Relu", ["y"], ["z"]), helper.make_node("Relu", ["z"], ["u"])])
    helper.set_model_props(made, {"author": "me"})
    with opened(saved(made, tmp_path / "m.onnx")) as contents:
        assert contents.form == "onnx"
        assert contents.writer == {"producer": "tests 1"}
        assert contents.signatures["main"].inputs == (TensorSpec(name="x", shape=(None, 3), dtype="float32"),)
        assert contents.signatures["main"].outputs == (TensorSpec(name="y", shape=(None, 2), dtype="float32"),)
        assert contents.details["ops"] == {"MatMul": 1, "Relu": 2}
        assert contents.details["opsets"] == {"ai.onnx": 18, "own": 1}
        assert contents.details["metadata"] == {"author": "me"}
        assert contents.parameters == 6


def test_what_the_onnx_package_writes_is_recognised_whatever_it_says_first(tmp_path: Path) -> None:
    for number, options in enumerate([{}, {"producer_name": ""}, {"doc_string": "x" * 9000, "domain": "d"}]):
        path = saved(model(**options), tmp_path / f"{number}.onnx")
        assert recognise(look(path)) is form.FORM


@pytest.mark.parametrize(
    "start", [b"", b"\x08\x01\x12\x03abc", b"\x0a\x08graphdef", b"PK\x03\x04", b"\x08\x08\xff\xff"]
)
def test_other_files_are_not_taken_for_onnx(start: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(start)
    assert not form.recognise(look(path))


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(
    "dtype",
    ["float32", "float64", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "uint32", "uint64", "bool"],
)
def test_weights_of_every_dtype_come_out_as_they_went_in(dtype: str, raw: bool, tmp_path: Path) -> None:
    import ml_dtypes

    values = np.arange(6).reshape(2, 3).astype(getattr(ml_dtypes, dtype, dtype))
    tensor = numpy_helper.from_array(values, "w")
    if not raw:
        bits = values.view("u2").reshape(-1) if dtype in ("float16", "bfloat16") else values.reshape(-1)
        kind = tensor.data_type
        tensor = TensorProto(name="w", data_type=kind, dims=[2, 3])
        field = {1: "float_data", 11: "double_data", 7: "int64_data", 12: "uint64_data", 13: "uint64_data"}
        getattr(tensor, field.get(kind, "int32_data")).extend(map(int if kind not in (1, 11) else float, bits.tolist()))
    with opened(saved(model(initializers=[tensor]), tmp_path / "m.onnx")) as contents:
        assert contents.problems == ()
        np.testing.assert_array_equal(contents.tensors[1].read(), values, strict=True)


def test_operators_in_the_bodies_of_loops_and_functions_are_counted(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("Exp", ["x"], ["e"])], "body", [], [helper.make_tensor_value_info("e", 1, None)]
    )
    branch = helper.make_node("If", ["c"], ["e"], then_branch=inner, else_branch=inner)
    function = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    call = helper.make_node("Twice", ["y"], ["t"], domain="own")
    with opened(saved(model(nodes=[branch, call], functions=[function]), tmp_path / "m.onnx")) as contents:
        assert contents.details["ops"] == {"Add": 1, "Exp": 2, "If": 1, "MatMul": 1, "own:Twice": 1}
        assert list(graphs.check(contents, DEFAULT)) == []


def test_weights_among_the_inputs_of_old_files_are_no_inputs(tmp_path: Path) -> None:
    made = model()
    made.graph.input.append(helper.make_tensor_value_info("kernel", TensorProto.FLOAT, [3, 2]))
    with opened(saved(made, tmp_path / "m.onnx")) as contents:
        assert [spec.name for spec in contents.signatures["main"].inputs] == ["x"]


# --- weights in files beside


def test_weights_beside_are_read_from_the_models_own_folder(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "w.bin").write_bytes(KERNEL.tobytes())
    with opened(with_weights_at(tmp_path / "m.onnx", "deep/w.bin")) as contents:
        assert contents.problems == ()
        assert [(member.name, member.size) for member in contents.members] == [("deep/w.bin", 24)]
        np.testing.assert_array_equal(contents.tensors[0].read(), KERNEL)


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../w.bin", "a/../../w.bin", "..\\w.bin", "C:\\w.bin", "\\\\host\\w", ""]
)
def test_weights_outside_the_models_folder_are_critical_and_never_read(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(KERNEL.tobytes())
    path = with_weights_at(folder / "m.onnx", location)
    with opened(path) as contents:
        assert [problem.rule for problem in contents.problems] == ["onnx-external-data"]
        with pytest.raises(IntegrityError, match="cannot be read"):
            contents.tensors[0].read()
    assert [(finding.rule, finding.level) for finding in scan(path).refused] == [("onnx-external-data", "critical")]


@pytest.mark.parametrize("which", ["w.bin", "deep"])
def test_a_link_on_the_way_to_the_weights_is_critical(which: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "w.bin").write_bytes(KERNEL.tobytes())
    (tmp_path / "model").mkdir()
    os.symlink(tmp_path / "elsewhere" / (which if which == "w.bin" else ""), tmp_path / "model" / which)
    location = "w.bin" if which == "w.bin" else "deep/w.bin"
    with opened(with_weights_at(tmp_path / "model" / "m.onnx", location)) as contents:
        assert [problem.rule for problem in contents.problems] == ["onnx-external-data"]


def test_weights_beside_that_are_missing_or_cut_short_are_damage(tmp_path: Path) -> None:
    path = with_weights_at(tmp_path / "m.onnx", "w.bin")
    with opened(path) as contents:
        assert [problem.rule for problem in contents.problems] == ["damaged"]
    (tmp_path / "w.bin").write_bytes(b"short")
    with opened(path) as contents:
        assert [problem.rule for problem in contents.problems] == ["damaged"]


# --- rules and limits


def test_an_operator_from_elsewhere_is_told_and_does_not_refuse(tmp_path: Path) -> None:
    made = model(
        nodes=[
            helper.make_node("Magic", ["y"], ["z"], domain="own"),
            helper.make_node("Gelu", ["y"], ["g"], domain="com.microsoft"),
        ]
    )
    found = scan(saved(made, tmp_path / "m.onnx"))
    assert [(finding.rule, finding.level, finding.place) for finding in found.findings] == [
        ("onnx-custom-operator", "medium", "own:Magic")
    ]
    assert found.ok


@pytest.mark.parametrize(("domain", "name"), [("", "PyOp"), ("com.microsoft", "PythonOp"), ("ai.onnx.contrib", "X")])
def test_an_operator_that_runs_python_is_refused(domain: str, name: str, tmp_path: Path) -> None:
    made = model(nodes=[helper.make_node(name, ["y"], ["z"], domain=domain)])
    assert [finding.rule for finding in scan(saved(made, tmp_path / "m.onnx")).refused] == ["onnx-python"]


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (Limits(nodes=1), "nodes"),
        (Limits(tensors=1), "tensors"),
        (Limits(graph=10), "graph"),
        (Limits(constant=8), "constant"),
    ],
)
def test_more_than_a_limit_is_refused_before_it_is_taken(limits: Limits, named: str, tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(KERNEL, "c"))
    more = numpy_helper.from_array(KERNEL, "more")
    path = saved(model(nodes=[constant], initializers=[more]), tmp_path / "m.onnx")
    with pytest.raises(LimitExceeded, match=named), opened(path, limits):
        pass


def test_graphs_nested_without_end_are_refused(tmp_path: Path) -> None:
    graph = message((2, "deepest"))
    for _ in range(5_000):
        graph = message((1, message((4, "If"), (5, message((1, "then_branch"), (6, graph))))))
    path = tmp_path / "m.onnx"
    path.write_bytes(message((1, 10), (7, graph)))
    with pytest.raises(IntegrityError, match="more than 32 deep"), opened(path):
        pass


def test_a_tensor_with_fewer_bytes_than_its_shape_needs_is_damage(tmp_path: Path) -> None:
    made = model()
    made.graph.initializer[0].dims[0] = 3_000_000_000
    with opened(saved(made, tmp_path / "m.onnx")) as contents:
        assert [problem.rule for problem in contents.problems] == ["damaged"]
        with pytest.raises(IntegrityError, match="incomplete"):
            contents.tensors[0].read()


@given(data=st.data())
def test_a_damaged_model_is_refused_in_the_librarys_own_words(data: Any, tmp_path_factory: Any) -> None:
    whole = bytearray(model().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "m.onnx"
    path.write_bytes(bytes(whole[: data.draw(st.integers(4, len(whole)))]))
    place = look(path)
    if not form.recognise(place):
        return
    try:
        with form.read(place, DEFAULT, True) as contents:
            for tensor in contents.tensors:
                tensor.read()
    except ModelkeepError:
        pass


def test_the_onnx_package_agrees_with_what_was_read(tmp_path: Path) -> None:
    path = saved(model(), tmp_path / "m.onnx")
    onnx.checker.check_model(str(path))
    with opened(path) as contents:
        expected = [numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer]
        for tensor, array in zip(contents.tensors, expected, strict=True):
            np.testing.assert_array_equal(tensor.read(), array, strict=True)
