"""Files made to harm whoever opens them: each is refused for what it is, before it has taken time or memory."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import graphs
import modelkeep as mk
from hostile import layer
from modelkeep.errors import CannotLoad, ModelkeepError, UnsafeContent
from modelkeep.safety.scanning import scan
from wire import message

Config = dict[str, Any]
INPUT = layer("keras.layers", "InputLayer", batch_shape=[None, 4], dtype="float32", name="in")


def dense(name: str, units: int = 4) -> Config:
    return layer("keras.layers", "Dense", name=name, units=units)


def sequential(*layers: Config) -> Config:
    return layer("keras", "Sequential", name="model", layers=[INPUT, *layers], build_input_shape=[None, 4])


def called(of: Config, *arguments: Any) -> Config:
    return {**of, "name": of["config"]["name"], "inbound_nodes": [{"args": list(arguments), "kwargs": {}}]}


def output_of(name: str) -> Config:
    form = {"shape": [None, 4], "dtype": "float32", "keras_history": [name, 0, 0]}
    return {"class_name": "__keras_tensor__", "config": form}


def functional(*layers: Config) -> Config:
    first = {**INPUT, "name": "in", "inbound_nodes": []}
    ends = {"input_layers": ["in", 0, 0], "output_layers": [layers[-1]["name"], 0, 0]}
    return layer("keras.src.models.functional", "Functional", name="model", layers=[first, *layers], **ends)


def rules(path: Path) -> set[str]:
    return {finding.rule for finding in scan(path).refused}


def written(folder: Path, config: Config) -> Path:
    path = folder / "model.json"
    path.write_text(json.dumps(config))
    return path


def changed(source: Path, target: Path, **parts: bytes) -> Path:
    with zipfile.ZipFile(source) as honest, zipfile.ZipFile(target, "w") as archive:
        for name in honest.namelist():
            archive.writestr(name, parts.get(Path(name).name.partition(".")[0], honest.read(name)))
    return target


# --- networks that grow while they are built


def doubling() -> Config:
    layers, last = [], "in"
    for name in [f"twice_{index}" for index in range(40)]:
        joined = layer("keras.layers", "Concatenate", name=name, axis=-1)
        layers.append(called(joined, [output_of(last), output_of(last)]))
        last = name
    return functional(*layers, called(dense("out"), output_of(last)))


GROWING: dict[str, Callable[[], Config]] = {
    "wide layers in a row": lambda: sequential(*[dense(f"dense_{index}", 16_000) for index in range(12)]),
    "an output twice itself, and so on": doubling,
    "repeated, and a parameter for each": lambda: sequential(
        layer("keras.layers", "RepeatVector", name="repeat", n=2**28), layer("keras.layers", "PReLU", name="prelu")
    ),
    "outputs of few parameters": lambda: sequential(
        layer("keras.layers", "RepeatVector", name="repeat", n=2**28),
        layer("keras.layers", "Flatten", name="flatten"),
        dense("dense", 1),
    ),
}


@pytest.mark.keras
@pytest.mark.parametrize("case", GROWING)
def test_no_layer_that_outgrows_the_weights_is_built(case: str, tmp_path: Path) -> None:
    import keras

    small = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    small.save(tmp_path / "small.keras")
    config = json.dumps(GROWING[case]()).encode()
    path = changed(tmp_path / "small.keras", tmp_path / "grows.keras", config=config)
    with pytest.raises(UnsafeContent, match="far larger than its weights"):
        mk.load(path)


# --- networks that are none


def test_a_layer_called_with_constants_alone_is_refused_since_it_would_compute_at_load(tmp_path: Path) -> None:
    constant = {"class_name": "__numpy__", "config": {"value": [[1.0]], "dtype": "float32"}}
    repeat = layer("keras.layers", "RepeatVector", name="repeat", n=2**30)
    config = functional(called(repeat, constant), called(dense("dense"), output_of("in")))
    assert rules(written(tmp_path, config)) == {"malformed-config"}


def test_old_configs_may_not_call_with_constants_alone_either(tmp_path: Path) -> None:
    config = functional(called(dense("dense"), output_of("in")))
    config["config"]["layers"][1]["inbound_nodes"] = [["_CONSTANT_VALUE", -1, [[1.0]], {}]]
    assert rules(written(tmp_path, config)) == {"malformed-config"}


@pytest.mark.parametrize("layers", [5, "dense", {"a": 1}, [5], [{"config": {}}]])
def test_a_model_is_made_of_layers(layers: Any, tmp_path: Path) -> None:
    config = layer("keras", "Sequential", name="model", layers=layers)
    assert "malformed-config" in rules(written(tmp_path, config))


def test_more_layers_in_a_row_than_keras_builds_in_seconds_are_refused(tmp_path: Path) -> None:
    assert rules(written(tmp_path, sequential(*[dense(f"dense_{index}") for index in range(250)]))) == {"limit"}


def test_calls_of_one_layer_count_as_layers(tmp_path: Path) -> None:
    often = called(dense("dense"), output_of("in"))
    often["inbound_nodes"] *= 20_000
    assert rules(written(tmp_path, functional(often))) == {"limit"}


# --- other forms


def test_one_key_among_very_many_that_stands_there_twice_is_found_at_once(tmp_path: Path) -> None:
    keys = ",".join(f'"{number}":0' for number in range(300_000))
    path = tmp_path / "model.json"
    path.write_text(f'{{"class_name":"Sequential","config":{{"layers":[]}},"more":{{{keys},"299999":0}}}}')
    assert rules(path) == {"json-duplicate-key"}


def saved_model(folder: Path, *nodes: bytes) -> Path:
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(graphs.graph(*nodes))
    return folder


def test_a_graph_may_not_ask_a_database_of_its_author_s_choice(tmp_path: Path) -> None:
    names = [graphs.text("driver", "sqlite"), graphs.text("source", "/var/lib/secrets.db"), graphs.text("query", "…")]
    path = saved_model(tmp_path / "model", *names, graphs.node("rows", "SqlDataset", "driver", "source", "query"))
    assert "graph-reads-file" in rules(path)


def test_a_graph_may_not_end_the_program_that_runs_it(tmp_path: Path) -> None:
    assert "graph-ends-process" in rules(saved_model(tmp_path / "model", graphs.node("end", "Abort")))


def test_a_constant_that_is_nothing_in_the_file_and_gigabytes_in_memory_is_refused(tmp_path: Path) -> None:
    assert "graph-constant" in rules(saved_model(tmp_path / "model", graphs.zeros("zeros", 2**20, 2**10)))


def onnx_file(path: Path, *tensor: tuple[int, Any]) -> Path:
    node = message((1, "x"), (1, "w"), (2, "y"), (4, "Add"))
    path.write_bytes(message((1, 8), (7, message((1, node), (5, message(*tensor)))), (8, message((2, 17)))))
    return path


def test_a_tensor_without_its_numbers_is_told(tmp_path: Path) -> None:
    assert rules(onnx_file(tmp_path / "m.onnx", (1, 2**40), (2, 1), (8, "w"))) == {"damaged"}


def test_weights_beside_a_network_begin_at_no_negative_byte(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(bytes(16))
    entries = [message((1, key), (2, value)) for key, value in (("location", "m.bin"), ("offset", "-8"))]
    told = [(13, entry) for entry in entries]
    assert rules(onnx_file(tmp_path / "m.onnx", (1, 4), (2, 1), (8, "w"), *told, (14, 1))) == {"damaged"}


@pytest.mark.parametrize("index", [99, -7])
def test_an_operator_works_on_tensors_that_are_there(index: int, tmp_path: Path) -> None:
    from test_litert import model, saved

    made = model()
    made.subgraphs[0].operators[0].inputs = [0, index]
    assert rules(saved(made, tmp_path / "m.tflite")) == {"damaged"}


# --- what Keras raises while it loads


@pytest.mark.keras
def test_a_vocabulary_that_does_not_fit_its_layer_is_an_error_of_ours(tmp_path: Path) -> None:
    import keras

    layer = keras.layers.TextVectorization(max_tokens=4)
    try:
        layer.adapt(["a b", "b c"])
    except ImportError:
        pytest.skip("text layers need TensorFlow")
    keras.Sequential([keras.Input((1,), dtype="string"), layer]).save(tmp_path / "honest.keras")
    path = changed(tmp_path / "honest.keras", tmp_path / "large.keras", vocabulary=b"\n".join([b"a", b"b", b"c"] * 9))
    with pytest.raises(CannotLoad, match="vocabulary"):
        mk.load(path)


@pytest.mark.keras
@pytest.mark.parametrize("layer", [{"config": {"units": {}}}, {"inbound_nodes": 5}])
def test_whatever_keras_makes_of_a_layer_is_an_error_of_ours(layer: Config, tmp_path: Path) -> None:
    with pytest.raises(ModelkeepError):
        mk.load(written(tmp_path, sequential({**dense("dense"), **layer})))


@pytest.mark.parametrize("compiled", [5, "adam", [[]]])
def test_compile_arguments_have_names(compiled: Any, tmp_path: Path) -> None:
    path = written(tmp_path, {**sequential(dense("dense")), "compile_config": compiled})
    assert rules(path) == {"malformed-config"}


@pytest.mark.parametrize("config", [5, True, [[]]])
def test_arguments_of_a_layer_have_names(config: Any, tmp_path: Path) -> None:
    assert rules(written(tmp_path, sequential({**dense("dense"), "config": config}))) == {"malformed-config"}


# --- folders, and what is told of odd files


def test_a_link_in_the_place_of_a_file_is_told_as_one(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(sequential(dense("dense"))))
    (tmp_path / "model" / "metadata.json").write_text("{}")
    (tmp_path / "model" / "model.weights.h5").symlink_to("/etc/passwd")
    assert rules(tmp_path / "model") == {"folder-special-file"}


@pytest.mark.parametrize("units", ["x", 1e308, {}, True])
def test_arguments_of_no_sense_do_not_keep_a_file_from_being_inspected(units: Any, tmp_path: Path) -> None:
    assert "dense" in str(mk.inspect(written(tmp_path, sequential(dense("dense", units)))))
