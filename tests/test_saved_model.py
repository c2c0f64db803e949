from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphs
from graphs import SAVER, call, folder, function, graph, node, text, zeros
from modelkeep.errors import IntegrityError, LimitExceeded, ModelkeepError
from modelkeep.formats import forms
from modelkeep.formats.contents import Contents
from modelkeep.formats.limits import DEFAULT, Limits
from modelkeep.safety import saved_model as safety
from modelkeep.safety.rules import RULES, Level
from modelkeep.safety.scanning import scan
from wire import message

FOREIGN = Path(__file__).parent / "foreign" / "saved_models"


def broken(path: Path, limits: Limits = DEFAULT) -> set[str]:
    """The rules that a SavedModel breaks."""
    with forms.open_contents(path, limits, thorough=True) as contents:
        return {problem.rule for problem in (*contents.problems, *safety.check(contents, limits))}


def contents_of(path: Path, limits: Limits = DEFAULT) -> Contents:
    with forms.open_contents(path, limits) as contents:
        return contents


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    """A SavedModel of Keras 2 that may be changed."""
    return Path(shutil.copytree(FOREIGN / "dense", tmp_path / "dense"))


# --- what is read


def test_a_saved_model_of_keras_2_tells_its_network() -> None:
    with forms.open_contents(FOREIGN / "dense", thorough=True) as found:
        assert found.form == "saved_model"
        assert found.writer == {"tensorflow": "2.12.1", "keras": "2.12.0", "backend": "tensorflow"}
        assert found.config["class_name"] == "Functional"
        assert found.compile["loss"] == "mse"
        assert found.parameters == 3 * 3 + 3 + 4 * 3 + 3 * 2 + 2
        assert len(found.optimizer) >= 2 * 6 + 2
        assert [layer["layer"] for layer in found.details["layers"]] == ["a", "shared", "norm", "b"]
        assert found.problems == ()


def test_signatures_have_names_shapes_and_dtypes() -> None:
    assert list(contents_of(FOREIGN / "dense").signatures) == ["serving_default"]
    (signature,) = contents_of(FOREIGN / "tensorflow_1").signatures.values()
    assert [(spec.name, spec.shape, spec.dtype) for spec in signature.inputs] == [
        ("words", (None,), "string"),
        ("x", (None, 4), "float32"),
    ]
    assert [spec.name for spec in signature.outputs] == ["ids", "y"]


def test_operations_are_counted_in_every_function() -> None:
    details = contents_of(FOREIGN / "dense").details
    assert details["functions"] == 4
    assert details["ops"]["MatMul"] == 3
    assert details["ops"]["SaveV2"] == details["ops"]["RestoreV2"] == 1


def test_lookup_layers_have_their_vocabulary_from_an_asset_or_the_graph() -> None:
    layers = contents_of(FOREIGN / "words").config["config"]["layers"]
    found = {layer["class_name"]: layer["config"].get("vocabulary") for layer in layers}
    assert found["StringLookup"] == ["ear", "fig", "gnu"]
    assert found["TextVectorization"] == ["gnu", "ear"]


def test_a_model_of_tensorflow_1_has_variables_by_name_and_no_network() -> None:
    found = contents_of(FOREIGN / "tensorflow_1")
    assert found.config is None
    assert [tensor.name for tensor in found.tensors] == ["layer/w", "parts"]
    assert found.details["assets"] == ["words.txt"]


@pytest.mark.parametrize("name", ["dense", "words", "tensorflow_1"])
def test_an_honest_saved_model_breaks_no_rule_of_weight(name: str) -> None:
    found = scan(FOREIGN / name)
    assert found.ok, str(found)
    assert not [finding for finding in found.findings if finding.level in (Level.HIGH, Level.CRITICAL)]


# --- what is refused


@pytest.mark.parametrize(
    ("operation", "rule"),
    [
        ("PyFunc", "graph-python"),
        ("EagerPyFunc", "graph-python"),
        ("WriteFile", "graph-writes-file"),
        ("SaveDatasetV2", "graph-writes-file"),
        ("DumpTensor", "graph-writes-file"),
        ("RpcClient", "graph-network"),
        ("WholeFileReaderV2", "graph-reads-file"),
        ("DataServiceDatasetV4", "graph-dataset-service"),
        ("MyOwnOperation", "graph-unknown-operation"),
    ],
)
@pytest.mark.parametrize("inside", [False, True], ids=["graph", "function"])
def test_an_operation_that_reaches_outside_is_found_wherever_it_is(
    tmp_path: Path, operation: str, rule: str, inside: bool
) -> None:
    odd = node("odd", operation)
    data = graph(functions=[function("never_called", (), odd)]) if inside else graph(odd)
    assert broken(folder(tmp_path, data)) == {rule}


