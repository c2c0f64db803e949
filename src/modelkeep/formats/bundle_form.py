"""A bundle of modelkeep's own among the foreign forms: it is told as they are, and imported, not converted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from modelkeep.formats import bundle
from modelkeep.formats.bundle import Bundle
from modelkeep.formats.contents import Contents, ForeignTensor, Member
from modelkeep.formats.forms import Form, Place
from modelkeep.formats.limits import Limits
from modelkeep.manifest import Part, Tensor

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_OPTIMIZER = "optimizer/"


def recognise(place: Place) -> bool:
    """Whether a file begins as a bundle does."""
    return not place.is_folder and bundle.recognise(place.path)


@contextmanager
def read(place: Place, limits: Limits, thorough: bool) -> Iterator[Contents]:
    """Open a file, all of which is checked first; see :class:`modelkeep.formats.forms.Form`."""
    with bundle.read(place.path) as opened:
        manifest = opened.manifest
        packages = manifest.environment.packages if manifest.environment else {}
        tensors = [_tensor(opened, tensor) for tensor in manifest.tensors]
        signatures = {"serving_default": manifest.signature} if manifest.signature else {}
        yield Contents(
            form="bundle",
            path=place.path,
            size=opened.size,
            writer={
                "producer": manifest.writer,
                "date": manifest.created,
                **{name: packages[name] for name in ("keras", "tensorflow") if name in packages},
            },
            config=_json(opened, "config.json"),
            compile=_json(opened, "compile.json"),
            tensors=tuple(tensor for tensor in tensors if not tensor.name.startswith(_OPTIMIZER)),
            optimizer=tuple(tensor for tensor in tensors if tensor.name.startswith(_OPTIMIZER)),
            signatures=signatures,
            members=tuple(_member(opened, part) for part in manifest.parts),
            details={"model": manifest.model, "version": manifest.version, "digest": str(opened.digest)},
        )


def _tensor(opened: Bundle, tensor: Tensor) -> ForeignTensor:
    return ForeignTensor(tensor.name, tensor.dtype, tensor.shape, tensor.nbytes, partial(_array, opened, tensor))


def _array(opened: Bundle, tensor: Tensor) -> Array:
    import numpy as np

    if not hasattr(np, tensor.dtype):
        import ml_dtypes  # noqa: F401 - gives NumPy the words for bfloat16 and float8
    data = b"".join(bytes(opened.blob(p.blob)[p.offset : p.offset + p.size]) for p in tensor.pieces)
    return np.frombuffer(data, np.dtype(tensor.dtype)).reshape(tensor.shape)


def _member(opened: Bundle, part: Part) -> Member:
    return Member(part.name, part.size, lambda: bytes(opened.blob(part.digest)))


def _json(opened: Bundle, name: str) -> Any:
    digest = next((part.digest for part in opened.manifest.parts if part.name == name), None)
    return json.loads(opened.blob(digest)) if digest else None


FORM = Form(
    names=("bundle",),
    title="bundle of modelkeep (.zip)",
    endings=(".zip",),
    holds=frozenset({"architecture", "weights", "optimizer"}),
    recognise=recognise,
    read=read,
)
