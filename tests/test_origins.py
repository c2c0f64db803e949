"""What was put into a model stays known for as long as the model lives, and goes into the lineage of what is saved."""

from __future__ import annotations

import gc

import keras
import numpy as np
import pytest

import modelkeep as mk
from modelkeep.live import origins
from modelkeep.live.origins import Average, Trained
from modelkeep.manifest import Count, Lineage, Transfer

pytestmark = pytest.mark.keras

TRANSFER = Transfer(
    source="backbone.keras (blake3:1)", copied=Count(tensors=2, parameters=12), options={"freeze": True}
)
AVERAGE = Average(("sentiment:1.0.0@blake3:2", "sentiment:1.1.0@blake3:3"))


def network(name: str = "network") -> keras.Model:
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name=name)


def test_origins_are_told_in_the_order_they_were_noted_each_once():
    model = network()
    for origin in (TRANSFER, AVERAGE, TRANSFER):
        origins.note(model, origin)
    assert origins.of(model) == (TRANSFER, AVERAGE)
    assert origins.of(network()) == ()


def test_of_a_run_the_latest_step_is_told_beside_what_went_before():
    model = network()
    for origin in (TRANSFER, Trained("pretraining@40"), Trained("tuning@10"), Trained("tuning@20")):
        origins.note(model, origin)
    assert origins.of(model) == (TRANSFER, Trained("pretraining@40"), Trained("tuning@20"))
    assert origins.lineage(model).run == "tuning@20"


def test_a_network_made_of_a_models_layers_has_its_origins():
    base = network("base")
    origins.note(base, TRANSFER)
    wrapped = keras.Sequential([keras.Input((3,)), base, keras.layers.Dense(1)])
    tapped = keras.Model(base.inputs, keras.layers.Dense(1)(base.layers[-1].output))
    assert origins.of(wrapped) == origins.of(tapped) == (TRANSFER,)
    origins.note(tapped, AVERAGE)
    assert origins.of(tapped) == (TRANSFER, AVERAGE)


@keras.saving.register_keras_serializable("test_origins")
class Odd(keras.Model):
    """Equal to everything, and not to be hashed."""

    def __init__(self, **config):
        super().__init__(**config)
        self.dense = keras.layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None


def test_models_are_told_apart_by_identity():
    one, other = Odd(), Odd()
    origins.note(one, TRANSFER)
    assert (origins.of(one), origins.of(other)) == ((TRANSFER,), ())


def test_notes_keep_no_model_alive_and_go_with_it():
    gc.collect()
    before = len(origins._notes)
    model = network()
    origins.note(model, TRANSFER)
    assert len(origins._notes) > before
    del model
    gc.collect()
    assert len(origins._notes) == before


def test_what_the_user_tells_comes_first():
    model = network()
    origins.note(model, AVERAGE)
    told = Lineage(parent="sentiment:0.9.0@blake3:0", parents=("other:1.0.0@blake3:1",))
    assert origins.lineage(model, told) == Lineage(
        parent=told.parent, parents=("other:1.0.0@blake3:1", *AVERAGE.parents)
    )


def test_a_saved_version_tells_of_them_after_training_too(tmp_path):
    keep = mk.open(tmp_path / "models")
    model = network()
    model.compile("sgd", "mse")
    origins.note(model, TRANSFER)
    origins.note(model, Trained("sentiment-run@3"))
    model.fit(keras.ops.ones((4, 3)), keras.ops.ones((4, 2)), verbose=0)
    lineage = keep.save(model, "sentiment", parent=None).manifest.lineage
    assert (lineage.transfers, lineage.run, lineage.parents) == ((TRANSFER,), "sentiment-run@3", ())
    assert keep.save(network(), "sentiment").manifest.lineage.transfers == ()


def test_a_checkpoint_has_them_and_whatever_comes_of_it(tmp_path):
    keep = mk.open(tmp_path / "models")
    x, y = np.ones((4, 3)), np.ones((4, 2))

    def trained(model: keras.Model, epochs: int) -> keras.Model:
        model.compile("sgd", "mse")
        keep.checkpoints("tuning").fit(model, x, y, epochs=epochs, verbose=0)
        return model

    start = network()
    origins.note(start, TRANSFER)
    trained(start, 1)
    for made in (keep.publish("tuning@1", "net"), keep.save(keep.load("tuning@1").model, "net")):
        assert (made.manifest.lineage.transfers, made.manifest.lineage.run) == ((TRANSFER,), "tuning@1")
    goes_on = trained(network(), 2)  # as another process would, that had nothing transferred
    assert origins.of(goes_on) == (TRANSFER, Trained("tuning@2"))
    assert keep.publish("tuning@2", "net").manifest.lineage.transfers == (TRANSFER,)
