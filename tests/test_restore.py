"""A model restored is the model that was captured: every variable to the bit, and every step after."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from keeping import Kept, assert_same_state, keep, numbers_in, state
from modelkeep.errors import CannotLoad, CannotRebuild, NotFaithful, UnsafeContent
from modelkeep.live import internals
from modelkeep.live import restore as restoring
from zoo import ZOO, Classifier, Specimen, floats, here

pytestmark = [
    pytest.mark.keras,
    # Keras' own, on models as its users write them.
    pytest.mark.filterwarnings("ignore::UserWarning:keras"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow"),
]
BACKEND = keras.backend.backend()


def used(name: str) -> tuple[Specimen, keras.Model]:
    specimen = ZOO[name]
    model = specimen.build()
    specimen.use(model, steps=3)
    return specimen, model


def same_draws() -> Callable[[], None]:
    """Call what is given to go back to the present random state of the backend, where it has one of its own."""
    if BACKEND != "torch":
        return lambda: None
    here = internals.torch_rng()
    return lambda: internals.set_torch_rng(here)


# --- whole


# Under JAX each of these compiles for seconds, and has nothing that the others have not.
SLOW_TO_COMPILE = {"attention", "bidirectional", "images"} if BACKEND == "jax" else set()


@pytest.mark.backends
@pytest.mark.parametrize("name", [name for name in here() if name not in SLOW_TO_COMPILE])
def test_it_has_every_variable_and_goes_on_as_the_original_does(name: str) -> None:
    specimen, model = used(name)
    restored = keep(model).back()
    assert_same_state(model, restored)
    again = same_draws()
    expected = specimen.use(model)
    again()
    np.testing.assert_equal(specimen.use(restored), expected)
    assert_same_state(model, restored)


@pytest.mark.parametrize("name", here())
def test_it_answers_the_same_without_being_compiled(name: str) -> None:
    specimen, model = used(name)
    restored = keep(model).back(compile=False)
    assert not restored.compiled
    for a, b in zip(numbers_in(model(specimen.inputs)), numbers_in(restored(specimen.inputs)), strict=True):
        np.testing.assert_array_equal(a, b)


# Built quantized, float8 layers list their variables in another order than quantized in place.
@pytest.mark.parametrize("name", [name for name in here() if name != "float8"])
def test_captured_again_it_gives_the_same_bytes(name: str) -> None:
    kept = keep(used(name)[1])
    again = keep(kept.back())
    assert {part.name: part.digest for part in again.manifest.parts} == {
        part.name: part.digest for part in kept.manifest.parts
    }


@pytest.mark.backends
def test_fit_continues_with_the_same_losses_through_compiled_steps() -> None:
    specimen, model = used("text")
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    data: dict[str, Any] = {
        "x": specimen.inputs,
        "y": specimen.targets,
        "batch_size": 4,
        "verbose": 0,
        "shuffle": False,
    }
    model.fit(**data)
    kept = keep(model)
    expected = model.fit(**data, epochs=2).history
    assert kept.back().fit(**data, epochs=2).history == expected


@pytest.mark.backends
def test_training_never_changes_the_store(tmp_path: Path) -> None:
    specimen, model = used("sequential")
    kept = keep(model, tmp_path)
    specimen.use(kept.back())
    kept.blobs.map(kept.manifest.tensors, verify="eager")
    assert_same_state(model, kept.back())


class Keeping(keras.callbacks.Callback):
    """Keeps the model at the end of the first epoch."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 0:
            self.kept = keep(self.model)


@pytest.mark.backends
def test_a_model_kept_while_it_trains_goes_on_from_there() -> None:
    specimen = ZOO["sequential"]
    model, callback = specimen.build(), Keeping()
    data: dict[str, Any] = {"x": specimen.inputs, "y": specimen.targets, "verbose": 0, "shuffle": False}
    history = model.fit(**data, epochs=2, callbacks=[callback]).history
    assert callback.kept.back().fit(**data).history["loss"] == history["loss"][1:]


def test_unbuilt_optimizers_stay_unbuilt() -> None:
    model = ZOO["sequential"].build()
    restored = keep(model).back()
    assert not restored.optimizer.built
    assert ZOO["sequential"].use(restored)


