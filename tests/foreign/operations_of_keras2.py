"""Operations of TensorFlow between layers of Keras 2, as files and what they answer.

``python operations_of_keras2.py FOLDER``, as ``layers_of_keras2.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from layers_of_keras2 import Case, floats, images, keras, main

L = keras.layers
K = keras.backend

ONE = {
    "slices": lambda x: x[:, 1:3, ::2],
    "slice-index": lambda x: x[:, 0],
    "slice-ellipsis": lambda x: x[..., -1],
    "slice-new-axis": lambda x: x[:, tf.newaxis, 1],
    "slice-step": lambda x: x[:, ::-1],
    "add": lambda x: x + 1.5,
    "radd": lambda x: 1.5 + x,
    "rsub": lambda x: 2 - x,
    "rdiv": lambda x: 2.0 / (x * x + 1.0),
    "neg-abs-pow": lambda x: abs(-x) ** 2.5,
    "array": lambda x: x * np.array([1.0, 2.0, 3.0, 4.0], "float32"),
    "floordiv-mod": lambda x: (x // 0.7) + (x % 0.3),
    "reduce_mean": lambda x: tf.reduce_mean(x, axis=[1, 2], keepdims=True),
    "reduce_sum": lambda x: tf.reduce_sum(x, -1),
    "reduce_max": lambda x: tf.reduce_max(x, axis=1),
    "reduce_min": lambda x: tf.math.reduce_min(x, axis=-1, keepdims=True),
    "reduce_std": lambda x: tf.math.reduce_std(x, axis=1) + tf.math.reduce_variance(x, axis=1),
    "reduce_prod": lambda x: tf.reduce_prod(x, axis=1),
    "reduce_logsumexp": lambda x: tf.reduce_logsumexp(x, axis=1),
    "norm": lambda x: tf.norm(x, axis=-1),
    "any": lambda x: tf.cast(tf.reduce_any(x > 0.5, axis=-1), tf.float32),
    "argmax": lambda x: tf.cast(tf.argmax(x, axis=-1), "float32"),
    "cumsum": lambda x: tf.cumsum(x, axis=1),
    "top_k": lambda x: tf.math.top_k(x, k=2)[0],
    "l2_normalize": lambda x: tf.math.l2_normalize(x, axis=-1),
    "clip": lambda x: tf.clip_by_value(x, -0.5, 0.6),
    "unary": lambda x: (
        tf.exp(-tf.square(x)) + tf.sqrt(tf.abs(x)) + tf.math.log(tf.abs(x) + 1.0) + tf.sin(x) * tf.cos(x)
    ),
    "round": lambda x: tf.round(x * 2) + tf.floor(x) - tf.math.ceil(x) + tf.sign(x),
    "activations": lambda x: (
        tf.nn.relu(x) + tf.nn.relu6(x * 9) + tf.nn.leaky_relu(x, alpha=0.3) + tf.nn.elu(x) + tf.nn.selu(x)
    ),
    "activations-2": lambda x: (
        tf.nn.gelu(x) + tf.nn.silu(x) + tf.sigmoid(x) + tf.tanh(x) + tf.nn.softplus(x) + tf.nn.softsign(x)
    ),
    "gelu-approximate": lambda x: tf.nn.gelu(x, approximate=True),
    "softmax": lambda x: tf.nn.softmax(x, axis=1) + tf.nn.log_softmax(x),
    "softmax-plain": lambda x: tf.nn.softmax(x),
    "reshape": lambda x: tf.reshape(x, [-1, 12]),
    "reshape-batch": lambda x: tf.reshape(x, [tf.shape(x)[0], -1]),
    "reshape-batch-2": lambda x: tf.reshape(x, (tf.shape(x)[0], 2, 6)),
    "transpose": lambda x: tf.transpose(x, [0, 2, 1]),
    "expand-squeeze": lambda x: tf.squeeze(tf.expand_dims(x, axis=1) + 1, axis=1),
    "squeeze-list": lambda x: tf.squeeze(tf.expand_dims(x, -1), [-1]),
    "split": lambda x: tf.concat(tf.split(x, 2, axis=-1)[::-1], axis=-1),
    "split-sizes": lambda x: tf.split(x, [1, 3], axis=2)[1],
    "unstack": lambda x: tf.stack(tf.unstack(x, axis=1)[:2], axis=-1),
    "tile": lambda x: tf.tile(x, [1, 2, 1]),
    "repeat": lambda x: tf.repeat(x, 3, axis=1),
    "roll-reverse": lambda x: tf.roll(tf.reverse(x, axis=[1]), shift=1, axis=2),
    "pad": lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 1]], constant_values=0.5),
    "pad-reflect": lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1]], mode="REFLECT"),
    "gather": lambda x: tf.gather(x, [2, 0], axis=1),
    "where": lambda x: tf.where(x > 0.1, x, tf.zeros_like(x)),
    "where-number": lambda x: tf.where(tf.math.less(x, 0.0), 0.25, x),
    "logical": lambda x: tf.cast(tf.logical_and(x > -0.5, tf.logical_not(x >= 0.5)), tf.float32),
    "compare": lambda x: tf.cast(tf.equal(tf.round(x), 0.0), tf.float32) + tf.cast(tf.not_equal(x, 1.0), tf.float32),
    "one_hot": lambda x: tf.one_hot(tf.cast(tf.abs(x), tf.int32), depth=3),
    "einsum": lambda x: tf.einsum("bij,bkj->bik", x, x),
    "matmul": lambda x: tf.matmul(x, x, transpose_b=True) + x @ tf.transpose(x, [0, 2, 1]),
    "tensordot": lambda x: tf.tensordot(x, np.ones((4, 2), "float32"), axes=1),
    "maximum": lambda x: tf.maximum(x, 0.2) - tf.minimum(0.1, x),
    "squared_difference": lambda x: tf.math.squared_difference(x, 0.5),
    "add_n": lambda x: tf.add_n([x, x * 2, x * 3]),
    "stop_gradient": lambda x: tf.stop_gradient(x) + tf.identity(x),
    "divide_no_nan": lambda x: tf.math.divide_no_nan(x, tf.nn.relu(x)),
    "slice": lambda x: tf.slice(x, [0, 1, 0], [-1, 2, -1]),
    "strided_slice": lambda x: tf.strided_slice(x, [0, 0, 1], [2, 3, 4], [1, 2, 1]),
    "strings-of-K": lambda x: K.concatenate(
        [K.mean(x, axis=1, keepdims=True), K.sum(x, axis=1, keepdims=True)], axis=1
    ),
    "K": lambda x: K.clip(x, 0, 1) + K.square(x) + K.l2_normalize(x, axis=-1) + K.expand_dims(K.max(x, axis=-1)),
    "batch-of-K": lambda x: K.batch_dot(x, K.permute_dimensions(x, (0, 2, 1))),
}
IMAGES = {
    "image-resize": lambda x: tf.image.resize(x, (5, 7)),
    "image-resize-nearest": lambda x: tf.image.resize(x, [5, 7], method="nearest"),
    "image-flip": lambda x: tf.image.flip_left_right(x) + tf.image.flip_up_down(x),
    "image-gray": lambda x: tf.image.rgb_to_grayscale(x),
    "image-pool": lambda x: (
        tf.nn.max_pool2d(x, 2, 2, "VALID") + tf.nn.avg_pool2d(x, [1, 2, 2, 1], [1, 2, 2, 1], "SAME")
    ),
    "image-normalize": lambda x: tf.cast(x, tf.float32) / 255.0 - 0.5,
    "image-preprocess": lambda x: keras.applications.mobilenet_v2.preprocess_input(x),
}


def all_cases() -> Iterator[Case]:
    for cases, x in ((ONE, floats(2, 3, 4)), (IMAGES, images(2, 8, 6, 3))):
        for name, function in cases.items():
            inputs = keras.Input(x.shape[1:])
            yield name, keras.Model(inputs, L.Activation("linear")(function(inputs))), [x]
    first, second = keras.Input((3, 4)), keras.Input((3, 4))
    both = tf.concat([first, second], axis=-1) * tf.reduce_mean(second)
    yield "two-inputs", keras.Model([first, second], [both, first - second]), [floats(2, 3, 4), floats(2, 3, 4)]
    inner_input = keras.Input((4,))
    inner = keras.Model(inner_input, tf.nn.relu(L.Dense(3)(inner_input)) * 2.0)
    outer = keras.Input((4,))
    yield "nested", keras.Model(outer, inner(outer) + inner(outer * 0.5)), [floats(2, 4)]


if __name__ == "__main__":
    main(Path(sys.argv[1]), all_cases())
