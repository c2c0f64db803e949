"""Keras' HDF5 files: those of every Keras, told apart and read in their own order; and those that are odd."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.errors import (
    IntegrityError,
    LimitExceeded,
    ModelkeepError,
    NotFound,
    StorageError,
    UnsafeContent,
    UsageError,
)
from modelkeep.formats import h5
from modelkeep.formats.contents import Contents
from modelkeep.formats.forms import look
from modelkeep.formats.limits import DEFAULT, Limits

CONFIG = {"class_name": "Sequential", "config": {"name": "small", "layers": []}}
LAYERS = {
    "input_1": [],
    "dense_2": ["dense_2/kernel:0", "dense_2/bias:0"],
    "block/dense": ["block/dense/kernel:0"],
    "dense_1": ["dense_1/kernel:0"],
}


def old_layout(group: h5py.Group, layers: Mapping[str, Sequence[str]] = LAYERS, version: bytes = b"2.4.0") -> None:
    """What Keras 2 writes: each value is the place of its weight in all."""
    group.attrs["layer_names"] = [layer.encode() for layer in layers]
    group.attrs["backend"], group.attrs["keras_version"] = b"tensorflow", version
    count = 0
    for layer, weights in layers.items():
        inner = group.create_group(layer)
        inner.attrs["weight_names"] = [weight.encode() for weight in weights]
        for weight in weights:
            inner[weight] = np.full((2, 3), count, "f4")
            count += 1


def whole(path: Path, config: Any = CONFIG, **attributes: Any) -> Path:
    with h5py.File(path, "w") as file:
        old_layout(file.create_group("model_weights"))
        file.attrs["model_config"] = json.dumps(config).encode()
        for name, value in attributes.items():
            file.attrs[name] = value
    return path


def read_all(path: Path, limits: Limits = DEFAULT) -> Contents:
    """What a file holds; every tensor was read once."""
    place = look(path)
    assert h5.recognise(place)
    with h5.read(place, limits, True) as contents:
        for tensor in (*contents.tensors, *contents.optimizer):
            values = tensor.read()
            assert (values.shape, values.nbytes) == (tensor.shape, tensor.nbytes)
        return contents


def rules(contents: Contents) -> list[str]:
    return [problem.rule for problem in contents.problems]


# --- the old layout


def test_a_whole_model_of_keras_2_is_read_in_the_order_of_its_lists(tmp_path: Path) -> None:
    compiled = json.dumps({"loss": "mse", "optimizer_config": {"class_name": "SGD", "config": {}}}).encode()
    path = whole(tmp_path / "m.h5", keras_version=b"2.4.0", backend=b"tensorflow", training_config=compiled)
    with h5py.File(path, "a") as file:
        slots = file.create_group("optimizer_weights")
        slots.attrs["weight_names"] = [b"SGD/iter:0", b"SGD/b/momentum:0", b"SGD/a/momentum:0"]
        for name in slots.attrs["weight_names"]:
            slots[name] = np.ones(2, "f4")
    contents = read_all(path)
    assert (contents.form, contents.config) == ("h5", CONFIG)
    assert contents.writer == {"keras": "2.4.0", "backend": "tensorflow"}
    assert contents.compile["loss"] == "mse"
    assert [tensor.name for tensor in contents.tensors] == [
        "dense_2/dense_2/kernel:0",
        "dense_2/dense_2/bias:0",
        "block/dense/block/dense/kernel:0",
        "dense_1/dense_1/kernel:0",
    ]
    assert [tensor.name for tensor in contents.optimizer] == ["SGD/iter:0", "SGD/b/momentum:0", "SGD/a/momentum:0"]
    assert contents.details["layers"][1] == {
        "layer": "dense_2",
        "weights": ["dense_2/dense_2/kernel:0", "dense_2/dense_2/bias:0"],
    }
    assert contents.problems == ()


@pytest.mark.parametrize("group", ["/", "model_weights"])
def test_weights_alone_are_found_at_the_root_and_where_a_whole_model_has_them(group: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        old_layout(file.require_group(group))
    contents = read_all(tmp_path / "w.h5")
    assert contents.form == "legacy_weights_h5"
    assert contents.writer["keras"] == "2.4.0"
    assert len(contents.tensors) == 4
    assert contents.problems == ()


def test_lists_that_were_split_because_they_are_long_are_joined(tmp_path: Path) -> None:
    layers = {f"{'long' * 20}_{index}": [f"kernel_{index}:0"] for index in range(25)}
    with h5py.File(tmp_path / "w.h5", "w") as file:
        old_layout(file, layers)
        names = list(file.attrs["layer_names"])
        del file.attrs["layer_names"]
        for number, start in enumerate(range(0, 25, 10)):
            file.attrs[f"layer_names{number}"] = names[start : start + 10]
    contents = read_all(tmp_path / "w.h5")
    assert [entry["layer"] for entry in contents.details["layers"]] == list(layers)
    assert contents.details["attributes"] == {}


def test_the_numbered_layout_before_keras_1_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["nb_layers"] = 12
        for index in range(12):
            layer = file.create_group(f"layer_{index}")
            layer.attrs["nb_params"] = 2 if index == 10 else 0
        file["layer_10/param_0"], file["layer_10/param_1"] = np.zeros((3, 3)), np.zeros(3)
    contents = read_all(tmp_path / "w.h5")
    assert contents.form == "legacy_weights_h5"
    assert [tensor.name for tensor in contents.tensors] == ["layer_10/param_0", "layer_10/param_1"]
    assert contents.details["layers"][10]["layer"] == "layer_10"


def test_text_attributes_may_be_bytes_or_text(tmp_path: Path) -> None:
    contents = read_all(whole(tmp_path / "m.h5", keras_version="2.2.4-tf", backend=np.bytes_(b"tensorflow")))
    assert contents.writer == {"keras": "2.2.4-tf", "backend": "tensorflow"}


def test_what_others_keep_beside_a_model_is_told_and_does_no_harm(tmp_path: Path) -> None:
    path = whole(tmp_path / "m.h5", labels=["cat", "dog"], epoch=3)
    with h5py.File(path, "a") as file:
        file["history/loss"] = [0.5, 0.25]
    contents = read_all(path)
    assert contents.details["attributes"] == {"epoch": 3, "labels": ["cat", "dog"]}
    assert [(problem.rule, problem.place) for problem in contents.problems] == [("h5-unlisted", "m.h5:/history/loss")]


@pytest.mark.parametrize("names", [[b"kernel:0", b"gone:0"], [b"kernel:0", b"kernel:0"], [b"kernel:0", b"../other"]])
def test_a_list_that_does_not_fit_what_is_there_is_told(names: list[bytes], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        old_layout(file, {"dense": ["kernel:0"]})
        file["dense"].attrs["weight_names"] = names
    contents = read_all(tmp_path / "w.h5")
    assert [tensor.name for tensor in contents.tensors] == ["dense/kernel:0"]
    assert rules(contents) == ["h5-weight-names"]


def test_a_layer_that_is_listed_and_not_there_is_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        old_layout(file, {"dense": ["kernel:0"]})
        file.attrs["layer_names"] = [b"dense", b"gone"]
    assert rules(read_all(tmp_path / "w.h5")) == ["h5-weight-names"]


# --- the new layout


def new_layout(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        for index in (0, 1, 2, 10):
            layer = file.create_group(f"layers/dense_{index}/vars")
            layer.attrs["name"] = f"my_dense_{index}"
            for number in range(12):
                layer[str(number)] = np.full(2, number)
        file["optimizer/vars/0"] = 1
        file["layers/optimizer/vars/0"] = np.ones(3)
        file["metrics/mean/vars/0"] = 0.5
    return path


def test_variables_are_sorted_by_their_numbers_and_told_by_what_they_belong_to(tmp_path: Path) -> None:
    contents = read_all(new_layout(tmp_path / "any name"))
    names = [tensor.name for tensor in contents.tensors]
    assert contents.form == "weights_h5"
    assert names[:3] == ["layers/dense_0/vars/0", "layers/dense_0/vars/1", "layers/dense_0/vars/2"]
    assert names[-3:] == ["layers/dense_10/vars/10", "layers/dense_10/vars/11", "layers/optimizer/vars/0"]
    assert [tensor.name for tensor in contents.optimizer] == ["optimizer/vars/0"]
    assert contents.details["names"]["layers/dense_10"] == "my_dense_10"
    assert contents.details["metrics"] == ["metrics/mean/vars/0"]
    assert contents.problems == ()


def test_weights_are_read_out_of_a_stream(tmp_path: Path) -> None:
    with (
        new_layout(tmp_path / "w.weights.h5").open("rb") as stream,
        h5.open_weights(stream, DEFAULT, "model.weights.h5") as weights,
    ):
        assert len(weights.tensors) == 49
        assert weights.tensors[1].read().tolist() == [1, 1]


# --- shards


def sharded(folder: Path, weight_map: Mapping[str, Any]) -> Path:
    for number in (0, 1):
        with h5py.File(folder / f"model_0000{number}.weights.h5", "w") as file:
            file[f"layers/dense/vars/{number}"] = np.full(3, number)
    path = folder / "model.weights.json"
    path.write_text(json.dumps({"metadata": {"total_size": 48.0}, "weight_map": weight_map}))
    return path


BOTH = ["model_00000.weights.h5", "model_00001.weights.h5"]


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    contents = read_all(sharded(tmp_path, {"/layers/dense/vars": BOTH}))
    assert contents.form == "weights_h5"
    assert [tensor.name for tensor in contents.tensors] == ["layers/dense/vars/0", "layers/dense/vars/1"]
    assert contents.details["shards"] == BOTH
    assert contents.size == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert contents.problems == ()


def test_a_map_that_does_not_fit_the_shards_is_told(tmp_path: Path) -> None:
    contents = read_all(sharded(tmp_path, {"/layers/dense/vars": BOTH, "/layers/other/vars": BOTH[0]}))
    assert rules(contents) == ["h5-weight-names"]


@pytest.mark.parametrize("name", ["../w.h5", "/etc/w.h5", "a/b.h5", "..", "w.txt", "a\\b.h5"])
def test_a_map_that_names_a_file_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafeContent, match="elsewhere"):
        read_all(sharded(tmp_path, {"/layers/dense/vars": [*BOTH, name]}))


def test_a_shard_that_is_a_link_is_not_opened(tmp_path: Path) -> None:
    path = sharded(tmp_path, {"/layers/dense/vars": BOTH})
    (tmp_path / BOTH[1]).rename(tmp_path / "elsewhere")
    (tmp_path / BOTH[1]).symlink_to("elsewhere")
    with pytest.raises((StorageError, UnsafeContent)):
        read_all(path)


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    path = sharded(tmp_path, {"/layers/dense/vars": BOTH})
    (tmp_path / BOTH[1]).unlink()
    with pytest.raises(NotFound, match=BOTH[1]):
        read_all(path)


@pytest.mark.parametrize(
    "text", ['{"weight_map": ".h5"}', '{"weight_map": {"a": 3, "b": "x.h5"}}', '{"weight_map": ".h5", ']
)
def test_a_map_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "m.weights.json").write_text(text)
    with pytest.raises(IntegrityError):
        read_all(tmp_path / "m.weights.json")


# --- what is not a model, or is damaged


def test_an_hdf5_file_without_a_model_says_what_is_inside(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["images"], file["labels"] = np.zeros(3), np.zeros(3)
    with pytest.raises(UsageError, match="holds no Keras model: found images, labels"):
        read_all(tmp_path / "data.h5")


def test_a_model_that_lies_behind_a_link_is_told_and_not_called_no_model(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["model_weights"] = h5py.ExternalLink("other.h5", "/")
    assert rules(read_all(tmp_path / "w.h5")) == ["hdf5-external-link"]


@pytest.mark.parametrize("text", [b"{", b"[1, 2", b"\xff\xfe", b""])
def test_a_config_that_is_no_json_is_refused(text: bytes, tmp_path: Path) -> None:
    whole(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file.attrs["model_config"] = np.bytes_(text) if b"\xff" in text else text
    with pytest.raises(IntegrityError):
        read_all(tmp_path / "m.h5")


def test_more_layers_than_the_limit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LimitExceeded, match="layers"):
        read_all(whole(tmp_path / "m.h5"), Limits(layers=3))


@pytest.mark.parametrize("name", ["nb_layers", "nb_params"])
def test_a_count_is_not_believed(name: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["nb_layers"] = 1
        file.create_group("layer_0").attrs["nb_params"] = 0
        (file if name == "nb_layers" else file["layer_0"]).attrs[name] = 10**12
    with pytest.raises(LimitExceeded, match="too many"):
        read_all(tmp_path / "w.h5")


def test_a_user_block_hides_no_model(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w", userblock_size=8192) as file:
        old_layout(file)
    (tmp_path / "m.h5").write_bytes(b"MZ" + (tmp_path / "m.h5").read_bytes()[2:])
    assert rules(read_all(tmp_path / "m.h5")) == ["hdf5-user-block"]


@pytest.mark.parametrize("head", [b"", b"PK\x03\x04", b'{"config": 1}', b"\x89HDF\r\n"])
def test_other_files_are_not_taken_for_hdf5(head: bytes, tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(head + bytes(5000))
    assert not h5.recognise(look(tmp_path / "it"))
    assert not h5.recognise(look(tmp_path))


def test_a_tar_file_whose_first_member_is_hdf5_is_not_hdf5(tmp_path: Path) -> None:
    import tarfile

    whole(tmp_path / "m.h5")
    with tarfile.open(tmp_path / "m.tar", "w") as tar:
        tar.add(tmp_path / "m.h5", "m.h5")
    assert not h5.recognise(look(tmp_path / "m.tar"))


@pytest.mark.usefixtures("little_memory")
@given(data=st.data())
def test_a_damaged_model_is_read_or_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = whole(tmp_path_factory.mktemp("damaged") / "m.h5", keras_version=b"2.4.0")
    changed = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(changed[: data.draw(st.sampled_from([len(changed)] * 4 + [len(changed) // 2]))])
    place = look(path)
    if h5.recognise(place):
        try:
            with h5.read(place, DEFAULT, True) as contents:
                [tensor.read() for tensor in contents.tensors if tensor.nbytes < 2**20]
        except ModelkeepError:
            pass


# --- real Keras


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    inner = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization()], name="inner"
    )
    model = keras.Sequential([keras.Input((4,)), inner, keras.layers.Dense(2, name="head")])
    model.compile("adam", "mse", run_eagerly=True)
    model.train_on_batch(np.ones((4, 4)), np.ones((4, 2)))
    return model


def values(tensors: Any) -> list[list[float]]:
    """The values of tensors in an order of their own: by value."""
    return sorted(np.asarray(tensor, "float64").ravel().tolist() for tensor in tensors)


@pytest.mark.keras
def test_a_whole_h5_of_keras_3_gives_its_weights_and_its_optimizer(model: Any, tmp_path: Path) -> None:
    model.save(tmp_path / "m.h5")
    with h5.read(look(tmp_path / "m.h5"), DEFAULT, True) as contents:
        assert contents.form == "h5"
        assert contents.writer["keras"].startswith("3.")
        assert contents.config["class_name"] == "Sequential"
        assert contents.compile["optimizer_config"]["class_name"] == "Adam"
        assert [entry["layer"] for entry in contents.details["layers"]] == ["inner", "head"]
        assert values(tensor.read() for tensor in contents.tensors) == values(model.get_weights())
        assert values(tensor.read() for tensor in contents.optimizer) == values(model.optimizer.variables)
        assert contents.problems == ()


@pytest.mark.keras
def test_weights_of_keras_3_are_the_same_in_one_file_and_in_shards(model: Any, tmp_path: Path) -> None:
    model.save_weights(tmp_path / "m.weights.h5")
    model.save_weights(tmp_path / "m.weights.json", max_shard_size=150 / 2**30)
    with (
        h5.read(look(tmp_path / "m.weights.h5"), DEFAULT, True) as one,
        h5.read(look(tmp_path / "m.weights.json"), DEFAULT, True) as many,
    ):
        assert len(many.details["shards"]) > 1
        assert one.form == many.form == "weights_h5"
        assert one.tensors == many.tensors
        assert values(tensor.read() for tensor in many.tensors) == values(model.get_weights())
        assert values(tensor.read() for tensor in one.optimizer) == values(model.optimizer.variables)
        assert one.problems == many.problems == ()


@pytest.mark.keras
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:")  # tf-keras runs on interfaces that NumPy and protobuf are giving up
def test_files_of_keras_2_give_all_weights_in_all_layouts(tmp_path: Path) -> None:
    tf_keras = pytest.importorskip("tf_keras")
    layers = tf_keras.layers
    inner = tf_keras.Sequential([layers.Input((4,)), layers.Dense(3, name="core")], name="inner")
    inputs = tf_keras.Input((5,))
    hidden = layers.BatchNormalization()(layers.Dense(4, name="block/dense")(inputs))
    model = tf_keras.Model(inputs, layers.Dense(2)(layers.add([inner(hidden), inner(layers.Dense(4)(hidden))])))
    for optimizer in ("adam", tf_keras.optimizers.legacy.SGD(momentum=0.9)):
        model.compile(optimizer, "mse", run_eagerly=True)
        model.train_on_batch(np.ones((8, 5)), np.ones((8, 2)))
        model.save(tmp_path / "m.h5", save_format="h5")
        model.save_weights(tmp_path / "old.h5")
        model.save_weights(tmp_path / "new.weights.h5")
        for name, form in {"m.h5": "h5", "old.h5": "legacy_weights_h5", "new.weights.h5": "weights_h5"}.items():
            with h5.read(look(tmp_path / name), DEFAULT, True) as contents:
                assert contents.form == form
                assert values(tensor.read() for tensor in contents.tensors) == values(model.get_weights())
                if form == "h5":
                    assert len(contents.optimizer) == len(model.optimizer.variables())
                assert contents.problems == ()


def test_the_tensors_of_a_gigabyte_are_told_in_half_a_second(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        for index in range(100):
            layer = file.create_group(f"layers/dense_{index}/vars")
            layer.attrs["name"] = f"dense_{index}"
            # Written at one place only; the rest of the file is a hole.
            layer.create_dataset("0", shape=(1024, 2560), dtype="f4")[0, 0] = 1
            layer["1"] = np.zeros(2560, "f4")
    place = look(tmp_path / "m.weights.h5")
    assert place.size > 10**9
    start = time.process_time()
    with h5.read(place, DEFAULT, False) as contents:
        assert len(contents.tensors) == 200
    assert time.process_time() - start < 0.5
    os.truncate(tmp_path / "m.weights.h5", 0)