# --- how


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How each attempt at a restore ended."""
    made: list[str] = []
    build = restoring._build_and_fill

    def watched(*arguments: Any) -> Any:
        way = "deferred" if arguments[-1] is internals.deferred else "plain"
        try:
            model = build(*arguments)
        except Exception as error:
            made.append(f"{way} failed: {type(error).__name__}")
            raise
        made.append(way)
        return model

    monkeypatch.setattr(restoring, "_build_and_fill", watched)
    return made


@pytest.mark.parametrize("name", [name for name in here() if name not in ("stateful_rnn", "nadam")])
def test_no_initializer_runs(name: str, attempts: list[str]) -> None:
    keep(ZOO[name].build()).back()
    assert attempts == ["deferred"]


@pytest.mark.parametrize("name", ["stateful_rnn", "nadam"])
def test_what_must_make_variables_from_values_is_built_the_plain_way(name: str, attempts: list[str]) -> None:
    keep(used(name)[1]).back()
    assert attempts == ["deferred failed: ValueError", "plain"]


@pytest.mark.backends
def test_variables_lie_in_the_mapped_memory_itself() -> None:
    kept = keep(keras.Sequential([layers.Input((64,)), layers.Dense(64)]))
    views = kept.blobs.map(kept.manifest.tensors).views
    model = restoring.restore(kept.manifest, kept.part, views)
    name = "weights/layers/dense/vars/0"
    views[name][:4] = b"\0\0\0\0"
    assert state(model)[name][0, 0] == 0


def test_the_random_state_of_the_process_is_left_alone() -> None:
    kept = keep(used("text")[1])
    random.seed(3)
    before = random.getstate()
    kept.back()
    assert random.getstate() == before


@pytest.mark.backends
@pytest.mark.skipif(BACKEND != "torch", reason="dropout draws from the backend's own generator under torch alone")
def test_dropout_without_a_seed_goes_on_where_torchs_generator_stood() -> None:
    specimen, model = used("sequential")
    kept = keep(model)
    expected = specimen.use(model)
    assert specimen.use(kept.back()) == expected


# --- frozen


@pytest.mark.backends
def test_a_layer_frozen_when_saved_can_be_thawed_and_trained() -> None:
    restored = keep(used("frozen")[1]).back()
    layer = restored.layers[0]
    assert not layer.trainable
    layer.trainable = True
    restored.compile("sgd", "mse", run_eagerly=True)
    before = state(restored)["weights/layers/dense/vars/0"]
    ZOO["frozen"].use(restored)
    assert (state(restored)["weights/layers/dense/vars/0"] != before).any()


def test_single_frozen_variables_stay_frozen() -> None:
    restored = keep(used("frozen")[1]).back()
    assert not restored.layers[1].bias.trainable
    assert restored.layers[1].kernel.trainable


def test_an_optimizer_keeps_the_slots_of_layers_frozen_after_it_was_built() -> None:
    _, model = used("sequential")
    slots = len(model.optimizer.variables)
    model.layers[0].trainable = False
    restored = keep(model).back()
    assert_same_state(model, restored)
    assert len(restored.optimizer.variables) == slots


# --- compile


@pytest.mark.backends
@pytest.mark.parametrize("name", ["Adadelta", "Adagrad", "Adam", "AdamW", "Lion", "Nadam", "RMSprop", "SGD"])
def test_an_optimizer_is_recorded_by_the_name_that_every_backend_has(name: str) -> None:
    model = keras.Sequential([layers.Input((2,)), layers.Dense(1)])
    optimizer = getattr(keras.optimizers, name)()
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer), "mse")
    kept = keep(model)
    assert b"keras.src" not in kept.part("compile.json")
    assert type(kept.back().optimizer.inner_optimizer) is type(optimizer)


def test_the_optimizer_is_the_live_one_even_where_keras_remembers_another() -> None:
    model = ZOO["sequential"].build()
    model.optimizer = keras.optimizers.SGD(0.25)
    restored = keep(model).back()
    assert isinstance(restored.optimizer, keras.optimizers.SGD)
    assert float(restored.optimizer.learning_rate) == 0.25


@keras.saving.register_keras_serializable("tests")
class TwoOptimizers(Classifier):
    """Compiled in a way of its own, and says how."""

    def compile(self, rates: list[float]) -> None:
        super().compile(loss="mse")
        self.rates = rates
        self.fast, self.slow = (keras.optimizers.Adam(rate) for rate in rates)

    def get_compile_config(self) -> dict[str, Any]:
        return {"rates": self.rates}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**config)


def test_a_compile_of_its_own_is_repeated_with_all_optimizers() -> None:
    model = TwoOptimizers()
    model(floats(1, 5))
    model.compile([0.5, 0.25])
    for optimizer in (model.fast, model.slow):
        optimizer.build(model.trainable_variables)
    restored = keep(model).back()
    assert_same_state(model, restored)
    assert float(restored.slow.learning_rate) == 0.25


@keras.saving.register_keras_serializable("tests")
class Unrepeatable(Classifier):
    def compile(self, rate: float) -> None:
        super().compile(optimizer=keras.optimizers.Adam(rate), loss="mse")


def test_a_compile_of_its_own_that_cannot_be_repeated_is_said_and_left_out() -> None:
    model = Unrepeatable()
    model(floats(1, 5))
    model.compile(0.5)
    model.optimizer.build(model.trainable_variables)
    kept = keep(model)
    restored = kept.back()
    assert not restored.compiled
    assert state(restored).keys() == {
        name for name in state(model) if name.startswith(("weights/", "state/layers"))
    } | {name for name in state(restored) if name.startswith("state/")}


# --- refused


@keras.saving.register_keras_serializable("tests")
class Forgetful(keras.Model):
    """Makes its variables only when it is called, and remembers nothing of that."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.made = layers.Dense(2)

    def call(self, inputs: Any) -> Any:
        return self.made(inputs)

    def get_build_config(self) -> None:
        return None


