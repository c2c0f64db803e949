"""Write the inputs that fuzzing begins with: honest and hostile files of each form, the small ones of the tests.

``python fuzz/seeds.py`` fills ``fuzz/corpus/<form>/``; inputs that a fuzzing run found stay.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "fuzz")]

import test_litert  # noqa: E402
import test_onnx  # noqa: E402
import test_openvino  # noqa: E402
from hostile import CORPUS  # noqa: E402
from test_scanning import HONEST  # noqa: E402

CORPUS_FOLDER = ROOT / "fuzz" / "corpus"
LARGEST = 16 * 1024  # bytes

# How a file's name ends → the form that it is an input for.
FORMS = {
    ".tar.gz": "archives",
    ".weights.h5": "h5",
    ".h5": "h5",
    ".joblib": "pickles",
    ".json": "architecture",
    ".keras": "keras",
    ".npy": "npy",
    ".npz": "npz",
    ".onnx": "onnx",
    ".pkl": "pickles",
    ".pt": "torch",
    ".safetensors": "safetensors",
    ".tflite": "litert",
    ".xml": "openvino",
    ".yaml": "yaml",
    ".zip": "archives",
    "saved_model.pb": "saved_model",
    "keras_metadata.pb": "keras_metadata",
    ".index": "checkpoint",
}


def enter(path: Path) -> None:
    """Take a file, or the files of a folder, in as inputs of the form that their names tell."""
    for file in [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]:
        form = next((form for ending, form in FORMS.items() if file.name.endswith(ending)), None)
        if form is None or file.is_symlink() or file.stat().st_size > LARGEST:
            continue
        data = file.read_bytes()
        folder = CORPUS_FOLDER / form
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)


def main() -> None:
    """Write them all."""
    with tempfile.TemporaryDirectory() as home, contextlib.chdir(home):
        folder = Path()  # so that no path of this machine gets into an input
        for name, write in HONEST.items():
            target = Path(folder, "honest", name)
            target.parent.mkdir(exist_ok=True)
            write(target)
            enter(target)
        enter(test_onnx.saved(test_onnx.model(), Path(folder, "model.onnx")))
        enter(test_litert.saved(test_litert.model(custom=("Flex",)), Path(folder, "model.tflite")))
        enter(test_openvino.written(Path(folder, "ir")))
        # One for each reason is enough to begin with, and keeps the folder small.
        for rule, name in {CORPUS[name].rule: name for name in reversed(CORPUS)}.items():
            enter(CORPUS[name].write(Path(folder, rule)))
    enter(ROOT / "tests" / "foreign" / "saved_models")


if __name__ == "__main__":
    main()
