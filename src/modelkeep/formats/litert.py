"""LiteRT models, once TensorFlow Lite: ``.tflite``, a FlatBuffer.

Field numbers are those of tensorflow/compiler/mlir/lite/schema/schema.fbs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from modelkeep.errors import IntegrityError
from modelkeep.formats.contents import Contents, ForeignTensor, Problem
from modelkeep.formats.flatbuffers import Table, root
from modelkeep.formats.forms import Form, Place
from modelkeep.formats.limits import Limits
from modelkeep.formats.mapped import MappedFile
from modelkeep.manifest import Signature, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

MAGIC = b"TFL3"
FLEX = "Flex"  # how operators begin that TensorFlow itself runs
DEFAULT = "main"  # what the signature of a file without any is called

# TensorType → NumPy's or ml_dtypes' word, and bits of one number; of text and handles, 0.
_DTYPES = (
    ("float32", 32), ("float16", 16), ("int32", 32), ("uint8", 8), ("int64", 64), ("string", 0), ("bool", 8),
    ("int16", 16), ("complex64", 64), ("int8", 8), ("float64", 64), ("complex128", 128), ("uint64", 64),
    ("resource", 0), ("variant", 0), ("uint32", 32), ("uint16", 16), ("int4", 4), ("bfloat16", 16), ("int2", 2),
    ("uint4", 4), ("float8_e4m3fn", 8), ("float8_e5m2", 8),
)  # fmt: skip
_CUSTOM = 32  # BuiltinOperator

# BuiltinOperator, from 0.
_NAMES = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR
FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION
LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH
CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER
BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE
BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM
ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE
EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR
ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE
RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND
COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE
NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL
PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE
HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE
BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1
UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR
RIGHT_SHIFT STABLEHLO_LOGISTIC STABLEHLO_ADD STABLEHLO_DIVIDE STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE
STABLEHLO_CLAMP STABLEHLO_CONCATENATE STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE
STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL
STABLEHLO_FLOOR STABLEHLO_LOG STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER
STABLEHLO_RSQRT STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE
STABLEHLO_CONVERT STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA
STABLEHLO_DOT_GENERAL STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE STABLEHLO_GATHER STABLEHLO_TRANSPOSE
DILATE STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT
STABLEHLO_CASE
"""
_OPERATORS = tuple(_NAMES.split())


def recognise(place: Place) -> bool:
    """Whether a file has LiteRT's mark after its first offset."""
    return place.head[4:8] == MAGIC


@contextmanager
def read(place: Place, limits: Limits, thorough: bool) -> Iterator[Contents]:
    """Open a file; see :class:`modelkeep.formats.forms.Form`. There are no checksums to be ``thorough`` about."""
    limits.check("graph", place.size, f"{place.path.name} is too large")
    file = MappedFile(place.path)
    try:
        model = _Model(root(file.all()), limits)
        yield Contents(
            form="litert",
            path=place.path,
            size=file.size,
            writer={"producer": model.table.text(3)} if model.table.text(3) else {},
            tensors=tuple(model.constants()),
            signatures=model.signatures(),
            details={
                "schema": model.table.number(0, "I"),
                "ops": dict(sorted(model.operators().items())),
                "custom": sorted(model.custom),
                "metadata": [entry.text(0) for entry in model.table.tables(6)],
            },
            problems=tuple(model.problems()),
        )
    finally:
        file.close()


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    spec: TensorSpec
    bits: int
    buffer: int


