"""Small files of every plain form, written by the form's own library, without Keras."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

CONFIG = {
    "module": "keras",
    "class_name": "Sequential",
    "config": {"name": "sequential", "layers": []},
    "registered_name": None,
    "compile_config": {"optimizer": "adam", "loss": "mse"},
}
METADATA = {"keras_version": "3.15.1", "date_saved": "2026-01-02@03:04:05"}
WEIGHTS = {
    "layers/dense/vars/0": np.arange(12, dtype="float32").reshape(4, 3),
    "layers/dense/vars/1": np.ones(3, "float32"),
    "optimizer/vars/0": np.array(7, "int64"),
}


def weights_h5(weights: Mapping[str, Any] = WEIGHTS) -> bytes:
    """As Keras 3 lays its variables out."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, value in weights.items():
            file[name] = value
    return buffer.getvalue()


def keras_members(**others: bytes) -> dict[str, bytes]:
    """The members of a .keras file; ``others`` replace them, dots for double underscores."""
    members = {
        "metadata.json": json.dumps(METADATA).encode(),
        "config.json": json.dumps(CONFIG).encode(),
        "model.weights.h5": weights_h5(),
    }
    return members | {name.replace("__", "."): data for name, data in others.items()}


def zipped(members: Mapping[str, bytes], path: Path, method: int = zipfile.ZIP_STORED) -> Path:
    """A zip of these members at a path."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def unpacked(members: Mapping[str, bytes], folder: Path) -> Path:
    """A folder of these files."""
    for name, data in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder
