"""OpenVINO IR: ``.xml`` with the graph and ``.bin`` beside it with its numbers; either the file or the folder of both.

The elements are those of https://docs.openvino.ai (IR format): a ``net`` of ``layers``, each with ports that have
names and lengths, and of ``edges`` between ports. A document type, which XML readers would follow to other files or
blow up, has no place in it and ends the reading.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.parsers import expat

from modelkeep.errors import IntegrityError, ModelkeepError, UnsafeContent
from modelkeep.formats.contents import Contents, ForeignTensor, Member, Problem
from modelkeep.formats.forms import Form, Place
from modelkeep.formats.limits import Limits
from modelkeep.formats.mapped import CHUNK, MappedFile
from modelkeep.manifest import Signature, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

DEFAULT = "main"  # what the only signature of a graph is called
_NET = re.compile(rb"\A(\xef\xbb\xbf)?\s*<(?s:.*?)<net[\s>]|\A\s*<net[\s>]")
_DEEPEST = 200  # elements within elements; bodies of loops nest eight each

# element_type and precision → NumPy's or ml_dtypes' word, and bits of one number.
_DTYPES = {
    "boolean": ("bool", 8), "f16": ("float16", 16), "f32": ("float32", 32), "f64": ("float64", 64),
    "bf16": ("bfloat16", 16), "i4": ("int4", 4), "i8": ("int8", 8), "i16": ("int16", 16), "i32": ("int32", 32),
    "i64": ("int64", 64), "u1": ("unknown", 1), "u4": ("uint4", 4), "u8": ("uint8", 8), "u16": ("uint16", 16),
    "u32": ("uint32", 32), "u64": ("uint64", 64), "f8e4m3": ("float8_e4m3fn", 8), "f8e5m2": ("float8_e5m2", 8),
    "string": ("string", 0),
}  # fmt: skip


def recognise(place: Place) -> bool:
    """Whether a file is XML with a ``net`` in it, or a folder holds one such file and its numbers."""
    if not place.is_folder:
        return _NET.match(place.head) is not None
    models = [name for name in place.names if name.endswith(".xml")]
    return len(models) == 1 and f"{models[0].removesuffix('.xml')}.bin" in place.names


@contextmanager
def read(place: Place, limits: Limits, thorough: bool) -> Iterator[Contents]:
    """Open a model; see :class:`modelkeep.formats.forms.Form`. There are no checksums to be ``thorough`` about."""
    path = place.path / next(name for name in place.names if name.endswith(".xml")) if place.is_folder else place.path
    with ExitStack() as stack:
        text = MappedFile(path)
        stack.callback(text.close)
        limits.check("graph", text.size, f"{path.name} is too large")
        net = _Net(limits)
        net.read(text)
        numbers, problems = _numbers(path.with_suffix(".bin"), stack)
        limits.check("file", text.size + len(numbers), f"{path.name} and its numbers are too large")
        constants = [one for one in net.constants() if not _missing(one, numbers)]
        problems += [_missing_of(one) for one in net.constants() if _missing(one, numbers)]
        yield Contents(
            form="openvino",
            path=place.path,
            size=text.size + len(numbers),
            tensors=tuple(one.tensor(numbers) for one in constants),
            signatures={DEFAULT: net.signature()},
            members=(Member(f"{path.stem}.bin", len(numbers)),) if numbers else (),
            details={"ir_version": net.version, "name": net.name, "ops": dict(sorted(net.operators.items()))},
            problems=tuple(problems),
        )


def _numbers(path: Path, stack: ExitStack) -> tuple[memoryview, list[Problem]]:
    try:
        file = MappedFile(path)
    except UnsafeContent as error:
        return memoryview(b""), [Problem("folder-special-file", error.what, path.name)]
    except ModelkeepError as error:
        return memoryview(b""), [Problem("damaged", error.what, path.name)]
    stack.callback(file.close)
    return file.all() if file.size else memoryview(b""), []


# --- the graph


@dataclass(slots=True)
class _Port:
    dtype: str
    names: tuple[str, ...]
    shape: list[int | None] = field(default_factory=list)


@dataclass(slots=True)
class _Layer:
    """A layer of the outermost graph, or a constant of any."""

    name: str
    kind: str
    data: Mapping[str, str] = field(default_factory=dict)
    outputs: dict[str, _Port] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a constant. Raises IntegrityError."""
        return tuple(_integer(length) for length in self.data.get("shape", "").split(",") if length.strip())

    @property
    def dtype(self) -> tuple[str, int]:
        """Of a constant: the word, and bits of one number."""
        return _DTYPES.get(self.data.get("element_type", ""), ("unknown", 0))

    @property
    def place(self) -> tuple[int, int]:
        """Of a constant: offset and bytes. Raises IntegrityError."""
        return _integer(self.data.get("offset", "")), _integer(self.data.get("size", ""))

    def tensor(self, numbers: memoryview) -> ForeignTensor:
        """A constant as a tensor."""
        (offset, size), (dtype, bits) = self.place, self.dtype
        data = numbers[offset : offset + size]
        return ForeignTensor(
            self.name, dtype, self.shape, size, partial(_array, self.name, dtype, bits, self.shape, data)
        )


