import math

import keras
import numpy as np
import pytest

import modelkeep as mk
from modelkeep.live.compare import weights_equal
from modelkeep.live.distance import distance
from modelkeep.live.variables import array_source
from modelkeep.report import Severity
from modelkeep.storage.blobs import Blobs
from modelkeep.storage.memory import MemoryStore

pytestmark = [pytest.mark.keras, pytest.mark.backends]


def moved(old, new) -> float:
    blobs = Blobs(MemoryStore())
    tensors = [blobs.write([array_source("w", np.asarray(values))]).tensors[0] for values in (old, new)]
    return distance(blobs, *tensors)


def test_the_distance_is_the_relative_change_in_length():
    old, new = np.array([3.0, 4.0], "float32"), np.array([3.0, 4.5], "float32")
    assert moved(old, new) == pytest.approx(0.1)
    assert moved(old, old) == 0.0


def test_the_distance_from_nothing_is_infinite():
    assert moved(np.zeros(3), np.ones(3)) == math.inf


def test_the_distance_of_many_elements_is_that_of_their_whole():
    old = np.random.default_rng(1).standard_normal(2**20 + 7)
    assert moved(old, old * 1.5) == pytest.approx(0.5)


def test_a_loaded_model_equals_what_was_stored_until_a_weight_is_touched():
    keep = mk.open(MemoryStore())
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="head")])
    version = keep.save(model, "m")
    loaded = keep.load("m").model
    assert all(finding.severity is not Severity.FAILURE for finding in weights_equal(loaded, version.manifest))
    loaded.get_layer("head").bias.assign([0.0, 1e-7])
    failures = [f.subject for f in weights_equal(loaded, version.manifest) if f.severity is Severity.FAILURE]
    assert [subject.rpartition("/")[2] for subject in failures] == ["bias"]
