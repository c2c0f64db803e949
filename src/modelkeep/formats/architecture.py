"""An architecture without weights: the JSON of ``model.to_json()``, of Keras 1 to 3, and the YAML of Keras 1 and 2.

YAML is told and not read: in the hands of a YAML library it could make any object, and Keras itself has refused
it since 2.6.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from modelkeep.errors import IntegrityError
from modelkeep.formats import strict_json
from modelkeep.formats.contents import Contents, Problem
from modelkeep.formats.forms import Form, Place
from modelkeep.formats.limits import Limits
from modelkeep.formats.streams import fill, open_regular

WAY_OUT_OF_YAML = (
    "make JSON of it with the Keras that wrote it (at most 2.5), in a place where it may run what it likes: "
    "open('model.json', 'w').write(keras.models.model_from_yaml(open('model.yaml').read()).to_json())"
)
_WRITER = {"keras_version": "keras", "backend": "backend"}
_FIRST_KEY = re.compile(rb'\s*"?\{\s*"(?:class_name|module|config|keras_version|backend|name|registered_name)"\s*:')
_CLASS = re.compile(rb'"class_name"\s*:')
_TOKENIZER = re.compile(rb'"class_name"\s*:\s*"Tokenizer"')
_YAML = re.compile(rb"(?:---\s+)?(?:!!python/[^\n]*\n)?\s*(?:backend|class_name|config|keras_version)\s*:[^\n]*\n")
_PYTHON_TAG = re.compile(rb"!!?<?(?:tag:yaml\.org,2002:)?python/[^\s>]*")


def recognise(place: Place) -> bool:
    """Whether a file begins as one of them does; a tokenizer of Keras does, too, and is none."""
    head = place.head.replace(b'\\"', b'"')  # written by json.dump: a text that is JSON
    is_json = bool(_FIRST_KEY.match(head) and _CLASS.search(head) and not _TOKENIZER.search(head))
    return is_json or bool(_YAML.match(head))


@contextmanager
def read(place: Place, limits: Limits, thorough: bool) -> Iterator[Contents]:
    """Open a file; see :class:`modelkeep.formats.forms.Form`. Raises IntegrityError for JSON of another kind."""
    file = open_regular(place.path)
    try:
        data = bytearray(os.fstat(file).st_size)
        limits.check("config", len(data), f"{place.path.name} is too large")
        fill(file, data, 0)
    finally:
        os.close(file)
    is_yaml = not place.head.lstrip().startswith((b"{", b'"'))
    yield _yaml(place, bytes(data)) if is_yaml else _json(place, bytes(data), limits)


def _json(place: Place, data: bytes, limits: Limits) -> Contents:
    value, problems = strict_json.read(data, what=place.path.name, limits=limits)
    if isinstance(value, str):
        value, problems = strict_json.read(value.encode(), what=place.path.name, limits=limits)
    if not isinstance(value, dict) or not isinstance(value.get("class_name"), str):
        raise IntegrityError(
            f"{place.path.name} is no architecture of Keras", expected='{"class_name": …, "config": …}'
        )
    return Contents(
        form="json",
        path=place.path,
        size=len(data),
        writer={word: value[key] for key, word in _WRITER.items() if isinstance(value.get(key), str)},
        config=value,
        compile=value.get("compile_config"),
        problems=problems,
    )


def _yaml(place: Place, data: bytes) -> Contents:
    problems = [Problem("yaml-architecture", f"it is told and not read; {WAY_OUT_OF_YAML}")]
    if tag := _PYTHON_TAG.search(data):
        found = tag.group().decode(errors="replace")[:200]
        problems.append(Problem("yaml-python-tag", f"{found} makes a Python object", f"byte {tag.start():,}"))
    return Contents(form="yaml", path=place.path, size=len(data), problems=tuple(problems))


FORM = Form(
    names=("json", "yaml"),
    title="architecture (.json)",
    endings=(".json", ".yaml", ".yml"),
    holds=frozenset({"architecture"}),
    recognise=recognise,
    read=read,
)