def test_a_model_without_its_variables_names_class_and_method() -> None:
    model = Forgetful()
    model(floats(1, 3))
    with pytest.raises(CannotRebuild, match=r"Forgetful.*\n.*build\(input_shape\)"):
        keep(model).back()


@keras.saving.register_keras_serializable("tests")
class Edited(layers.Layer):
    names = ("first", "second")

    def build(self, input_shape: Any) -> None:
        for name in self.names:
            setattr(self, name, self.add_weight(name=name, shape=(input_shape[-1],), initializer="ones"))

    def call(self, inputs: Any) -> Any:
        return inputs


def _with_edited_layer() -> Kept:
    model = keras.Sequential([layers.Input((3,)), Edited()])
    model.layers[0].second.assign([2, 2, 2])
    return keep(model)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("first", "other"), "belongs to another variable"),
        (("first",), "expected also: weights/layers/edited/vars/1"),
        (("first", "second", "third"), "without a saved value: weights/layers/edited/vars/2"),
    ],
)
def test_a_class_edited_since_is_never_filled_by_position(
    names: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = _with_edited_layer()
    monkeypatch.setattr(Edited, "names", names)
    with pytest.raises(NotFaithful, match=message):
        kept.back()


def test_variables_made_in_another_order_are_told_apart_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = _with_edited_layer()
    monkeypatch.setattr(Edited, "names", ("second", "first"))
    layer = kept.back().layers[0]
    assert keras.ops.convert_to_numpy(layer.first.value).tolist() == [1, 1, 1]
    assert keras.ops.convert_to_numpy(layer.second.value).tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("field", "value", "message"), [("shape", (4, 2), "another shape"), ("dtype", "float16", "another dtype")]
)
def test_another_shape_or_dtype_is_refused(field: str, value: Any, message: str) -> None:
    kept = keep(keras.Sequential([layers.Input((2,)), layers.Dense(4, use_bias=False)]))
    (tensor,) = kept.manifest.tensors
    data = np.zeros((4, 4) if field == "dtype" else (4, 2), np.float16 if field == "dtype" else np.float32)
    changed = type(tensor)(**{**{f: getattr(tensor, f) for f in tensor.__struct_fields__}, field: value})
    view = memoryview(bytearray(data.tobytes()[: 16 if field == "dtype" else None]))
    with pytest.raises(NotFaithful, match=message):
        restoring.restore(kept.changed(tensors=(changed,)).manifest, kept.part, {tensor.name: view})


def test_a_config_that_names_what_is_not_given_builds_nothing() -> None:
    kept = keep(used("subclassed")[1])
    with pytest.raises(UnsafeContent, match="Classifier"):
        kept.back(objects={})


def test_an_asset_that_would_leave_its_folder_is_refused() -> None:
    with pytest.raises(UnsafeContent, match="outside its folder"):
        keep(used("custom_objects")[1]).with_part("layer_assets/../../escaped.txt", b"!").back()


def test_weights_alone_are_not_a_model() -> None:
    with pytest.raises(CannotLoad, match="weights-only"):
        keep(used("sequential")[1], architecture=False).back()


def keras_globals() -> dict[str, str]:
    return {name: str(value) for name, value in vars(internals.global_state.GLOBAL_STATE_TRACKER).items()}


def test_an_error_leaves_keras_as_it_was() -> None:
    kept = keep(keras.Sequential([layers.Input((2,)), layers.Dense(4)], name="plain"))
    config = json.loads(kept.part("config.json"))
    config["config"]["layers"][1]["config"]["units"] = -1
    broken = json.dumps(config).encode()
    kept = kept.with_part("config.json", broken).with_part("config.portable.json", broken)
    before = keras_globals()
    with pytest.raises(CannotRebuild, match="units"):
        kept.back()
    assert keras_globals() == before


# --- into a model of the caller's


def test_weights_go_into_a_model_built_by_code() -> None:
    _, model = used("sequential")
    other = keep(model, architecture=False).into(ZOO["sequential"].build())
    assert_same_state_but_metrics(model, other)


def assert_same_state_but_metrics(a: keras.Model, b: keras.Model) -> None:
    left, right = ({n: v for n, v in state(m).items() if "/compiled/" not in n} for m in (a, b))
    assert left.keys() == right.keys()
    assert all(left[name].tobytes() == right[name].tobytes() for name in left)


def test_a_model_with_other_variables_is_refused_before_it_changes() -> None:
    kept = keep(used("sequential")[1], architecture=False)
    other = keras.Sequential([layers.Input((5,)), layers.Dense(4)])
    before = state(other)
    with pytest.raises(NotFaithful, match="other variables"):
        kept.into(other)
    np.testing.assert_equal(state(other), before)


def test_warnings_are_not_swallowed_for_others() -> None:
    keep(used("sequential")[1]).back()
    with pytest.warns(UserWarning, match="still here"):
        warnings.warn("still here", stacklevel=1)
