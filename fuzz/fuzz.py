"""Feed a reader what nobody would write, and see that it answers or refuses: never stumbles, hangs or fills memory.

``python fuzz/fuzz.py FORM [options of libFuzzer] [folders of inputs]``; ``make fuzz`` runs each form for a minute. An
input goes through the same steps as in ``modelkeep scan``, in this very process; an error that is not modelkeep's own
is a failure, and libFuzzer keeps the input as ``crash-…``.
"""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["modelkeep.formats", "modelkeep.safety"]):
    from modelkeep.errors import ModelkeepError
    from modelkeep.formats import forms
    from modelkeep.formats.limits import MIB, Limits
    from modelkeep.safety import scanning

    forms.all_forms()

# Small, so that what runs into them does so soon.
LIMITS = Limits(file=64 * MIB, expansion_floor=MIB, members=200, json_nodes=20_000, opcodes=20_000, nodes=20_000)

MEMORY = 1536 * MIB  # bytes, libFuzzer's own included

# Form → where the input stands: a file of that name, or one in a folder.
PLACES = {
    "architecture": "model.json",
    "archives": "model.tar.gz",
    "checkpoint": "weights.index",
    "h5": "model.h5",
    "keras": "model.keras",
    "keras_metadata": "model/keras_metadata.pb",
    "litert": "model.tflite",
    "npy": "array.npy",
    "npz": "arrays.npz",
    "onnx": "model.onnx",
    "openvino": "model.xml",
    "pickles": "values.pkl",
    "safetensors": "model.safetensors",
    "saved_model": "model/saved_model.pb",
    "torch": "model.pt",
    "yaml": "model.yaml",
}


class Reader:
    """One form, read again and again from one place."""

    def __init__(self, form: str, folder: Path) -> None:
        self._file = folder / PLACES[form]
        self._file.parent.mkdir(exist_ok=True)
        self._path = self._file.parent if self._file.parent != folder else self._file
        if form == "keras_metadata":
            (self._path / "saved_model.pb").write_bytes(b"\x08\x01\x12\x00")
        if form == "openvino":
            self._file.with_suffix(".bin").write_bytes(bytes(64))
        if form == "checkpoint":
            self._file.with_suffix(".data-00000-of-00001").write_bytes(bytes(256))

    def __call__(self, data: bytes) -> None:
        """Read one input as a scan does."""
        self._file.write_bytes(data)
        try:
            with forms.open_contents(self._path, LIMITS, thorough=True) as contents:
                for question in scanning.QUESTIONS:
                    list(question(contents, LIMITS))
        except (ModelkeepError, MemoryError):
            pass


def main() -> None:
    """Fuzz the form that the first argument names."""
    form = sys.argv.pop(1)
    warnings.simplefilter("ignore")
    # As in the process that scans: HDF5's own library would take whatever a damaged file asks for.
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    folder = Path(tempfile.mkdtemp(prefix="modelkeep-fuzz-"))
    atheris.Setup(sys.argv, Reader(form, folder))
    try:
        atheris.Fuzz()
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
