"""What a config tells of its layers: their paths, names, order, and what feeds what."""

from __future__ import annotations

import json

import keras
import pytest
from keras import layers

from modelkeep.live.internals import walk
from modelkeep.live.outline import outline, snake_case, wiring

pytestmark = pytest.mark.keras


def config_of(model: keras.Model) -> object:
    return json.loads(json.dumps(keras.saving.serialize_keras_object(model)))


def branched() -> keras.Model:
    inner = keras.Sequential([layers.Input((4,)), layers.Dense(3, name="in"), layers.ReLU()], name="inner")
    x = keras.Input((4,))
    left, right = layers.Dense(3, name="left")(x), inner(x)
    return keras.Model(x, layers.Dense(1, name="end")(layers.Add()([left, right * 2.0])))


def test_paths_are_those_of_keras_files() -> None:
    model = branched()
    nodes = {path: node.name for path, node in walk(model) if isinstance(node, keras.Layer)}
    listed = [one for one in outline(config_of(model)) if one.kind in ("Dense", "ReLU", "Add")]
    assert {one.path: one.names[-1] for one in listed}.items() <= nodes.items()


def test_models_within_are_opened_under_their_names() -> None:
    assert ("inner", "in") in [one.names for one in outline(config_of(branched()))]


def test_layers_without_weights_and_operations_pass_on_what_feeds_them() -> None:
    weighted = {("left",), ("inner", "in"), ("end",)}
    feeds = wiring(outline(config_of(branched())), weighted)
    assert feeds == {("left",): (), ("inner", "in"): (), ("end",): (("left",), ("inner", "in"))}


def test_a_config_without_layers_has_no_outline() -> None:
    assert outline({"class_name": "Classifier", "config": {"units": 3}}) == outline(None) == ()


@pytest.mark.parametrize("kind", [layers.LSTMCell, layers.Conv2D, layers.BatchNormalization, layers.GRU])
def test_names_follow_from_classes_as_keras_makes_them(kind: type) -> None:
    assert keras.src.utils.naming.to_snake_case(kind.__name__) == snake_case(kind.__name__)