class _Net:
    """What of the XML matters, gathered while it is parsed."""

    def __init__(self, limits: Limits) -> None:
        self.name = self.version = ""
        self.operators: Counter[str] = Counter()
        self._limits = limits
        self._path: list[str] = []
        self._elements = self._constants = 0
        self._layers: dict[str, _Layer] = {}  # of the outermost graph, by their id
        self._inner: list[_Layer] = []  # constants of graphs inside
        self._layer: _Layer | None = None
        self._port: _Port | None = None
        self._sources: dict[str, tuple[str, str]] = {}  # layer → layer and port that its first edge comes from

    def read(self, file: MappedFile) -> None:
        """Parse all of it. Raises UnsafeContent for a document type, IntegrityError, LimitExceeded."""
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = _refuse
        parser.buffer_text = True
        try:
            for at in range(0, file.size, CHUNK):
                parser.Parse(bytes(file.view(at, min(CHUNK, file.size - at))), False)
            parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise IntegrityError(f"{file.path.name} is no XML ({error})") from error

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        self._limits.check("nodes", self._elements, "an OpenVINO graph has too many elements")
        self._path.append(name)
        if len(self._path) > _DEEPEST:
            raise IntegrityError(f"elements lie in elements more than {_DEEPEST} deep")
        outermost = len(self._path) <= 6
        if name == "net" and len(self._path) == 1:
            self.name, self.version = attributes.get("name", ""), attributes.get("version", "")
        elif name == "layer":
            self._start_layer(attributes)
        elif name == "data" and self._layer is not None:
            self._layer.data = attributes
        elif name == "port" and self._path[-2] == "output" and self._layer is not None and outermost:
            names = tuple(filter(None, re.split(r"(?<!\\),", attributes.get("names", ""))))
            self._port = _Port(attributes.get("precision", "").lower(), names)
            self._layer.outputs[attributes.get("id", "")] = self._port
        elif name == "edge" and self._path[:-1] == ["net", "edges"]:
            self._sources.setdefault(
                attributes.get("to-layer", ""), (attributes.get("from-layer", ""), attributes.get("from-port", ""))
            )

    def _start_layer(self, attributes: dict[str, str]) -> None:
        kind, opset = attributes.get("type", ""), attributes.get("version", "")
        self.operators[kind if re.fullmatch(r"opset\d+|", opset) else f"{opset}:{kind}"] += 1
        self._layer = _Layer(attributes.get("name", ""), kind)
        if self._path == ["net", "layers", "layer"]:
            self._layers[attributes.get("id", "")] = self._layer
        elif kind == "Const":
            self._inner.append(self._layer)
        if kind == "Const":
            self._constants += 1
            self._limits.check("tensors", self._constants, "an OpenVINO model holds too many tensors")

    def _end(self, name: str) -> None:
        self._path.pop()
        if name == "port":
            self._port = None

    def _text(self, text: str) -> None:
        if self._port is not None and self._path[-1] == "dim":
            length = _integer(text.strip())
            self._port.shape.append(None if length < 0 else length)

    def constants(self) -> Iterator[_Layer]:
        """Those of all graphs whose numbers lie in the file beside."""
        for layer in (*self._layers.values(), *self._inner):
            if layer.kind == "Const" and "offset" in layer.data:
                yield layer

    def signature(self) -> Signature:
        """The parameters and results of the outermost graph, in their order."""
        inputs = [layer for layer in self._layers.values() if layer.kind == "Parameter"]
        results = [number for number, layer in self._layers.items() if layer.kind == "Result"]
        return Signature(
            inputs=tuple(_spec(layer, next(iter(layer.outputs.values()), None)) for layer in inputs),
            outputs=tuple(self._result(number) for number in results),
        )

    def _result(self, number: str) -> TensorSpec:
        source, port = self._sources.get(number, ("", ""))
        if source not in self._layers:
            raise IntegrityError("a result of the graph comes from nowhere", found=self._layers[number].name)
        layer = self._layers[source]
        return _spec(layer, layer.outputs.get(port))


def _spec(layer: _Layer, port: _Port | None) -> TensorSpec:
    if port is None:
        raise IntegrityError(f"{layer.name} has no such output")
    dtype = _DTYPES.get(_precision(port.dtype), ("unknown", 0))[0]
    return TensorSpec(name=min(port.names, default=layer.name), shape=tuple(port.shape), dtype=dtype)


def _precision(word: str) -> str:
    """``element_type``'s word for that of ``precision``: FP32 is f32."""
    return "boolean" if word == "bool" else word.replace("fp", "f")


def _refuse(name: str, *where: Any) -> None:
    raise UnsafeContent(f"a document type ({name}) in an OpenVINO model", found="openvino-doctype")


def _integer(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,18}", text.strip(), flags=re.ASCII):
        raise IntegrityError("an OpenVINO model has something else where a number belongs", found=repr(text[:40]))
    return int(text)


# --- numbers


def _missing(layer: _Layer, numbers: memoryview) -> bool:
    """Whether a constant's bytes are not all there, or are not what its shape needs."""
    (offset, size), (_, bits) = layer.place, layer.dtype
    needed = (math.prod(layer.shape) * bits + 7) // 8
    return offset < 0 or not 0 <= size <= len(numbers) - offset or bool(bits and size != needed)


def _missing_of(layer: _Layer) -> Problem:
    offset, size = layer.place
    message = f"{size:,} bytes at {offset:,} for {layer.data.get('element_type')} {list(layer.shape)}"
    return Problem("damaged", message, layer.name)


def _array(name: str, dtype: str, bits: int, shape: tuple[int, ...], data: memoryview) -> Array:
    import ml_dtypes
    import numpy as np

    if bits < 8:
        raise IntegrityError(f"the numbers of {name} cannot be read", found=dtype)
    return np.frombuffer(data, np.dtype(getattr(ml_dtypes, dtype, dtype))).reshape(shape)


FORM = Form(
    names=("openvino",),
    title="OpenVINO model (.xml and .bin)",
    endings=(".xml",),
    holds=frozenset({"servable"}),
    recognise=recognise,
    read=read,
)
