"""Functions and layers that Keras 3 changed or dropped, kept as they were for models that have them.

They are registered with Keras under the package ``modelkeep``, so a model that holds one is saved and opened by
modelkeep like any other, and to ``.keras``. Plain Keras opens such a ``.keras`` after
``import modelkeep.live.legacy_objects``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

PACKAGE = "modelkeep"
_registered = keras.saving.register_keras_serializable(package=PACKAGE)


def old_hard_sigmoid(x: Any) -> Any:
    """``min(max(0.2 x + 0.5, 0), 1)``, as Keras 1 and 2 had it; Keras 3's own is ``min(max(x / 6 + 0.5, 0), 1)``."""
    # Not called hard_sigmoid: older releases of Keras 3 write a function by its bare name where they know that name.
    return ops.clip(0.2 * x + 0.5, 0.0, 1.0)


# Interpolations that Keras 3 dropped: how much a pixel counts, by its distance from where it is looked for. They are
# those of tf.image.resize without antialiasing (tensorflow/core/kernels/image/sampling_kernels.h).


def _gaussian(distance: Any) -> Any:
    """A bell of radius 1.5, which is three deviations."""
    return ops.where(distance < 1.5, ops.exp(-2.0 * distance * distance), 0.0)


def _mitchellcubic(distance: Any) -> Any:
    """Mitchell and Netravali's cubic, B = C = 1/3 (Reconstruction filters in computer graphics, 1988)."""
    near = ((7 / 6) * distance - 2.0) * distance * distance + 8 / 9
    far = (((-7 / 18) * distance + 2.0) * distance - 10 / 3) * distance + 16 / 9
    return ops.where(distance < 1.0, near, ops.where(distance < 2.0, far, 0.0))


_KERNELS = {"gaussian": _gaussian, "mitchellcubic": _mitchellcubic}


def _resized(images: Any, size: tuple[Any, Any], interpolation: str) -> Any:
    """Images, (..., height, width, channels), scaled to a size (height, width)."""
    if interpolation not in _KERNELS:
        return ops.image.resize(images, size, interpolation=interpolation, data_format="channels_last")
    shape = ops.shape(images)
    if tuple(shape[-3:-1]) == tuple(size):
        return images
    rows, columns = (_weights(old, new, _KERNELS[interpolation]) for old, new in zip(shape[-3:-1], size, strict=True))
    images = ops.cast(images, "float32")
    return ops.einsum("...hwc,ih,jw->...ijc", images, rows, columns)


def _weights(old: Any, new: Any, kernel: Callable[[Any], Any]) -> Any:
    """How much each of ``old`` pixels counts for each of ``new``, (new, old); every row adds up to 1."""
    scale = ops.cast(old, "float32") / ops.cast(new, "float32")
    looked_for = (ops.arange(new, dtype="float32") + 0.5) * scale
    distances = ops.abs(ops.arange(old, dtype="float32")[None] + 0.5 - looked_for[:, None])
    weights = kernel(distances)
    return weights / ops.sum(weights, axis=1, keepdims=True)


