"""Write the store that later releases must open: ``python tests/stores/write.py tests/stores/1``.

Run once by the last release before a format number changes; what it wrote is committed and never written again.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np

import modelkeep as mk
from modelkeep import gitinfo
from modelkeep.live import environment
from modelkeep.manifest import Environment


def network() -> keras.Model:
    """A pack of small tensors, an optimizer with slots, a seed generator."""
    keras.utils.set_random_seed(11)
    layers = [
        keras.Input((4,), dtype="int32", name="words"),
        keras.layers.Embedding(20, 3, name="table"),
        keras.layers.GlobalAveragePooling1D(name="mean"),
        keras.layers.Dropout(0.2, name="dropout"),
        keras.layers.Dense(1, activation="sigmoid", name="head"),
    ]
    model = keras.Sequential(layers, name="sentiment")
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    return model


def main(folder: str) -> None:
    """Two versions, a refusal, a split, a rollback, a yanked and a deleted version."""
    # What is kept of a machine is not that of whoever ran this.
    here = Environment(python="3.11.0", platform="Linux", machine="x86_64", backend="tensorflow")
    environment.here = lambda _=(): here
    gitinfo.read = lambda *_: None
    keep = mk.open(folder, actor="ada")
    texts = ["a fine film", "a dull film"]
    tokenizer = mk.Tokenizer(num_words=20)
    tokenizer.fit_on_texts(texts)
    pipeline = mk.Pipeline(
        [mk.steps.tokenize("tokenizer"), mk.steps.pad(4)], outputs=[mk.steps.labels(["negative", "positive"])]
    )
    whole = {"assets": {"tokenizer": tokenizer}, "pipeline": pipeline, "golden": texts}
    model = network()
    keep.save(
        model, "team/sentiment", metrics={"accuracy": 0.8}, metadata={"dataset": "two films"}, tags=["first"], **whole
    )
    keep.promote("team/sentiment", "production", reason="the first")
    x = np.array([[0, 1, 2, 3], [0, 1, 4, 3]], "int32")
    model.fit(x, np.array([1.0, 0.0]), epochs=2, verbose=0)
    keep.save(model, "team/sentiment", metrics={"accuracy": 0.9}, parent="team/sentiment:1.0.0", **whole)
    keep.split("team/sentiment@production", {"1.0.0": 90, "1.1.0": 10})
    keep.rollback("team/sentiment@production", reason="a rehearsal")
    with suppress(mk.errors.GateRefused):
        keep.save(model, "team/sentiment", metrics={"accuracy": 0.1}, gates=["accuracy >= 0.5"])
    keep.save(model, "team/sentiment", version="2.0.0-rc.1", note="too early", check=False)
    keep.yank("team/sentiment:2.0.0-rc.1")
    keep.save(model, "team/sentiment", version="3.0.0", architecture=False)
    keep.delete("team/sentiment:3.0.0")


if __name__ == "__main__":
    main(sys.argv[1])
