"""A config keeps what says something, and an older constructor is given no argument it does not know."""

from __future__ import annotations

import json
from typing import Any

import keras
import pytest
from keras import layers

from modelkeep.live.portable import portable, readable
from zoo import ZOO, here

pytestmark = [pytest.mark.keras, pytest.mark.filterwarnings("ignore::UserWarning:keras")]


def config_of(thing: Any) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(json.dumps(keras.saving.serialize_keras_object(thing)))
    return config


def test_defaults_are_left_out_and_all_else_stays() -> None:
    less = portable(config_of(layers.Dense(3, use_bias=False, name="d", trainable=False)), {})["config"]
    assert less["units"] == 3
    assert less["use_bias"] is False
    assert less["name"] == "d"
    assert less["trainable"] is False
    assert not {"bias_regularizer", "kernel_constraint", "activity_regularizer", "lora_rank"} & less.keys()


def test_inner_objects_lose_their_defaults_too() -> None:
    dense = layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal(stddev=0.5))
    initializer = portable(config_of(dense), {})["config"]["kernel_initializer"]
    assert initializer["config"] == {"stddev": 0.5}


@pytest.mark.parametrize(("value", "kept"), [(1, True), (1.0, True), (True, False)])
def test_an_equal_value_of_another_type_stays(value: Any, kept: bool) -> None:
    config = config_of(layers.Dense(3))
    config["config"]["use_bias"] = value
    assert ("use_bias" in portable(config, {})["config"]) is kept


class Scaled(layers.Dense):
    def __init__(self, units: int, scale: float = 2.0, **options: Any) -> None:
        super().__init__(units, **options)
        self.scale = scale

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale}


def test_a_users_own_defaults_stay_and_those_of_keras_below_go() -> None:
    less = portable(config_of(Scaled(3)), {"Scaled": Scaled})["config"]
    assert less["scale"] == 2.0
    assert "bias_constraint" not in less


@pytest.mark.parametrize("name", here())
def test_under_the_same_keras_nothing_is_missing(name: str) -> None:
    config = config_of(ZOO[name].build())
    assert readable(config, portable(config, {}), {}) == config


class Older(Scaled):
    """Knows neither a scale nor anything that came by ``**kwargs``."""

    def __init__(self, units: int, name: str | None = None) -> None:
        super().__init__(units, name=name)


def test_arguments_that_a_constructor_does_not_know_go_if_they_were_defaults() -> None:
    config = config_of(Scaled(3, scale=4.0, name="s"))
    less = portable(config, {"Scaled": Scaled})
    opened = readable(config, less, {"Scaled": Older})["config"]
    assert "bias_constraint" not in opened
    assert opened["scale"] == 4.0
    assert (opened["units"], opened["name"]) == (3, "s")


def test_every_model_is_rebuilt_from_its_portable_config_alone() -> None:
    config = portable(config_of(ZOO["nested"].build()), {})
    config.pop("compile_config")
    assert keras.saving.deserialize_keras_object(config).count_params() == ZOO["nested"].build().count_params()