def test_printing_to_a_file_is_writing_and_to_the_screen_is_not(tmp_path: Path) -> None:
    to_file = node("print", "PrintV2", "x", output_stream=message((2, "file:///tmp/x")))
    assert broken(folder(tmp_path / "a", graph(to_file))) == {"graph-writes-file"}
    assert broken(folder(tmp_path / "b", graph(node("print", "PrintV2", "x")))) == set()


def test_reading_an_asset_is_honest_and_another_file_is_not(tmp_path: Path) -> None:
    asset, other = text("asset", "never used"), text("other", "/etc/passwd")
    reads = [node("r", "ReadFile", "asset")]
    assert broken(folder(tmp_path / "a", graph(asset, *reads, assets={"asset:0": "v"}), v=b"")) == set()
    assert broken(folder(tmp_path / "b", graph(other, node("r", "ReadFile", "other")))) == {"graph-reads-file"}


def test_a_table_is_followed_to_its_file_through_functions_and_variables(tmp_path: Path) -> None:
    filling = function("fill", ("table", "file"), node("i", "InitializeTableFromTextFileV2", "table", "file"))
    a_text = {"dtype": message((6, graphs.STRING))}
    honest = [
        node("asset", "Placeholder"),
        node("assign", "AssignVariableOp", "v", "asset", **a_text),
        node("read", "ReadVariableOp", "v", "^assign"),
        call("c", "fill", "t", "read"),
    ]
    other = text("other", "/etc/passwd")
    for name, odd, rules in (
        ("honest", [], set()),
        ("called again", [other, call("d", "fill", "t", "other")], {"graph-reads-file"}),
        ("assigned again", [other, node("again", "AssignVariableOp", "v", "other", **a_text)], {"graph-reads-file"}),
    ):
        data = graph(*honest, *odd, functions=[filling], assets={"asset:0": "v"})
        assert broken(folder(tmp_path / name, data, v=b"a")) == rules


def test_functions_that_call_each_other_in_a_circle_are_followed_once(tmp_path: Path) -> None:
    circle = [
        function("a", ("f",), call("x", "b", "f"), node("r", "RestoreV2", "f")),
        function("b", ("f",), call("x", "a", "f")),
    ]
    assert broken(folder(tmp_path, graph(call("x", "a", "file"), functions=circle))) == {"graph-checkpoint"}


def test_variables_may_be_saved_where_the_loader_says_and_nowhere_else(tmp_path: Path) -> None:
    save = function(
        "save",
        ("prefix",),
        text("part", "_temp/part"),
        node("join", "StringJoin", "prefix", "part:output:0"),
        node("file", "ShardedFilename", "join:output:0", "0", "1"),
        node("save", "SaveV2", "file:filename:0"),
    )
    honest = [node("saver_filename", "Placeholder"), call("c", "save", "saver_filename")]
    assert broken(folder(tmp_path / "a", graph(*honest, functions=[save]))) == set()
    for name, odd in (("constant", text("x", "/home/user/.bashrc")), ("input", node("x", "Placeholder"))):
        data = graph(*honest, odd, call("d", "save", "x"), functions=[save])
        assert broken(folder(tmp_path / name, data)) == {"graph-checkpoint"}


def test_saving_whenever_the_model_answers_is_refused(tmp_path: Path) -> None:
    nodes = [
        text("model", "model"),
        node("saver_filename", "PlaceholderWithDefault", "model"),
        node("save", "SaveV2", "saver_filename"),
        node("y", "Identity", "x", "^save"),
    ]
    assert SAVER == "saver_filename:0"
    assert broken(folder(tmp_path / "a", graph(*nodes))) == set()
    assert broken(folder(tmp_path / "b", graph(*nodes, outputs={"y": "y:0"}))) == {"graph-checkpoint"}


def test_a_path_that_is_fed_at_load_is_not_fed_when_the_model_answers(tmp_path: Path) -> None:
    keep = function("keep", ("prefix",), node("save", "SaveV2", "prefix"))
    saver = [text("saver_filename", "/etc/cron.d/x"), call("y", "keep", "saver_filename")]
    data = graph(*saver, functions=[keep], outputs={"y": "y:0"})
    assert broken(folder(tmp_path / "a", data)) == {"graph-checkpoint"}
    reads = [text("asset", "/etc/passwd"), node("y", "ReadFile", "asset")]
    data = graph(*reads, assets={"asset:0": "v"}, outputs={"y": "y:0"})
    assert broken(folder(tmp_path / "b", data, v=b"")) == {"graph-reads-file"}


