"""Assets: the parts of a version that are not the network, packed into parts and tensors and back.

==================  =====================================================  ================================
kind                from                                                   comes back as
==================  =====================================================  ================================
``keras-tokenizer``  Keras' legacy ``Tokenizer``, ``modelkeep.Tokenizer``   ``modelkeep.Tokenizer``
``hf-tokenizer``     ``tokenizers.Tokenizer``                               the same
``array``            NumPy arrays of numbers or booleans                    the same
``sklearn``          scikit-learn scalers, encoders, other estimators       the same
``text``             ``str``                                                the same
``json``             lists, mappings, numbers, booleans                     the same, tuples as lists
``file``             ``pathlib.Path``, :class:`File`                        :class:`File`
==================  =====================================================  ================================

Nothing is ever pickled or unpickled.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from modelkeep.assets import estimators, files
from modelkeep.assets.arrays import Array
from modelkeep.assets.codec import Codec, Packed, Stored, extra
from modelkeep.assets.estimators import Estimator
from modelkeep.assets.files import File, PlainFile
from modelkeep.assets.hf_tokenizer import HuggingFaceTokenizer
from modelkeep.assets.keras_tokenizer import KerasTokenizer
from modelkeep.assets.values import MAX_VALUE, Json, Text
from modelkeep.errors import FormatTooNew, UnsafeContent, UsageError
from modelkeep.formats import strict_json
from modelkeep.manifest import Asset, Tensor
from modelkeep.pipeline import Tokenizer

__all__ = ["Codec", "File", "Packed", "Stored", "from_file", "pack", "unpack"]

# In this order: the first that accepts a value takes it.
_CODECS: tuple[Codec, ...] = (
    KerasTokenizer(),
    HuggingFaceTokenizer(),
    Array(),
    Estimator(),
    Text(),
    Json(),
    PlainFile(),
)
_BY_KIND = {codec.kind: codec for codec in _CODECS}
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")


def pack(name: str, value: Any) -> Packed:
    """The record, parts and arrays that keep ``value`` under ``name``.

    Raises UsageError for a name or value that cannot be kept (the message lists what can),
    MissingExtra where the value's library is not installed.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            "not an asset's name", found=repr(name)[:80], expected="up to 64 letters, digits, '.', '_', '-'"
        )
    codec = next((codec for codec in _CODECS if codec.accepts(value)), None)
    if codec is None:
        raise UsageError(
            f"the asset {name!r} is of no kind that can be kept",
            found="None" if value is None else f"{type(value).__module__}.{type(value).__qualname__}",
            expected="a Keras Tokenizer, a tokenizers.Tokenizer, a NumPy array, a scikit-learn scaler or encoder, "
            "text, a list or mapping of JSON values, or a pathlib.Path",
            hint="a function belongs into the pipeline: @modelkeep.steps.register('mypackage>name')",
        )
    try:
        return codec.pack(name, value)
    except UsageError as error:
        raise UsageError(
            f"the asset {name!r}: {error.what}", found=error.found, expected=error.expected, hint=error.hint
        ) from error


def unpack(
    asset: Asset,
    read_part: Callable[[str], bytes],
    read_tensor: Callable[[str], tuple[Tensor, memoryview]],
    *,
    trust: Sequence[str] = (),
) -> Any:
    """The value that ``asset`` records.

    ``trust`` names packages or types that a scikit-learn asset may hold beyond scikit-learn's own. Raises
    IntegrityError for bytes that are not of the recorded kind, UnsafeContent for types that are not
    trusted, MissingExtra, FormatTooNew for a kind that only a later modelkeep knows.
    """
    if asset.kind not in _BY_KIND:
        raise FormatTooNew(
            f"the asset {asset.name!r} is of a kind that this modelkeep does not know",
            found=repr(asset.kind)[:80],
            expected=", ".join(_BY_KIND),
            hint="pip install --upgrade modelkeep",
        )
    return _BY_KIND[asset.kind].unpack(Stored(asset, read_part, read_tensor, trust))


def from_file(name: str, path: str | os.PathLike[str]) -> Any:
    """The value in a file, for :func:`pack`: what ``--asset name=path`` means.

    By content and ending: Keras' or Hugging Face's tokenizer JSON, other ``.json`` (a list of words, say)
    as its value, ``.txt`` as text (one word a line is a vocabulary to the steps that use it), ``.npy`` as an
    array, ``.skops`` as its estimator, anything else as a :class:`File`.

    Raises NotFound, UsageError for a file that is not what its ending says, UnsafeContent for pickles and
    for arrays of objects.
    """
    file = files.read(path)
    files.refuse_pickle(file.data, str(path))
    reader = _READERS.get(Path(path).suffix.lower())
    if reader is None:
        return file
    try:
        return reader(file)
    except UsageError as error:
        raise UsageError(
            f"the asset {name!r}, {path}: {error.what}", found=error.found, expected=error.expected, hint=error.hint
        ) from error


def _from_json(file: File) -> Any:
    value = strict_json.parse(file.data, what="it", limit=MAX_VALUE)
    if isinstance(value, dict) and value.get("class_name") == "Tokenizer" and "config" in value:
        return Tokenizer.from_json(file.data)
    if isinstance(value, dict) and {"model", "added_tokens", "pre_tokenizer"} <= value.keys():
        tokenizers = extra("tokenizers", "tokenizers", file.name)
        try:
            return tokenizers.Tokenizer.from_str(file.data.decode())
        except Exception as error:  # the library raises plain Exception
            raise UsageError(f"no tokenizers.Tokenizer: {error}") from error
    return value


def _from_text(file: File) -> str:
    try:
        return file.data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"not UTF-8 text: {error}") from error


def _from_npy(file: File) -> Any:
    from numpy.lib import format as npy

    try:
        return npy.read_array(io.BytesIO(file.data), allow_pickle=False)
    except (ValueError, MemoryError) as error:
        if "allow_pickle" in str(error):
            raise UnsafeContent(
                f"{file.name} holds Python objects, which are pickled", hint="save it as numbers, or as JSON"
            ) from error
        raise UsageError(f"no NumPy array: {error}") from error


def _from_skops(file: File) -> Any:
    return estimators.read(file.data, file.name)


_READERS: dict[str, Callable[[File], Any]] = {
    ".json": _from_json,
    ".npy": _from_npy,
    ".skops": _from_skops,
    ".txt": _from_text,
}
