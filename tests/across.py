"""Run in a process of its own, under another Keras or another backend than the tests.

``across.py keep FOLDER NAME…`` keeps models of the zoo with their answers; ``across.py open FOLDER NAME…`` brings
them back and compares. Prints a JSON mapping of each name to the largest difference, or to what went wrong.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import zoo
from keeping import keep, kept_in, numbers_in
from modelkeep.live.custom_objects import resolve
from zoo import ZOO


def keep_one(name: str, folder: Path) -> float:
    specimen = ZOO[name]
    model = specimen.build()
    specimen.use(model)
    keep(model, folder)
    np.savez(folder / "answers.npz", *numbers_in(model.predict_on_batch(specimen.inputs)))
    return 0.0


def open_one(name: str, folder: Path) -> float:
    kept = kept_in(folder, {})
    # The oldest Keras kept functions by a name that is not the one they are registered by.
    objects, _ = resolve(kept.manifest.custom_objects, custom_objects=[zoo.squared])
    model = kept.back(objects=objects)
    found = numbers_in(model.predict_on_batch(ZOO[name].inputs))
    expected = np.load(folder / "answers.npz").values()
    return max(float(np.max(np.abs(a - b))) for a, b in zip(found, expected, strict=True))


def attempt(what: Callable[[str, Path], float], name: str, folder: Path) -> float | str:
    try:
        return what(name, folder)
    except Exception as error:  # noqa: BLE001 - the test reads it
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    verb, root, *names = sys.argv[1:]
    one = {"keep": keep_one, "open": open_one}[verb]
    print(json.dumps({name: attempt(one, name, Path(root, name)) for name in names}))