def test_tensors_that_are_small_in_the_file_and_large_in_memory_are_told(tmp_path: Path) -> None:
    assert broken(folder(tmp_path / "a", graph(zeros("c", 1000, 1000)))) == set()
    assert broken(folder(tmp_path / "b", graph(zeros("c", 100_000, 1000)))) == {"graph-constant"}
    sizes = b"".join(length.to_bytes(4, "little") for length in (100_000, 1000))
    dims = node("dims", "Const", value=message((8, message((1, graphs.INT32), (4, sizes)))))
    fill = node("fill", "Fill", "dims", "value", T=message((6, graphs.FLOAT)))
    assert broken(folder(tmp_path / "c", graph(dims, fill))) == {"graph-constant"}
    with pytest.raises(IntegrityError, match="larger than any memory"):
        broken(folder(tmp_path / "d", graph(zeros("c", 2**40, 2**40))))


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/b", "..", "", "a\\b"])
def test_an_asset_whose_name_is_a_path_is_refused(tmp_path: Path, name: str) -> None:
    assert broken(folder(tmp_path, graph(assets={"a:0": name}))) == {"asset-path"}


def test_an_asset_that_is_missing_or_a_link_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, graph(assets={"a:0": "v"}))
    assert broken(path) == {"asset-missing"}
    (path / "assets" / "v").symlink_to("/etc/passwd")
    assert broken(path) == {"asset-missing", "folder-special-file"}
    assert RULES["folder-special-file"].level is Level.HIGH


def test_files_that_tensorflow_does_not_write_are_told(dense: Path) -> None:
    (dense / "notes.txt").touch()
    (dense / "assets.extra").mkdir()
    (dense / "assets.extra" / "anything").touch()
    assert "saved-model-file" in broken(dense)
    (dense / "assets").mkdir(exist_ok=True)  # git keeps no empty folder
    (dense / "assets" / "setup.py").touch()
    assert "saved-model-program" in broken(dense)
    (dense / "notes.txt").rename(dense / "saved_model.cpb")
    assert "saved-model-shadowed" in broken(dense)


def with_metadata(path: Path, **metadata: Any) -> Path:
    """The SavedModel with one Keras object more."""
    one = message((2, 1), (3, "root.layer-9"), (5, json.dumps(metadata)))
    with (path / "keras_metadata.pb").open("ab") as file:
        file.write(message((1, one)))
    return path


def test_code_in_the_config_of_any_keras_object_is_found(dense: Path) -> None:
    code = {"function": ["4wAAAAAAAAAAAAAAAAEAAAABAAAAQwAAAHMEAAAAfABTACkBTqkA", None, None], "function_type": "lambda"}
    assert "code-by-value" in broken(with_metadata(dense, class_name="Lambda", name="l", config=code))


def test_a_graph_cut_short_is_refused(dense: Path) -> None:
    data = (dense / "saved_model.pb").read_bytes()
    for length in (0, 1, 7, len(data) // 2, len(data) - 1):
        (dense / "saved_model.pb").write_bytes(data[:length])
        with pytest.raises(IntegrityError):
            broken(dense)


def test_variables_that_are_missing_are_named(dense: Path) -> None:
    shutil.rmtree(dense / "variables")
    with pytest.raises(IntegrityError, match="the graph has variables and the folder none"):
        broken(dense)


def test_what_goes_beyond_a_limit_is_refused() -> None:
    for limit, most in (("graph", 1000), ("nodes", 10), ("functions", 1), ("config", 1000), ("objects", 3)):
        with pytest.raises(LimitExceeded, match=limit):
            broken(FOREIGN / "dense", Limits(**{limit: most}))


def test_a_graph_for_every_day_is_too_many(tmp_path: Path) -> None:
    with pytest.raises(LimitExceeded, match="too many graphs"):
        broken(folder(tmp_path, message((1, 1), *[(2, b"")] * 365)))


def test_a_pipe_in_place_of_the_graph_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "saved_model.pb")
    with pytest.raises(ModelkeepError):
        broken(tmp_path)


@given(st.data())
def test_a_damaged_saved_model_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = Path(shutil.copytree(FOREIGN / "words", tmp_path_factory.mktemp("damaged") / "words"))
    file = path / data.draw(st.sampled_from(["saved_model.pb", "keras_metadata.pb", "variables/variables.index"]))
    whole = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole)) | st.just(len(whole)))])
    with suppress(ModelkeepError):
        broken(path)
