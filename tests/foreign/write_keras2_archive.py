"""A ``.keras`` file of Keras 2, which is the zip of Keras 3 with configs of its own, as 2.13 and later wrote it.

Run once, with tf-keras 2.21: ``python tests/foreign/write_keras2_archive.py``. Writes ``keras2-archive.keras`` beside
itself, and what the model in it answers to ones.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tf_keras as keras
from write_keras3 import deflate

layers = keras.layers


def main() -> None:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4, 3))
    x = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(inputs)
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling1D()(layers.MultiHeadAttention(1, 2)(x, x)))
    inner = keras.Sequential([layers.Input((4,)), layers.Dense(2), layers.BatchNormalization()], name="inner")
    model = keras.Model(inputs, layers.Dense(2, name="answer")(inner(x)))
    model.compile("adam", "mse")
    model.train_on_batch(np.ones((2, 4, 3)), np.ones((2, 2)))
    path = Path(__file__).with_name("keras2-archive.keras")
    model.save(path)
    deflate(path)
    np.save(path.with_suffix(".npy"), model(np.ones((2, 4, 3))).numpy())


if __name__ == "__main__":
    main()
