"""A model rebuilt under another backend, in a process of its own, and something done with it there.

Some forms are written well by one backend alone. The model is captured as for a store, with every weight and
state, into a private folder; a new Python with another ``KERAS_BACKEND`` restores it from there and calls one
function of this package. Classes that are not Keras' own are imported there from the modules they are in here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkeep import errors, manifest
from modelkeep.errors import CannotLoad, ModelkeepError, NotFaithful, UsageError
from modelkeep.live.stored import put_aside
from modelkeep.report import Finding, Report, Severity
from modelkeep.storage.blobs import Blobs
from modelkeep.storage.local import LocalStore

if TYPE_CHECKING:
    import keras

_MANIFEST, _TASK, _ANSWER = "manifest.json", "task.json", "answer.json"
_TITLE = "this model cannot be rebuilt under another backend"


def under(backend: str, model: keras.Model, function: str, arguments: Mapping[str, Any]) -> tuple[Finding, ...]:
    """Call ``package.module:function(model, **arguments)`` with ``model`` rebuilt under ``backend``.

    ``arguments`` are JSON values; the function returns findings. Raises what it raises, where that is an error of
    modelkeep's, and CannotLoad for all else; UsageError where a class is in ``__main__``, which cannot be imported
    elsewhere; CannotRebuild, UnsafeContent.
    """
    with tempfile.TemporaryDirectory(prefix="modelkeep-") as name:
        folder = Path(name)
        trust = _hand_over(model, folder)
        task = {"function": function, "arguments": dict(arguments), "trust": trust}
        (folder / _TASK).write_text(json.dumps(task))
        # The working folder comes first on the path of `python -m`, as "" does here.
        environment = {
            **os.environ,
            "KERAS_BACKEND": backend,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(folder)], env=environment, capture_output=True, text=True
        )
        answer = folder / _ANSWER
        if done.returncode or not answer.exists():
            raise CannotLoad(
                f"rebuilding this model under {backend} failed", found=done.stderr.strip()[-2000:] or done.returncode
            )
        return _answered(json.loads(answer.read_text()))


def _hand_over(model: keras.Model, folder: Path) -> list[str]:
    """Write all of a model into a folder; the modules that its own classes are in."""
    from modelkeep.live.capture import capture

    captured = capture(model)
    Report(_TITLE, captured.findings, NotFaithful).raise_for_failures()
    lost = sorted({record.name for record in captured.custom_objects if record.module == "__main__"})
    if lost:
        raise UsageError(
            "classes in the script that is running cannot be rebuilt under another backend",
            found=", ".join(lost),
            hint="move them to a module of their own, and import it",
        )
    blobs = Blobs(LocalStore(folder))
    (folder / _MANIFEST).write_bytes(manifest.encode(put_aside(captured, blobs)))
    return sorted({record.module for record in captured.custom_objects})


def _answered(answer: Mapping[str, Any]) -> tuple[Finding, ...]:
    if "error" in answer:
        raise getattr(errors, answer["error"])(answer["what"], hint=answer["hint"])
    return tuple(Finding(**{**finding, "severity": Severity(finding["severity"])}) for finding in answer["findings"])


# --- in the other process


def _main(folder: Path) -> None:
    from modelkeep.live.loading import load

    task = json.loads((folder / _TASK).read_text())
    module, _, name = task["function"].partition(":")
    handed = manifest.decode((folder / _MANIFEST).read_bytes())
    answer: dict[str, Any]
    try:
        loaded = load(handed, Blobs(LocalStore(folder)), trust=task["trust"], compile=False)
        found = getattr(import_module(module), name)(loaded.model, **task["arguments"])
        answer = {"findings": [finding.to_json() for finding in found]}
    except ModelkeepError as error:
        what = str(error).partition("\n  → ")[0]
        answer = {"error": type(error).__name__, "what": what, "hint": error.hint}
    (folder / _ANSWER).write_text(json.dumps(answer))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
