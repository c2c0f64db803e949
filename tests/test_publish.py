"""A checkpoint becomes a version: no tensor is written anew, and the version tells where it came from."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import modelkeep as mk
from modelkeep.curves import Curves
from modelkeep.errors import CannotLoad, GateRefused, MissingCustomObjects
from modelkeep.keep import Keep

pytestmark = pytest.mark.keras

X = np.linspace(-1, 1, 64, dtype="float32").reshape(16, 4)
Y = np.ones((16, 1), "float32")


@pytest.fixture
def keep(tmp_path: Path) -> Keep:
    return mk.open(tmp_path / "store")


def network(*layers: keras.Layer) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), *(layers or [keras.layers.Dense(530), keras.layers.Dense(530)])])
    model.add(keras.layers.Dense(1))
    model.compile("adam", "mse", metrics=["mae"])
    return model


def trained(keep: Keep, model: keras.Model, epochs: int = 2) -> keras.Model:
    keep.checkpoints("m-run", keep_last=None).fit(model, X, Y, epochs=epochs, batch_size=8, verbose=0)
    return model


def answers(model: keras.Model) -> Any:
    return model.predict(X, verbose=0)


@pytest.mark.backends
def test_a_published_checkpoint_is_a_version_with_all_that_one_has(keep: Keep) -> None:
    model = trained(keep, network())
    version = keep.publish("m-run@4", "m", tags=["nightly"])
    manifest = version.manifest
    assert (manifest.lineage.run, version.tags, version.kind) == ("m-run@4", ("nightly",), "whole")
    assert version.metrics == keep.run("m-run").checkpoints[-1].metrics
    names = [part.name for part in manifest.parts] + [tensor.name for tensor in manifest.tensors]
    assert not [name for name in names if name.startswith("training/")]
    np.testing.assert_array_equal(answers(keep.load("m").model), answers(model))
    assert keep.verify("m", live=True).ok


def test_no_byte_of_a_tensor_is_written_anew(keep: Keep) -> None:
    trained(keep, network())
    there = {tensor.digest: tensor.pieces for tensor in keep.load("m-run@4").manifest.tensors}
    version = keep.publish("m-run@4", "m", check=False)
    assert {tensor.digest: tensor.pieces for tensor in version.manifest.tensors}.items() <= there.items()
    assert version.size > 3_000_000
    assert version.new_bytes < 20_000  # the manifest, and parts that tell of this process


def test_the_curves_of_the_training_go_with_the_version(keep: Keep) -> None:
    trained(keep, network(keras.layers.Dense(3)))
    manifest = keep.publish("m-run@last", "m").manifest
    (part,) = [part for part in manifest.parts if part.name == "lineage/curves.json"]
    key = f"blobs/{part.digest[7:9]}/{part.digest[7:]}"
    assert Curves.from_json(keep.store.get(key)) == keep.run("m-run").curves


def test_an_earlier_checkpoint_is_published_as_the_model_was_then(keep: Keep) -> None:
    model = trained(keep, network(keras.layers.Dense(3)))
    then = model.get_weights()
    trained(keep, model, epochs=3)
    version = keep.publish("m-run@4", "m", metrics={"mine": 1.0})
    assert dict(version.metrics) == {"mine": 1.0}
    for published, was in zip(keep.load("m").model.get_weights(), then, strict=True):
        np.testing.assert_array_equal(published, was)


def test_a_version_outlives_the_run_it_came_from(keep: Keep) -> None:
    model = trained(keep, network())
    keep.publish("m-run@4", "m")
    keep.delete_run("m-run")
    keep.gc(grace=timedelta(0))
    assert keep.fsck().ok
    np.testing.assert_array_equal(answers(keep.load("m").model), answers(model))


def test_a_model_saved_where_its_training_ended_is_known_to_come_from_there(keep: Keep, tmp_path: Path) -> None:
    model = trained(keep, network())
    version = keep.save(model, "m", check=False)
    assert version.manifest.lineage.run == "m-run@4"
    assert version.new_bytes < 20_000
    elsewhere = mk.open(tmp_path / "another").save(model, "m", check=False)  # which has no such run
    assert elsewhere.manifest.lineage.run == "m-run@4"
    assert elsewhere.new_bytes > 3_000_000


def test_gates_hold_for_checkpoints_too(keep: Keep) -> None:
    trained(keep, network(keras.layers.Dense(3)))
    with pytest.raises(GateRefused):
        keep.publish("m-run@best", "m", gates=["loss < 0"])
    assert keep.models()[0].versions == 0


@keras.saving.register_keras_serializable("tests")
class Registered(keras.layers.Layer):
    def call(self, inputs: Any) -> Any:
        return inputs * 2


class Own(keras.layers.Dense):
    """Not registered: whoever loads it has to give it."""


def test_custom_objects_are_given_as_to_load(keep: Keep) -> None:
    trained(keep, network(Own(3), Registered()))
    with pytest.raises(MissingCustomObjects):
        keep.publish("m-run@4", "m")
    assert keep.publish("m-run@4", "m", custom_objects=[Own, Registered]).kind == "whole"


@pytest.mark.filterwarnings("ignore:run m-run. sequential")
def test_what_was_kept_without_its_architecture_takes_a_model_of_the_same_code(keep: Keep) -> None:
    model = network(keras.layers.Lambda(lambda x: x + 1))
    with pytest.warns(UserWarning, match="cannot be published whole"):
        trained(keep, model)
    with pytest.raises(CannotLoad):
        keep.publish("m-run@4", "m")
    version = keep.publish("m-run@4", "m", into=network(keras.layers.Lambda(lambda x: x + 1)), architecture=False)
    assert version.kind == "weights"


def test_a_checkpoint_is_rebuilt_and_compared_when_it_is_checked_live(keep: Keep) -> None:
    trained(keep, network(keras.layers.Dense(3), keras.layers.Dropout(0.5)))
    report = keep.verify("m-run@4", live=True)
    assert report.ok
    assert {"rebuild", "weights"} <= {finding.check for finding in report}