class _Model:
    """A model's tables, within limits. Raises IntegrityError for indexes that lead nowhere, LimitExceeded."""

    def __init__(self, table: Table, limits: Limits) -> None:
        self.table = table
        codes = _some(table, 1, "functions", limits)
        self._codes = [_operator(code) for code in codes]
        self.custom = {code.text(1) for code in codes if _number(code) == _CUSTOM}
        self._graphs = _some(table, 2, "functions", limits)
        self._buffers = _some(table, 4, "tensors", limits)
        if not self._graphs:
            raise IntegrityError("a LiteRT model without a graph")
        for number, graph in enumerate(self._graphs):
            limits.check("nodes", graph.count(3), f"graph {number} has too many operators")
        self._tensors = [[_tensor(tensor) for tensor in _some(graph, 0, "tensors", limits)] for graph in self._graphs]

    def operators(self) -> Counter[str]:
        """How often each operator is used, in all graphs. Custom ones by the name they are registered under."""
        return Counter(
            _at(self._codes, operator.number(0, "I"), "an operator")
            for graph in self._graphs
            for operator in graph.tables(3)
        )

    def signatures(self) -> dict[str, Signature]:
        """The signatures, or the inputs and outputs of the first graph where there are none."""
        found = {}
        for signature in self.table.tables(7):
            tensors = _at(self._tensors, signature.number(4, "I"), "a signature's graph")
            found[signature.text(2)] = Signature(
                inputs=_named(signature.tables(0), tensors), outputs=_named(signature.tables(1), tensors)
            )
        graph, tensors = self._graphs[0], self._tensors[0]
        return found or {
            DEFAULT: Signature(
                inputs=tuple(_at(tensors, index, "an input").spec for index in graph.numbers(1, "i")),
                outputs=tuple(_at(tensors, index, "an output").spec for index in graph.numbers(2, "i")),
            )
        }

    def constants(self) -> Iterator[ForeignTensor]:
        """The tensors whose numbers lie in the file."""
        for tensor in (tensor for graph in self._tensors for tensor in graph):
            data = self._data(_at(self._buffers, tensor.buffer, f"tensor {tensor.name!r}"))
            if len(data) and tensor.bits:
                yield ForeignTensor(
                    name=tensor.name,
                    dtype=tensor.spec.dtype,
                    shape=tensor.shape,
                    nbytes=len(data),
                    read=partial(_read, tensor, data),
                )

    def problems(self) -> Iterator[Problem]:
        """Operators on tensors that are not there, numbers that do not fill their shape, files outside."""
        for graph, tensors in zip(self._graphs, self._tensors, strict=True):
            for number, operator in enumerate(graph.tables(3)):
                ends = (*operator.numbers(1, "i"), *operator.numbers(2, "i"))
                if ends and (min(ends) < -1 or max(ends) >= len(tensors)):  # -1: an input that is left out
                    message = f"operator {number} works on tensor {max(ends, key=abs)} of {len(tensors)}"
                    yield Problem("damaged", message, f"operator {number}")
        for tensor in self.constants():
            bits = dict(_DTYPES)[tensor.dtype] * math.prod(tensor.shape)
            if tensor.nbytes != (bits + 7) // 8:
                message = f"{tensor.nbytes:,} bytes for {tensor.dtype} {list(tensor.shape)}"
                yield Problem("damaged", message, tensor.name)
        for group in self.table.tables(8):
            yield Problem("litert-external-data", f"weights in another file, {group.text(0)!r}", group.text(0))

    def _data(self, buffer: Table) -> memoryview:
        """A buffer's bytes: inside the FlatBuffer, or behind it in the file where that is larger than 2 GiB."""
        offset, size = buffer.number(1, "Q"), buffer.number(2, "Q")
        if offset <= 1:
            return buffer.bytes(0)
        if offset + size > len(self.table.data):
            raise IntegrityError("a buffer reaches beyond the file", found=f"{size:,} bytes at byte {offset:,}")
        return self.table.data[offset : offset + size]


def _some(table: Table, field: int, limit: str, limits: Limits) -> list[Table]:
    limits.check(limit, table.count(field), "a LiteRT model has too many parts")
    return list(table.tables(field))


def _at(things: Sequence[Any], index: int, what: str) -> Any:
    if not 0 <= index < len(things):
        raise IntegrityError(f"{what} is not there", found=f"number {index} of {len(things)}")
    return things[index]


def _number(code: Table) -> int:
    # Numbers beyond a byte are in a later field; the earlier has a placeholder then.
    return max(code.number(0, "b"), code.number(3, "i"))


def _operator(code: Table) -> str:
    number = _number(code)
    if number == _CUSTOM:
        return code.text(1)
    return _OPERATORS[number] if 0 <= number < len(_OPERATORS) else f"operator {number}"


def _tensor(table: Table) -> _Tensor:
    name, kind = table.text(3), table.number(1, "b")
    dtype, bits = _DTYPES[kind] if 0 <= kind < len(_DTYPES) else ("unknown", 0)
    shape = table.numbers(0, "i")
    if any(length < 0 for length in shape):
        raise IntegrityError(f"tensor {name!r} has a length below zero", found=list(shape))
    # The shape has 1 where the length is unknown; the signature of the shape has -1 there.
    told = table.numbers(7, "i") or shape
    lengths = tuple(None if length < 0 else length for length in told)
    return _Tensor(name, shape, TensorSpec(name=name, shape=lengths, dtype=dtype), bits, table.number(2, "I"))


def _named(maps: Iterator[Table], tensors: Sequence[_Tensor]) -> tuple[TensorSpec, ...]:
    return tuple(
        replace(_at(tensors, entry.number(1, "I"), "a tensor of a signature").spec, name=entry.text(0))
        for entry in maps
    )


def _read(tensor: _Tensor, data: memoryview) -> Array:
    import ml_dtypes
    import numpy as np

    if tensor.bits < 8:
        raise IntegrityError(f"{tensor.name} holds {tensor.spec.dtype}, of which several share a byte")
    word = tensor.spec.dtype
    return np.frombuffer(data, np.dtype(getattr(ml_dtypes, word, word))).reshape(tensor.shape)


FORM = Form(
    names=("litert",),
    title="LiteRT model (.tflite)",
    endings=(".tflite", ".lite"),
    holds=frozenset({"servable"}),
    recognise=recognise,
    read=read,
)
