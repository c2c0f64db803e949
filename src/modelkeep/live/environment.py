"""The environment with what only a live backend can tell: its name and its accelerators."""

from __future__ import annotations

from collections.abc import Iterable

import keras

from modelkeep import environment
from modelkeep.manifest import CustomObject, Environment


def here(custom_objects: Iterable[CustomObject] = ()) -> Environment:
    """This environment; the packages that hold ``custom_objects`` are among those whose versions are told."""
    return environment.here(
        backend=keras.backend.backend(),
        accelerators=_accelerators(),
        modules={record.module for record in custom_objects},
    )


def _accelerators() -> list[str]:
    """The names of the devices other than the CPU that the backend sees."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        devices = [device for device in tf.config.list_physical_devices() if device.device_type != "CPU"]
        return [tf.config.experimental.get_device_details(device).get("device_name", device.name) for device in devices]
    if backend == "jax":
        import jax

        return [device.device_kind for device in jax.devices() if device.platform != "cpu"]
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
