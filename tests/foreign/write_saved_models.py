"""Write ``saved_models/``: what TensorFlow 2.12 and its Keras 2 saved, and what the models answered.

``python write_saved_models.py``, with TensorFlow 2.12.1 on Python 3.11. Functions that are traced for Keras' own reader
are left out, which keeps the files small.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent / "saved_models"
L = tf.keras.layers


def answers(name: str, model: Any, inputs: Any) -> None:
    np.savez(HERE / f"{name}.npz", x=inputs, y=model.predict(inputs, verbose=0))


def dense() -> None:
    """Trained, so that its optimizer has something to go on with; one inner layer is twice in the model."""
    inputs = tf.keras.Input((3,), name="a")
    shared = L.Dense(3, "tanh", name="shared")
    outputs = L.Dense(2, name="b")(L.BatchNormalization(name="norm")(shared(shared(inputs))))
    model = tf.keras.Model(inputs, outputs, name="network")
    model.compile(tf.keras.optimizers.Adam(0.01), "mse")
    x = np.arange(12, dtype="float32").reshape(4, 3) / 7
    model.fit(x, x[:, :2], epochs=2, verbose=0)
    answers("dense", model, x)
    serve = tf.function(lambda a: {"b": model(a)}).get_concrete_function(tf.TensorSpec((None, 3), name="a"))
    model.save(HERE / "dense", save_traces=False, signatures={"serving_default": serve})
    model.save_weights(HERE / "weights" / "ckpt")


def words() -> None:
    """A vocabulary in a file, which becomes an asset, and one that was learnt."""
    vocabulary = Path("words.txt")
    vocabulary.write_text("ear\nfig\ngnu\n")
    vectorize = L.TextVectorization(output_sequence_length=3, vocabulary=["gnu", "ear"])
    inputs = tf.keras.Input((1,), dtype="string")
    first = L.Flatten()(L.Embedding(5, 2)(L.StringLookup(vocabulary=str(vocabulary))(inputs)))
    second = L.Flatten()(L.Embedding(4, 2)(vectorize(inputs)))
    model = tf.keras.Model(inputs, L.Concatenate()([first, second]))
    answers("words", model, np.array([["ear"], ["gnu"], ["owl"]]))
    model.save(HERE / "words", save_traces=False)
    vocabulary.unlink()


def tensorflow_1() -> None:
    """Variables by name alone, one of them in parts, and a table that an asset fills."""
    tf1 = tf.compat.v1
    vocabulary = Path("words.txt")
    vocabulary.write_text("ear\nfig\n")
    with tf.Graph().as_default(), tf1.Session() as session:
        x = tf1.placeholder(tf.float32, [None, 4], "x")
        words = tf1.placeholder(tf.string, [None], "words")
        weights = tf1.get_variable("layer/w", [4, 2])
        parts = tf1.get_variable("parts", [6, 70], partitioner=tf1.fixed_size_partitioner(2))
        filled = tf1.lookup.TextFileInitializer(
            str(vocabulary),
            tf.string,
            tf1.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf1.lookup.TextFileIndex.LINE_NUMBER,
        )
        ids = tf1.lookup.StaticHashTable(filled, -1).lookup(words)
        y = x @ weights + tf.reduce_sum(parts.as_tensor())
        session.run([tf1.global_variables_initializer(), tf1.tables_initializer()])
        np.savez(HERE / "tensorflow_1.npz", w=session.run(weights), parts=session.run(parts.as_tensor()))
        tf1.saved_model.simple_save(
            session,
            str(HERE / "tensorflow_1"),
            {"x": x, "words": words},
            {"y": y, "ids": ids},
            tf1.tables_initializer(),
        )
    vocabulary.unlink()


def bundle() -> None:
    """Tensors of every kind of number, and texts."""
    whole = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
    kinds = ["float32", "float64", "float16", "bfloat16", *whole, "bool", "complex64", "complex128"]
    tensors = {kind: tf.cast(tf.constant([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]), kind) for kind in kinds}
    texts = tf.constant([["a", ""], ["ä" * 150, "b\0c"]])
    tensors |= {"empty": tf.zeros([0, 3]), "scalar": tf.constant(1.5), "text": texts}
    (HERE / "bundle").mkdir()
    tf.raw_ops.SaveV2(
        prefix=str(HERE / "bundle" / "all"),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )


if __name__ == "__main__":
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    os.chdir(HERE)  # so that no path of this machine gets into a file
    tf.keras.utils.set_random_seed(3)
    dense()
    words()
    tensorflow_1()
    bundle()
