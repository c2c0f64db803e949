"""ONNX models: ``.onnx``, one protobuf message, with the weights inside or in files beside it.

Field numbers are those of onnx/onnx.proto. A graph has no mark of its own at its beginning; it is known by the first
fields, which every writer puts in the order of their numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from modelkeep.errors import IntegrityError, ModelkeepError, UnsafeContent
from modelkeep.formats.contents import Contents, ForeignTensor, Member, Problem
from modelkeep.formats.forms import Form, Place
from modelkeep.formats.limits import Limits
from modelkeep.formats.mapped import MappedFile
from modelkeep.formats.protobuf import Message, only, signed
from modelkeep.manifest import Signature, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

DEFAULT = "main"  # what the only signature of a graph is called
OWN_DOMAINS = frozenset({"", "ai.onnx"})

# TensorProto.DataType → NumPy's or ml_dtypes' word, bits of one number, and the field with numbers that are not raw.
_DTYPES = {
    1: ("float32", 32, 4), 2: ("uint8", 8, 5), 3: ("int8", 8, 5), 4: ("uint16", 16, 5), 5: ("int16", 16, 5),
    6: ("int32", 32, 5), 7: ("int64", 64, 7), 8: ("string", 0, 6), 9: ("bool", 8, 5), 10: ("float16", 16, 5),
    11: ("float64", 64, 10), 12: ("uint32", 32, 11), 13: ("uint64", 64, 11), 14: ("complex64", 64, 4),
    15: ("complex128", 128, 10), 16: ("bfloat16", 16, 5), 17: ("float8_e4m3fn", 8, 5), 18: ("float8_e4m3fnuz", 8, 5),
    19: ("float8_e5m2", 8, 5), 20: ("float8_e5m2fnuz", 8, 5), 21: ("uint4", 4, 5), 22: ("int4", 4, 5),
    23: ("float4_e2m1fn", 4, 5),
}  # fmt: skip
_EXTERNAL = 1  # TensorProto.DataLocation

# The fields of ModelProto that come before its graph, all but the first and last of them texts.
_BEFORE_GRAPH = {2: 2, 3: 2, 4: 2, 5: 0, 6: 2}
_GRAPH, _OPSETS = 7, 8
_OLDEST, _NEWEST = 3, 63  # versions of the format: saved_model.pb begins alike, with version 1
_DEEPEST = 32  # graphs within graphs; protobuf's own limit, 100 messages, allows no more


def recognise(place: Place) -> bool:
    """Whether a file begins with a version of the format, and goes on to a graph with no other fields between."""
    head = place.head
    if len(head) < 4 or head[0] != 0x08 or not _OLDEST <= head[1] <= _NEWEST:
        return False
    at = 2
    while at < len(head) - 1:
        number, wire = head[at] >> 3, head[at] & 7
        if (number, wire) in ((_GRAPH, 2), (_OPSETS, 2)):
            return True
        if _BEFORE_GRAPH.get(number) != wire:
            return False
        length, at = _short(head, at + 1)
        at += length if wire == 2 else 0
    return at >= len(head) and place.size > len(head)


def _short(head: bytes, at: int) -> tuple[int, int]:
    """A varint of the beginning, and where it ends; one that is cut off ends the head."""
    value = shift = 0
    while at < len(head):
        value |= (head[at] & 127) << shift
        shift += 7
        at += 1
        if head[at - 1] < 128:
            return value, at
    return 0, at


@contextmanager
def read(place: Place, limits: Limits, thorough: bool) -> Iterator[Contents]:
    """Open a file; see :class:`modelkeep.formats.forms.Form`. There are no checksums to be ``thorough`` about."""
    limits.check("graph", place.size, f"{place.path.name} is too large")
    with ExitStack() as stack:
        file = MappedFile(place.path)
        stack.callback(file.close)
        model = _Model(Message(file.all()), place.path.parent, limits, stack)
        yield Contents(
            form="onnx",
            path=place.path,
            size=file.size + sum(model.beside.values()),
            writer=_writer(model.message),
            tensors=tuple(model.tensors),
            signatures={DEFAULT: model.signature},
            members=tuple(Member(name, size) for name, size in sorted(model.beside.items())),
            details={
                "ir_version": model.message.integer(1),
                "opsets": model.opsets,
                "ops": dict(sorted(model.operators.items())),
                "functions": sorted(map(_qualified, model.functions)),
                "metadata": {entry.text(1): entry.text(2) for entry in model.message.messages(14)},
            },
            problems=tuple(model.problems),
        )


def _writer(message: Message) -> dict[str, str]:
    producer = " ".join(filter(None, (message.text(2), message.text(3))))
    return {"producer": producer} if producer else {}


def _qualified(operator: tuple[str, str]) -> str:
    domain, name = operator
    return name if domain in OWN_DOMAINS else f"{domain}:{name}"


class _Model:
    """A model's graph and those inside it, within limits. Raises IntegrityError, LimitExceeded."""

    def __init__(self, message: Message, folder: Path, limits: Limits, stack: ExitStack) -> None:
        self.message = message
        self.problems: list[Problem] = []
        self.tensors: list[ForeignTensor] = []
        self.operators: Counter[str] = Counter()
        self.used: set[tuple[str, str]] = set()
        self.beside: dict[str, int] = {}  # files with weights, and their bytes
        self._folder, self._limits, self._stack = folder, limits, stack
        self._files: dict[str, MappedFile | None] = {}
        self._nodes = 0
        if _GRAPH not in message:
            raise IntegrityError("an ONNX model without a graph")
        limits.check("functions", len(message.views(25)), "an ONNX model has too many functions")
        functions = [Message(view) for view in message.views(25)]
        self.functions = {(function.text(10), function.text(1)) for function in functions}
        self.opsets = {entry.text(1) or "ai.onnx": entry.integer(2) for entry in message.messages(_OPSETS)}
        graph = message.message(_GRAPH)
        self.signature = _signature(graph)
        for initializer in graph.views(5):
            self._add(Message(initializer))
        self._walk([(message.view(_GRAPH), 1), *((node, 7) for node in message.views(25))])

    def _walk(self, waiting: list[tuple[memoryview, int]]) -> None:
        """Every node of graphs (whose nodes are field 1) and functions (7), and of the graphs inside them."""
        deep = [(data, field, 1) for data, field in waiting]
        while deep:
            data, field, depth = deep.pop()
            if depth > _DEEPEST:
                raise IntegrityError(f"graphs lie in graphs more than {_DEEPEST} deep")
            for _, node in only(data, {field}):
                if not isinstance(node, memoryview):
                    raise IntegrityError("a node of the graph is a number")
                self._nodes += 1
                self._limits.check("nodes", self._nodes, "an ONNX graph has too many nodes")
                deep += [(inner, 1, depth + 1) for inner in self._look_at(Message(node))]

    def _look_at(self, node: Message) -> Iterator[memoryview]:
        """Count an operator and gather tensors in its attributes; gives the graphs in them."""
        operator = (node.text(7), node.text(4))
        self.used.add(operator)
        self.operators[_qualified(operator)] += 1
        for attribute in node.messages(5):
            for view in (*attribute.views(5), *attribute.views(10)):
                self._look_at_constant(Message(view), node.text(3))
            yield from (*attribute.views(6), *attribute.views(11))

    def _look_at_constant(self, tensor: Message, node: str) -> None:
        self._limits.check("constant", len(tensor.view(9)), f"a constant of node {node!r} is too large")
        if tensor.unsigned(14) == _EXTERNAL:
            self._place(tensor, node)

    def _add(self, message: Message) -> None:
        self._limits.check("tensors", len(self.tensors) + 1, "an ONNX model holds too many tensors")
        name = message.text(8)
        dtype, bits, field = _DTYPES.get(message.unsigned(2), ("unknown", 0, 0))
        shape = tuple(message.integers(1))
        if any(length < 0 for length in shape):
            raise IntegrityError(f"tensor {name!r} has a length below zero", found=list(shape))
        tensor = _Tensor(name, dtype, shape, bits, field, message, None)
        if message.unsigned(14) == _EXTERNAL:
            tensor = _Tensor(name, dtype, shape, bits, field, message, self._place(message, name))
        elif _lacks_numbers(tensor):
            told = f"{len(message.view(9)):,} bytes for {dtype} {list(shape)}"
            self.problems.append(Problem("damaged", told, name))
        self.tensors.append(ForeignTensor(name, dtype, shape, tensor.nbytes, partial(_array, tensor)))

    # --- files beside

    def _place(self, tensor: Message, name: str) -> memoryview | None:
        """The bytes of a tensor in a file beside; None, with a problem, where they cannot be had from there."""
        told = {entry.text(1): entry.text(2) for entry in tensor.messages(13)}
        location = told.get("location", "")
        if not _is_inside(location):
            message = f"weights of {name!r} in {location!r}, outside the model's folder"
            self.problems.append(Problem("onnx-external-data", message, name))
            return None
        file = self._file(location, name)
        if file is None:
            return None
        offset, length = _number(told, "offset", 0), _number(told, "length", -1)
        if offset + max(length, 0) > file.size:
            self.problems.append(Problem("damaged", f"its bytes reach beyond {location!r}", name))
            return None
        return file.view(offset, file.size - offset if length < 0 else length)

    def _file(self, location: str, name: str) -> MappedFile | None:
        if location not in self._files:
            self._files[location] = None
            try:
                self._files[location] = file = _open_beside(self._folder, location)
            except UnsafeContent as error:
                self.problems.append(Problem("onnx-external-data", f"weights of {name!r}: {error.what}", name))
            except ModelkeepError as error:
                self.problems.append(Problem("damaged", f"weights of {name!r}: {error.what}", name))
            else:
                self._stack.callback(file.close)
                self.beside[location] = file.size
                self._limits.check("file", sum(self.beside.values()), "the files beside an ONNX model are too large")
        return self._files[location]


