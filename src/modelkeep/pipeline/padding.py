"""Rows of different lengths made one length, as ``keras.utils.pad_sequences`` does, without Keras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from modelkeep.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

Side = Literal["pre", "post"]


def pad_sequences(
    sequences: Sequence[Sequence[Any]],
    maxlen: int | None = None,
    dtype: str = "int32",
    padding: Side = "pre",
    truncating: Side = "pre",
    value: float = 0.0,
) -> np.ndarray[Any, Any]:
    """An array of shape ``(len(sequences), maxlen, ...)``; the arguments and defaults are Keras' own.

    Shorter rows are filled with ``value`` and longer ones cut, both at the front (``"pre"``) unless
    ``"post"`` is said. Without ``maxlen`` the longest row decides. Raises UsageError, naming the row,
    where a row is not a sequence of numbers that ``dtype`` holds.
    """
    import numpy as np

    if maxlen is not None and maxlen < 1:
        raise UsageError("cannot pad to that length", found=maxlen, expected="1 or more")
    lengths = [_length(row, index) for index, row in enumerate(sequences)]
    length = max(lengths, default=0) if maxlen is None else maxlen
    # Rows may be of vectors: the first one that has any says of which shape.
    shape = next((np.shape(row)[1:] for row, size in zip(sequences, lengths, strict=True) if size), ())
    padded = np.full((len(lengths), length, *shape), value, dtype=dtype)
    for index, row in enumerate(sequences):
        if not lengths[index]:
            continue
        kept = _array(row[-length:] if truncating == "pre" else row[:length], dtype, index)
        if kept.shape[1:] != shape:
            raise UsageError(f"row {index} is of another shape", found=kept.shape[1:], expected=shape)
        if padding == "pre":
            padded[index, -len(kept) :] = kept
        else:
            padded[index, : len(kept)] = kept
    return padded


def _length(row: Any, index: int) -> int:
    if isinstance(row, str | bytes) or not hasattr(row, "__len__"):
        raise _not_numbers(row, index)
    return len(row)


def _array(row: Any, dtype: str, index: int) -> np.ndarray[Any, Any]:
    import numpy as np

    try:
        array = np.asarray(row, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise _not_numbers(row, index, f" that {dtype} holds") from error
    # Only floats hold what None quietly becomes.
    if array.dtype.kind == "f" and isinstance(row, list | tuple) and None in row:
        raise _not_numbers(row, index)
    return array


def _not_numbers(row: Any, index: int, which: str = "") -> UsageError:
    return UsageError(f"row {index} cannot be padded", found=repr(row)[:80], expected=f"a list of numbers{which}")
