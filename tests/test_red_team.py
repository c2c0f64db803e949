"""Files made to harm whoever opens them: each is refused for what it is, before it has taken time or memory."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import modelkeep as mk
from hostile import layer
from modelkeep.errors import UnsafeContent
from modelkeep.safety.scanning import scan

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
    with (
        zipfile.ZipFile(tmp_path / "small.keras") as honest,
        zipfile.ZipFile(tmp_path / "grows.keras", "w") as changed,
    ):
        for name in honest.namelist():
            text = json.dumps(GROWING[case]()).encode() if name == "config.json" else honest.read(name)
            changed.writestr(name, text)
    with pytest.raises(UnsafeContent, match="far larger than its weights"):
        mk.load(tmp_path / "grows.keras")


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
    assert rules(written(tmp_path, sequential(*[dense(f"dense_{index}") for index in range(300)]))) == {"limit"}


def test_calls_of_one_layer_count_as_layers(tmp_path: Path) -> None:
    often = called(dense("dense"), output_of("in"))
    often["inbound_nodes"] *= 20_000
    assert rules(written(tmp_path, functional(often))) == {"limit"}
