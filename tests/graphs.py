"""SavedModels written by hand, for tests of graphs that no exporter would write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from wire import message

STRING, FLOAT, INT32 = 7, 1, 3
SAVER = "saver_filename:0"


def node(name: str, op: str, *inputs: str, **attributes: bytes) -> bytes:
    """A NodeDef; attributes are AttrValues."""
    entries = [(5, message((1, key), (2, value))) for key, value in attributes.items()]
    return message((1, name), (2, op), *((3, one) for one in inputs), *entries)


def call(name: str, function: str, *inputs: str) -> bytes:
    """A node that calls a function."""
    return node(name, "StatefulPartitionedCall", *inputs, f=message((10, message((1, function)))))


def text(name: str, value: str) -> bytes:
    """A constant of one text."""
    return node(name, "Const", value=message((8, message((1, STRING), (8, value)))))


def zeros(name: str, *shape: int) -> bytes:
    """A constant of one number, many times."""
    dims = message(*((2, message((1, length))) for length in shape))
    return node(name, "Const", value=message((8, message((1, FLOAT), (2, dims), (5, 0.0)))))


def function(name: str, arguments: Sequence[str], *nodes: bytes) -> bytes:
    """A FunctionDef."""
    signature = message((1, name), *((2, message((1, argument))) for argument in arguments))
    return message((1, signature), *((3, one) for one in nodes))


def graph(
    *nodes: bytes,
    functions: Sequence[bytes] = (),
    assets: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
) -> bytes:
    """The bytes of a ``saved_model.pb`` that gives ``outputs``, by name the tensors, under ``serving_default``."""
    named = ((2, message((1, name), (2, message((1, tensor), (2, FLOAT))))) for name, tensor in (outputs or {}).items())
    definition = message(*((1, one) for one in nodes), (2, message(*((1, one) for one in functions))))
    meta = message(
        (1, message((4, "serve"), (5, "2.21.0"))),
        (2, definition),
        (3, message((1, SAVER))),
        (5, message((1, "serving_default"), (2, message(*named)))),
        *((6, message((1, message((1, tensor))), (2, file))) for tensor, file in (assets or {}).items()),
    )
    return message((1, 1), (2, meta))


def folder(path: Path, data: bytes, **files: bytes) -> Path:
    """A folder with this graph, and in ``assets/`` these files."""
    (path / "assets").mkdir(parents=True, exist_ok=True)
    (path / "saved_model.pb").write_bytes(data)
    for name, content in files.items():
        (path / "assets" / name).write_bytes(content)
    return path
