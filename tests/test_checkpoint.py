from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from modelkeep.errors import IntegrityError, LimitExceeded, NotFound
from modelkeep.formats import forms
from modelkeep.formats.limits import DEFAULT, Limits
from modelkeep.formats.object_graph import Node, ObjectGraph, Slot, read_graph
from modelkeep.formats.tensor_bundle import open_bundle
from modelkeep.safety.scanning import scan
from wire import message

FOREIGN = Path(__file__).parent / "foreign" / "saved_models"
WEIGHTS = FOREIGN / "weights"
LAYERS = ["layer_with_weights-0/bias", "layer_with_weights-0/kernel"]


@pytest.mark.parametrize("path", [WEIGHTS, WEIGHTS / "ckpt", WEIGHTS / "ckpt.index"], ids=["folder", "prefix", "index"])
def test_a_checkpoint_is_found_by_its_folder_its_prefix_and_its_index(path: Path) -> None:
    with forms.open_contents(path, thorough=True) as found:
        assert found.form == "tf_checkpoint"
        assert [tensor.name for tensor in found.tensors][:2] == LAYERS
        assert found.parameters == 3 * 3 + 3 + 4 * 3 + 3 * 2 + 2
        assert found.details["object_based"]
        assert found.details["variables"]["layer_with_weights-0/kernel"] == "shared/kernel"
        assert found.problems == ()


def test_what_belongs_to_training_is_told_apart() -> None:
    with forms.open_contents(WEIGHTS) as found:
        names = {found.details["variables"][tensor.name] for tensor in found.optimizer}
    assert {"iteration", "learning_rate", "Adam/m/shared/kernel", "Adam/v/b/bias"} <= names


def test_the_tensors_are_those_of_the_model() -> None:
    with forms.open_contents(WEIGHTS) as found, forms.open_contents(FOREIGN / "dense") as saved:
        same = {tensor.name: tensor for tensor in saved.tensors}
        for tensor in found.tensors:
            np.testing.assert_array_equal(tensor.read(), same[tensor.name].read())


def test_a_checkpoint_by_name_has_no_objects(tmp_path: Path) -> None:
    for file in (FOREIGN / "tensorflow_1" / "variables").iterdir():
        shutil.copy(file, tmp_path / file.name.replace("variables", "model-7"))
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "C:\\\\elsewhere\\\\model-7"\n')
    for path in (tmp_path, tmp_path / "model-7"):
        with forms.open_contents(path) as found:
            assert not found.details["object_based"]
            assert [tensor.name for tensor in found.tensors] == ["layer/w", "parts"]


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "other", ""])
def test_a_folder_leads_to_no_file_outside_it(tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(WEIGHTS, tmp_path / "weights")
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{name}"\n')
    with pytest.raises(IntegrityError, match="names no checkpoint of its folder"), forms.open_contents(folder):
        pass


def test_an_index_under_another_name_is_told_from_other_files(tmp_path: Path) -> None:
    shutil.copy(WEIGHTS / "ckpt.index", tmp_path / "renamed")
    with pytest.raises(IntegrityError, match=r"a name that ends in \.index"), forms.open_contents(tmp_path / "renamed"):
        pass
    with pytest.raises(NotFound), forms.open_contents(tmp_path / "absent"):
        pass


@pytest.mark.parametrize("path", [WEIGHTS, WEIGHTS / "ckpt"], ids=["folder", "prefix"])
def test_an_honest_checkpoint_breaks_no_rule(path: Path) -> None:
    assert not scan(path).findings


def test_objects_are_found_by_their_path_and_below_another() -> None:
    nodes = [
        Node({"model": 1, "again": 1}),
        Node({"kernel": 2, "parent": 0}),
        Node(keys={"VARIABLE_VALUE": "k/.ATTRIBUTES/VARIABLE_VALUE"}),
    ]
    graph = ObjectGraph(nodes)
    assert graph.at(("model", "kernel")) == 2
    assert graph.at(("model", "bias")) is None
    assert graph.name_of(2) == "k"
    assert graph.below(1) == {0, 1, 2}
    assert ObjectGraph(()).at(("model",)) is None


@pytest.mark.parametrize("node", [Node({"x": 2}), Node({"x": -1}), Node(slots=(Slot(0, "m", 7),))])
def test_an_object_that_is_not_there_is_no_child(node: Node) -> None:
    with pytest.raises(IntegrityError, match="names objects that it lacks"):
        ObjectGraph([node])


def test_an_object_graph_of_too_many_objects_is_refused() -> None:
    data = memoryview(message(*[(1, b"")] * 11))
    assert len(read_graph(data, Limits(objects=11)).nodes) == 11
    with pytest.raises(LimitExceeded):
        read_graph(data, Limits(objects=10))


def test_a_graph_is_read_from_the_bundle_it_lies_in() -> None:
    with open_bundle(WEIGHTS / "ckpt", DEFAULT) as bundle:
        graph = read_graph(bundle.scalar_text("_CHECKPOINTABLE_OBJECT_GRAPH"), DEFAULT)
        with pytest.raises(IntegrityError, match="not one text"):
            bundle.scalar_text("layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE")
    kernel = graph.at(("layer-1", "kernel"))
    assert kernel is not None
    assert graph.nodes[kernel].full_name == "shared/kernel"


def test_a_checkpoint_without_a_name_or_without_a_state_file_is_found(tmp_path: Path) -> None:
    for file in WEIGHTS.glob("ckpt.*"):
        shutil.copy(file, tmp_path / file.name.removeprefix("ckpt"))
    for place in (tmp_path, tmp_path / ".index"):
        with forms.open_contents(place) as contents, forms.open_contents(WEIGHTS / "ckpt.index") as named:
            assert [tensor.name for tensor in contents.tensors] == [tensor.name for tensor in named.tensors]
            np.testing.assert_equal(contents.tensors[0].read(), named.tensors[0].read())