def _is_inside(location: str) -> bool:
    windows = PureWindowsPath(location)
    parts = {*PurePosixPath(location).parts, *windows.parts}
    return (
        bool(location)
        and "\0" not in location
        and not location.startswith("/")
        and not (windows.drive or windows.root or ".." in parts)
    )


def _open_beside(folder: Path, location: str) -> MappedFile:
    """A file below the model's folder. Raises UnsafeContent where any part of the way is a link."""
    *folders, name = PurePosixPath(location).parts
    for part in folders:
        folder = folder / part
        if folder.is_symlink():
            raise UnsafeContent(f"{part!r} on the way to them is a link")
    return MappedFile(folder / name)


def _number(told: Mapping[str, str], key: str, default: int) -> int:
    text = told.get(key, str(default))
    if key in told and (not text.isdecimal() or len(text) > 20):
        raise IntegrityError(f"the {key} of weights in a file beside is no count of bytes", found=repr(text[:40]))
    return int(text)


# --- tensors


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    bits: int
    field: int
    message: Message
    beside: memoryview | None

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers; those of less than a byte share one."""
        return (math.prod(self.shape) * self.bits + 7) // 8


def _lacks_numbers(tensor: _Tensor) -> bool:
    """Whether a tensor inside the model has not the numbers of its shape, of which at most two share a byte."""
    if 9 in tensor.message:
        return len(tensor.message.view(9)) != tensor.nbytes
    return math.prod(tensor.shape) > 2 * len(tensor.message.data)


def _array(tensor: _Tensor) -> Array:
    import ml_dtypes
    import numpy as np

    if tensor.bits < 8 or (tensor.message.unsigned(14) == _EXTERNAL and tensor.beside is None):
        raise IntegrityError(f"the numbers of {tensor.name} cannot be read", found=tensor.dtype)
    dtype = np.dtype(getattr(ml_dtypes, tensor.dtype, tensor.dtype))
    raw = tensor.beside if tensor.beside is not None else tensor.message.view(9)
    if not raw:
        raw = _numbers(tensor, dtype)
    if len(raw) != tensor.nbytes:
        raise IntegrityError(f"{tensor.name} is incomplete", found=f"{len(raw):,} bytes", expected=f"{tensor.nbytes:,}")
    return np.frombuffer(raw, dtype).reshape(tensor.shape)


def _numbers(tensor: _Tensor, dtype: np.dtype[Any]) -> memoryview:
    """Numbers that lie in a field of their kind; those of 16 bits and fewer are the bits of an int32 each."""
    import numpy as np

    message, field = tensor.message, tensor.field
    if field in (4, 10):
        return memoryview(message.fixed(field, "f" if field == 4 else "d").tobytes())
    found = np.array(message.integers(field), np.int64)
    bits = found.astype(f"u{dtype.itemsize}") if field == 5 else found.astype(dtype)
    return memoryview(bits.tobytes())


# --- the signature


def _signature(graph: Message) -> Signature:
    """Inputs and outputs; in old files weights are among the inputs, too."""
    initialized = {Message(view).text(8) for view in graph.views(5)}
    inputs = tuple(_spec(value) for value in graph.messages(11))
    return Signature(
        inputs=tuple(spec for spec in inputs if spec.name not in initialized),
        outputs=tuple(_spec(value) for value in graph.messages(12)),
    )


def _spec(value: Message) -> TensorSpec:
    tensor = value.message(2).message(1)
    dtype = _DTYPES.get(tensor.unsigned(1), ("unknown", 0, 0))[0]
    shape = None
    if 2 in tensor:
        lengths = tensor.message(2).messages(1)
        shape = tuple(signed(one.unsigned(1)) if 1 in one else None for one in lengths)
    return TensorSpec(name=value.text(1), shape=shape, dtype=dtype)


FORM = Form(
    names=("onnx",),
    title="ONNX model (.onnx)",
    endings=(".onnx",),
    holds=frozenset({"servable"}),
    recognise=recognise,
    read=read,
)