class _LocallyConnected(keras.Layer):  # type: ignore[misc]
    """A convolution with a kernel of its own at each place: ``implementation=1`` of Keras 2, which pads nothing.

    Takes and gives what the convolution of its rank does. The kernel is (places, numbers under the window, filters).
    """

    rank = 0

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        data_format: str | None = None,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.filters = filters
        self.kernel_size = self._each_way(kernel_size)
        self.strides = self._each_way(strides)
        self.data_format = data_format or keras.config.image_data_format()
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)

    def _each_way(self, value: Any) -> tuple[int, ...]:
        return (value,) * self.rank if isinstance(value, int) else tuple(value)

    def build(self, input_shape: Any) -> None:
        """Make the kernel, and the bias, which has the shape of one output."""
        places = self._places(input_shape)
        channels = input_shape[-1] if self.data_format == "channels_last" else input_shape[1]
        window = int(np.prod(self.kernel_size)) * channels
        self.kernel = self.add_weight(
            name="kernel",
            shape=(int(np.prod(places)), window, self.filters),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=self._layout(places),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def _places(self, input_shape: Any) -> tuple[int, ...]:
        first = 1 if self.data_format == "channels_last" else 2
        lengths = input_shape[first : first + self.rank]
        return tuple(
            (length - size) // stride + 1
            for length, size, stride in zip(lengths, self.kernel_size, self.strides, strict=True)
        )

    def _layout(self, places: tuple[int, ...]) -> tuple[int, ...]:
        return (*places, self.filters) if self.data_format == "channels_last" else (self.filters, *places)

    def call(self, inputs: Any) -> Any:
        """Each window of the input times the kernel of its place."""
        places, rank = self._places(inputs.shape), self.rank
        first = 1 if self.data_format == "channels_last" else 2
        for way in range(rank):  # each axis becomes two: the place, and where under the window
            starts = np.arange(places[way])[:, None] * self.strides[way]
            inputs = ops.take(inputs, starts + np.arange(self.kernel_size[way])[None], axis=first + 2 * way)
        place_axes = [first + 2 * way for way in range(rank)]
        under = [axis for axis in range(1, 2 + 2 * rank) if axis not in place_axes]
        windows = ops.reshape(
            ops.transpose(inputs, [0, *place_axes, *under]), (-1, self.kernel.shape[0], self.kernel.shape[1])
        )
        outputs = ops.einsum("bpw,pwf->bpf", windows, self.kernel)
        if self.data_format == "channels_first":
            outputs = ops.transpose(outputs, (0, 2, 1))
        outputs = ops.reshape(outputs, (-1, *self._layout(places)))
        if self.bias is not None:
            outputs = outputs + self.bias
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """As for the convolution."""
        return (input_shape[0], *self._layout(self._places(input_shape)))

    def get_config(self) -> dict[str, Any]:
        """Every argument."""
        parts = {
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
        }
        plain = ("filters", "kernel_size", "strides", "data_format", "use_bias")
        return {**super().get_config(), **{name: getattr(self, name) for name in plain}, **parts}


class LocallyConnected1D(_LocallyConnected):
    """:class:`_LocallyConnected` over sequences."""

    rank = 1


class LocallyConnected2D(_LocallyConnected):
    """:class:`_LocallyConnected` over images."""

    rank = 2


class _RandomLength(keras.Layer):  # type: ignore[misc]
    """Scales one axis of images by a random factor when it is trained; else the images are left as they are."""

    axis = 0

    def __init__(self, factor: Any, interpolation: str = "bilinear", seed: int | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.factor = factor
        self.interpolation = interpolation
        self.seed = seed
        self._generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Images, (batch, height, width, channels) or one of them."""
        if not training:
            return inputs
        lower, upper = self.factor if isinstance(self.factor, list | tuple) else (-self.factor, self.factor)
        factor = keras.random.uniform((), 1.0 + lower, 1.0 + upper, seed=self._generator)
        size = list(ops.shape(inputs)[-3:-1])
        size[self.axis] = ops.cast(factor * ops.cast(size[self.axis], "float32"), "int32")
        return _resized(inputs, tuple(size), self.interpolation)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """The scaled axis has no known length."""
        shape = list(input_shape)
        shape[self.axis - 3] = None
        return tuple(shape)

    def get_config(self) -> dict[str, Any]:
        """Every argument."""
        arguments = {"factor": self.factor, "interpolation": self.interpolation, "seed": self.seed}
        return {**super().get_config(), **arguments}


class RandomHeight(_RandomLength):
    """:class:`_RandomLength` of the height."""

    axis = 0


class RandomWidth(_RandomLength):
    """:class:`_RandomLength` of the width."""

    axis = 1


class RandomCrop(keras.layers.RandomCrop):  # type: ignore[misc]
    """Outside training the whole image is scaled to cover the size and its middle is cut out.

    Keras 3's own leaves images as they are there, so that what follows gets another size than in training.
    """

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Images, (batch, height, width, channels) or one of them."""
        if training:
            return super().call(inputs, training=True)
        covering = ops.cast(inputs, self.compute_dtype)
        return ops.image.resize(
            covering, (self.height, self.width), crop_to_aspect_ratio=True, data_format=self.data_format
        )


class SeparableConv1D(keras.layers.SeparableConv1D):  # type: ignore[misc]
    """One that looks at no step after its own: ``padding="causal"``, which Keras 3 has for ``Conv1D`` alone."""

    def __init__(self, filters: int, kernel_size: Any, padding: str = "causal", **arguments: Any) -> None:
        super().__init__(filters, kernel_size, padding="valid", **arguments)
        self.before = self.dilation_rate[0] * (self.kernel_size[0] - 1)
        self.steps = 1 if self.data_format == "channels_last" else 2

    def call(self, inputs: Any) -> Any:
        """Sequences, with as many zeros before them as the kernel looks back."""
        return super().call(ops.pad(inputs, [(self.before if axis == self.steps else 0, 0) for axis in range(3)]))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """As of the convolution, over the longer sequence."""
        shape = list(input_shape)
        shape[self.steps] = None if shape[self.steps] is None else shape[self.steps] + self.before
        return super().compute_output_shape(tuple(shape))

    def get_config(self) -> dict[str, Any]:
        """Every argument."""
        return {**super().get_config(), "padding": "causal"}


class Resizing(keras.Layer):  # type: ignore[misc]
    """Scales images to one size by an interpolation that Keras 3's own lacks."""

    def __init__(
        self, height: int, width: int, interpolation: str, crop_to_aspect_ratio: bool = False, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self.height = height
        self.width = width
        self.interpolation = interpolation
        self.crop_to_aspect_ratio = crop_to_aspect_ratio

    def call(self, inputs: Any) -> Any:
        """Images, (batch, height, width, channels) or one of them."""
        images = self._cropped(inputs) if self.crop_to_aspect_ratio else inputs
        return ops.cast(_resized(images, (self.height, self.width), self.interpolation), self.compute_dtype)

    def _cropped(self, images: Any) -> Any:
        """The middle of the images, as wide to its height as the size is."""
        height, width = ops.shape(images)[-3:-1]
        rows = ops.minimum(height, ops.cast(width * self.height / self.width, "int32"))
        columns = ops.minimum(width, ops.cast(height * self.width / self.height, "int32"))
        top, left = (height - rows) // 2, (width - columns) // 2
        images = ops.take(images, top + ops.arange(rows), axis=-3)
        return ops.take(images, left + ops.arange(columns), axis=-2)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """The batch and the channels stay."""
        return (*input_shape[:-3], self.height, self.width, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Every argument."""
        names = ("height", "width", "interpolation", "crop_to_aspect_ratio")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


class UpSampling2D(keras.Layer):  # type: ignore[misc]
    """Scales images by whole factors, by an interpolation that Keras 3's own lacks."""

    def __init__(self, size: Any, interpolation: str, data_format: str | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.interpolation = interpolation
        self.data_format = data_format or keras.config.image_data_format()

    def call(self, inputs: Any) -> Any:
        """Images, (batch, height, width, channels), or channels first where the format is that."""
        first = self.data_format == "channels_first"
        images = ops.transpose(inputs, (0, 2, 3, 1)) if first else inputs
        size = tuple(length * factor for length, factor in zip(ops.shape(images)[1:3], self.size, strict=True))
        images = ops.cast(_resized(images, size, self.interpolation), self.compute_dtype)
        return ops.transpose(images, (0, 3, 1, 2)) if first else images

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """Height and width are multiplied."""
        start = 2 if self.data_format == "channels_first" else 1
        shape = list(input_shape)
        for axis, factor in enumerate(self.size, start):
            shape[axis] = None if shape[axis] is None else shape[axis] * factor
        return tuple(shape)

    def get_config(self) -> dict[str, Any]:
        """Every argument."""
        names = ("size", "interpolation", "data_format")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


FUNCTIONS: dict[str, Callable[..., Any]] = {
    f"{PACKAGE}>{thing.__name__}": _registered(thing) for thing in (old_hard_sigmoid,)
}
"""Each by the name that configs have for it."""

CLASSES: dict[str, type] = {
    f"{PACKAGE}>{thing.__name__}": _registered(thing)
    for thing in (
        LocallyConnected1D,
        LocallyConnected2D,
        RandomHeight,
        RandomWidth,
        RandomCrop,
        SeparableConv1D,
        Resizing,
        UpSampling2D,
    )
}
"""Each by the name that configs have for it."""
