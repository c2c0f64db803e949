"""Any model file is looked into without Keras, and what is told is what Keras would tell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import keras
import numpy as np
import pytest
from keras import layers

import modelkeep as mk
from modelkeep.errors import IntegrityError, NotFound, UsageError
from modelkeep.inspecting.facts import LayerFacts
from modelkeep.inspecting.inspection import Inspection

pytestmark = pytest.mark.keras

BACKENDS = {"jax", "keras", "tensorflow", "torch"}
SCRIPT = """
import sys
from modelkeep.cli.main import main
code = main(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""


def functional() -> keras.Model:
    image, row = keras.Input((8, 8, 3), name="image"), keras.Input((4,), name="row")
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    inner = keras.Sequential([layers.Input((4,)), layers.Dense(5, name="a"), layers.Dense(4, name="b")], name="inner")
    both = layers.Concatenate(name="both")([x, inner(row)]) * 2
    model = keras.Model({"image": image, "row": row}, {"label": layers.Dense(3, name="label")(both)}, name="net")
    model.compile(keras.optimizers.Adam(3e-4), "mse", metrics=["mae"])
    model.fit({"image": np.zeros((2, 8, 8, 3)), "row": np.zeros((2, 4))}, {"label": np.zeros((2, 3))}, verbose=0)
    return model


@pytest.fixture(scope="module", params=["net.keras", "net.h5"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inspecting") / str(request.param)
    functional().save(path)
    return path


def by_name(found: Inspection) -> dict[str, LayerFacts]:
    assert found.facts.architecture is not None
    return {layer.name: layer for layer in found.facts.architecture.layers}


def test_every_layer_has_the_shape_and_parameters_that_keras_counts(file: Path) -> None:
    model, found = functional(), by_name(mk.inspect(file))
    told = {layer.name: layer.output.shape for layer in model.layers if layer.name in found}
    assert {name: found[name].output_shape for name in told} == told
    assert {name: found[name].parameters for name in told} == {
        layer.name: layer.count_params() for layer in model.layers if layer.name in told
    }


def test_what_goes_in_and_out_and_what_it_was_compiled_with_is_told(file: Path) -> None:
    found = mk.inspect(file)
    assert found.facts.architecture is not None
    assert {spec.name: spec.shape for spec in found.facts.architecture.inputs} == {
        "image": (None, 8, 8, 3),
        "row": (None, 4),
    }
    assert [(spec.name, spec.shape) for spec in found.facts.architecture.outputs] == [("label", (None, 3))]
    assert found.facts.compiled is not None
    assert found.facts.compiled.optimizer == "Adam"
    assert found.facts.compiled.optimizer_settings["learning_rate"] == pytest.approx(3e-4)
    assert found.facts.writer["keras"] == keras.version()
    assert keras.version() in str(found)


def test_tensors_have_names_shapes_dtypes_and_if_asked_what_their_numbers_are_like(tmp_path: Path) -> None:
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
    model.layers[0].set_weights([np.array([[1, 2], [3, np.nan], [np.inf, -4]], "float32"), np.zeros(2, "float32")])
    model.save(tmp_path / "m.keras")
    kernel, _ = mk.inspect(tmp_path / "m.keras", stats=True).facts.tensors
    assert (kernel.shape, kernel.dtype, kernel.nbytes) == ((3, 2), "float32", 24)
    assert kernel.stats is not None
    assert (kernel.stats.minimum, kernel.stats.maximum, kernel.stats.mean) == (-4, 3, 0.5)
    assert (kernel.stats.nan, kernel.stats.infinite) == (1, 1)


class Scale(layers.Layer):
    def call(self, inputs):  # type: ignore[no-untyped-def]
        return inputs * 2


def test_classes_that_are_not_keras_own_are_named_with_the_layers_that_need_them(tmp_path: Path) -> None:
    keras.Sequential([layers.Input((3,)), Scale(name="twice")]).save(tmp_path / "m.keras")
    found = mk.inspect(tmp_path / "m.keras")
    assert found.facts.architecture is not None
    assert [(one.name, one.used_by) for one in found.facts.architecture.custom_objects] == [("Scale", ("twice",))]
    assert "Scale *" in str(found)


def test_the_graph_is_drawn_with_a_box_for_each_layer(file: Path) -> None:
    drawing = ElementTree.fromstring(mk.inspect(file).to_svg())
    texts = {text.text for text in drawing.iter("{http://www.w3.org/2000/svg}text")}
    assert {"image", "conv", "inner", "both", "label", "2 layers within"} <= texts


def test_a_name_cannot_bring_markup_into_the_drawing_or_the_page(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    config = json.loads(keras.Sequential([layers.Input((3,)), layers.Dense(2)]).to_json())
    config["config"]["layers"][1]["config"]["name"] = "<script>alert(1)</script>"
    path.write_text(json.dumps(config))
    found = mk.inspect(path)
    assert "<script" not in found.to_svg() + found._repr_html_()
    ElementTree.fromstring(found.to_svg())


def test_a_file_without_a_network_cannot_be_drawn(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", a=np.zeros(2))
    with pytest.raises(UsageError, match="nothing to draw"):
        mk.inspect(tmp_path / "m.npz").to_svg()


@pytest.mark.parametrize("arguments", [["inspect"], ["inspect", "--stats"], ["inspect", "--json"]])
def test_neither_keras_nor_a_backend_is_imported(file: Path, arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments, str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {name.partition(".")[0] for name in done.stderr.split()} & BACKENDS == set()


def test_what_is_no_model_file_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "m.keras").write_bytes(b"hello")
    with pytest.raises(UsageError, match="no kind of model file"):
        mk.inspect(tmp_path / "m.keras")
    with pytest.raises(NotFound):
        mk.inspect(tmp_path / "missing.h5")


def test_a_file_that_was_cut_off_is_said_to_be_damaged(file: Path, tmp_path: Path) -> None:
    short = tmp_path / file.name
    short.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises((IntegrityError, mk.errors.UnsafeContent)):
        mk.inspect(short)
