"""The steps of a pipeline: small frozen values that say what is done, and do it.

Input steps take a batch (a list or array, one row an item) and give a batch of as many rows; output steps
take the network's output and end in lists of numbers, text and mappings. Each has ``apply(batch, assets)``,
a pure function; assets are named, never held. What no step here does, a function of your own does under a
registered name::

    @modelkeep.steps.register("mypackage>clean")
    def clean(batch, *, lower): ...

    modelkeep.Pipeline([modelkeep.steps.custom("mypackage>clean", lower=True), ...])

``steps.pad(100)`` and ``steps.Pad(100)`` are the same thing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import msgspec

from modelkeep.errors import MissingCustomObjects, UsageError
from modelkeep.formats import strict_json
from modelkeep.pipeline.padding import pad_sequences

if TYPE_CHECKING:
    import numpy as np

Batch = Any
"""A list or NumPy array; its first axis counts the rows."""

Dtype = Literal[
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"
]
Length = Annotated[int, msgspec.Meta(ge=1, le=2**24)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Names = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] | str


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="step"):
    """What every step has. Fields are checked when it is made: UsageError names the one that is wrong."""

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(type(self)):
            try:
                value = msgspec.convert(getattr(self, field.name), field.type)
            except msgspec.ValidationError as error:
                raise UsageError(f"{self.tag()}: {field.name} cannot be so: {error}") from error
            strict_json.check_plain(value)
            msgspec.structs.force_setattr(self, field.name, value)

    @classmethod
    def tag(cls) -> str:
        """The step's name in JSON and messages."""
        return str(cls.__struct_config__.tag)

    def assets(self) -> tuple[str, ...]:
        """The names of the assets it uses."""
        return ()

    def apply(self, batch: Batch, assets: Mapping[str, Any]) -> Batch:
        """The batch after this step. Raises UsageError, naming row and value, for a batch it cannot take."""
        raise NotImplementedError


class Tokenize(Step, frozen=True, tag="tokenize"):
    """Texts to lists of word numbers, by the asset: a Keras ``Tokenizer`` or a ``tokenizers.Tokenizer``."""

    asset: str

    def assets(self) -> tuple[str, ...]:
        """The tokenizer."""
        return (self.asset,)

    def apply(self, batch: Batch, assets: Mapping[str, Any]) -> list[list[int]]:
        """A list of integers for each text; texts split into words already are taken too."""
        tokenizer = assets[self.asset]
        texts = list(batch)
        for row, text in enumerate(texts):
            if not isinstance(text, str) and not _is_words(text):
                raise UsageError(
                    f"row {row} is not text", found=_shown(text), expected="text", hint="put '' where a text is missing"
                )
        if hasattr(tokenizer, "texts_to_sequences"):
            return tokenizer.texts_to_sequences(texts)  # type: ignore[no-any-return]
        if hasattr(tokenizer, "encode_batch"):
            split = bool(texts) and not isinstance(texts[0], str)
            return [encoding.ids for encoding in tokenizer.encode_batch(texts, is_pretokenized=split)]
        raise _unfit(self.asset, tokenizer, "a Keras Tokenizer or a tokenizers.Tokenizer")


class Pad(Step, frozen=True, tag="pad"):
    """Rows of any length to one length, as ``keras.utils.pad_sequences`` with its defaults.

    Without ``length`` the longest row of the batch decides. ``padding`` and ``truncating`` name the end
    that is filled or cut: ``"pre"``, Keras' default, is the front.
    """

    length: Length | None = None
    padding: Literal["pre", "post"] = "pre"
    truncating: Literal["pre", "post"] = "pre"
    value: int | float = 0
    dtype: Dtype = "int32"

    def apply(self, batch: Batch, assets: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        """An array of shape ``(rows, length, ...)``."""
        return pad_sequences(batch, self.length, self.dtype, self.padding, self.truncating, self.value)


class Lookup(Step, frozen=True, tag="lookup"):
    """Words to their place in a vocabulary: a list (or lines) of words, counted from 0, or a mapping to numbers.

    Words that are not in it become ``oov``; without ``oov`` they are refused.
    """

    asset: str
    oov: int | None = None

    def assets(self) -> tuple[str, ...]:
        """The vocabulary."""
        return (self.asset,)

    def apply(self, batch: Batch, assets: Mapping[str, Any]) -> list[Any]:
        """Integers, nested as the words were."""
        vocabulary = assets[self.asset]
        if not isinstance(vocabulary, Mapping):
            vocabulary = {word: place for place, word in enumerate(_words(self.asset, vocabulary))}
        rows = batch.tolist() if hasattr(batch, "tolist") else batch
        return [self._find(value, vocabulary, row) for row, value in enumerate(rows)]

    def _find(self, value: Any, vocabulary: Mapping[str, int], row: int) -> Any:
        if isinstance(value, list | tuple):
            return [self._find(inner, vocabulary, row) for inner in value]
        if not isinstance(value, str):
            raise UsageError(f"row {row} is not text", found=_shown(value), expected="a word to look up")
        found = vocabulary.get(value, self.oov)
        if found is None:
            raise UsageError(
                f"row {row} is not in {self.asset!r}",
                found=_shown(value),
                expected=f"one of {len(vocabulary)} words",
                hint=f"to allow unknown words give the number for them: steps.lookup({self.asset!r}, oov=0)",
            )
        return found


class Cast(Step, frozen=True, tag="cast"):
    """Numbers to another dtype. Whole numbers that it cannot hold are refused, fractions are cut off."""

    dtype: Dtype

    def apply(self, batch: Batch, assets: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        """An array of that dtype."""
        import numpy as np

        array = numbers(batch)
        target = np.dtype(self.dtype)
        if target.kind in "iu":
            held = (array >= np.iinfo(target).min) & (array <= np.iinfo(target).max)
            if not held.all():
                raise UsageError(f"a number does not fit {self.dtype}", found=array[~held].flat[0].item())
        return array.astype(target)


class Rescale(Step, frozen=True, tag="rescale"):
    """``batch * scale + offset`` in float32, as ``keras.layers.Rescaling``; either may be a list, one a column."""

    scale: float | tuple[float, ...]
    offset: float | tuple[float, ...] = 0.0

    def apply(self, batch: Batch, assets: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        """A float32 array of the same shape."""
        import numpy as np

        array = numbers(batch).astype(np.float32)
        return np.asarray(array * np.asarray(self.scale, np.float32) + np.asarray(self.offset, np.float32))


class Reshape(Step, frozen=True, tag="reshape"):
    """Every row to ``shape``, which leaves out the rows' axis, as ``keras.layers.Reshape``; one -1 is worked out."""

    shape: tuple[Annotated[int, msgspec.Meta(ge=-1, le=2**31)], ...]

    def apply(self, batch: Batch, assets: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        """An array of shape ``(rows, *shape)``."""
        array = numbers(batch)
        return array.reshape((len(array), *self.shape))


class Transform(Step, frozen=True, tag="transform"):
    """What a fitted scikit-learn scaler or encoder makes of the rows; ``inverse`` goes the other way.

    A plain list of values is one column to an asset that was fitted on columns.
    """

    asset: str
    inverse: bool = False

    def assets(self) -> tuple[str, ...]:
        """The scaler or encoder."""
        return (self.asset,)

    def apply(self, batch: Batch, assets: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        """An array as the asset gives it; sparse ones become dense."""
        import numpy as np

        fitted = assets[self.asset]
        transform = getattr(fitted, "inverse_transform" if self.inverse else "transform", None)
        if transform is None:
            raise _unfit(self.asset, fitted, "a fitted scikit-learn scaler or encoder")
        rows = np.asarray(batch)
        if rows.dtype.kind == "U":
            rows = np.asarray(batch, dtype=object)  # among texts NumPy has turned numbers into text too
        if rows.ndim == 1 and hasattr(fitted, "n_features_in_"):
            rows = rows[:, np.newaxis]
        result = transform(rows)
        return np.asarray(result.toarray() if hasattr(result, "toarray") else result)


class Custom(Step, frozen=True, tag="custom"):
    """A function under a registered name, called with the batch and ``config``. Make one with :func:`custom`."""

    name: str
    config: dict[str, Any] = {}
    defined: str | None = None  # "module:function", for whoever has to find it again

    def apply(self, batch: Batch, assets: Mapping[str, Any]) -> Batch:
        """What the function returns."""
        if self.name not in _registered:
            raise _missing([self])
        return _registered[self.name](batch, **self.config)


class Labels(Step, frozen=True, tag="labels"):
    """Scores, taken as probabilities, to label names: given here, or by an asset that lists them.

    - ``k`` scores a row and ``k`` names: ``{"label": …, "score": …}``, the highest one.
    - one score a row and two names (a sigmoid): the second name where the score is above ``threshold``
      (0.5), with the score; else the first, with ``1 - score``.
    - ``k`` scores and a ``threshold`` (several labels at once): a list of all above it, in order.

    An asset may be a list or lines of text, or have ``classes_`` as scikit-learn's label encoders do.
    Outputs with more axes, such as a label for each word, give lists nested alike.
    """

    names: Names
    threshold: float | None = None

    def assets(self) -> tuple[str, ...]:
        """The asset that lists the names, if one does."""
        return (self.names,) if isinstance(self.names, str) else ()

    def apply(self, batch: Batch, assets: Mapping[str, Any]) -> list[Any]:
        """One answer a row, as above. Raises UsageError where names and scores differ in number."""
        names = _label_names(self.names, assets)
        if len(names) == 1 and self.threshold is None:
            raise UsageError("one label name would be every row's answer", hint="give the other's too, or a threshold")
        return [self._answer(row, names) for row in _scores(batch, len(names))]

    def _answer(self, row: np.ndarray[Any, Any], names: Sequence[str]) -> Any:
        if row.ndim > 1:
            return [self._answer(inner, names) for inner in row]
        if len(row) == 1 and len(names) == 2:
            score = float(row[0])
            above = score > (0.5 if self.threshold is None else self.threshold)
            return {"label": names[above], "score": score if above else 1 - score}
        if self.threshold is not None:
            return [{"label": n, "score": float(s)} for n, s in zip(names, row, strict=True) if s > self.threshold]
        best = int(row.argmax())
        return {"label": names[best], "score": float(row[best])}


class Threshold(Step, frozen=True, tag="threshold"):
    """True where the score is above ``value``, as Keras' ``BinaryAccuracy`` counts.

    Outputs of one column give one boolean a row.
    """

    value: float = 0.5

    def apply(self, batch: Batch, assets: Mapping[str, Any]) -> list[Any]:
        """Booleans, nested as the scores are."""
        scores = _scores(batch)
        if scores.ndim > 1 and scores.shape[-1] == 1:
            scores = scores[..., 0]
        return (scores > self.value).tolist()  # type: ignore[no-any-return]


class TopK(Step, frozen=True, tag="top_k"):
    """The ``k`` highest scores of each row, best first: ``[{"label" or "index": …, "score": …}, …]``."""

    k: Count
    names: Names | None = None

    def assets(self) -> tuple[str, ...]:
        """The asset that lists the names, if one does."""
        return (self.names,) if isinstance(self.names, str) else ()

    def apply(self, batch: Batch, assets: Mapping[str, Any]) -> list[Any]:
        """A list a row; equal scores stay in their order."""
        names = None if self.names is None else _label_names(self.names, assets)
        return [self._answer(row, names) for row in _scores(batch, None if names is None else len(names))]

    def _answer(self, row: np.ndarray[Any, Any], names: Sequence[str] | None) -> list[Any]:
        import numpy as np

        if row.ndim > 1:
            return [self._answer(inner, names) for inner in row]
        if names is not None and len(row) == 1 and len(names) == 2:
            row = np.array([1 - row[0], row[0]])  # a sigmoid, as two scores
        best = np.argsort(-row, kind="stable")[: self.k].tolist()
        return [{**({"index": i} if names is None else {"label": names[i]}), "score": float(row[i])} for i in best]


InputStep = Tokenize | Pad | Lookup | Cast | Rescale | Reshape | Transform | Custom
OutputStep = Labels | Threshold | TopK | Cast | Rescale | Reshape | Transform | Custom

tokenize = Tokenize
pad = Pad
lookup = Lookup
cast = Cast
rescale = Rescale
reshape = Reshape
transform = Transform
labels = Labels
threshold = Threshold
top_k = TopK


# --- functions of your own

Function = TypeVar("Function", bound=Callable[..., Any])
_NAME = re.compile(r"[A-Za-z0-9_.-]+>[A-Za-z0-9_.-]+")
_registered: dict[str, Callable[..., Any]] = {}


def register(name: str) -> Callable[[Function], Function]:
    """Make a function ``(batch, **config) -> batch`` known as a step under ``"package>name"``.

    Register it where its module is imported: whoever loads the model imports that module first. Running
    the same definition again (in a notebook) replaces it; another function under a taken name raises
    UsageError.
    """
    if not _NAME.fullmatch(name):
        raise UsageError("not a step's name", found=repr(name)[:80], expected="package>name, such as mypackage>clean")

    def remember(function: Function) -> Function:
        earlier = _registered.get(name)
        if earlier is not None and _place(earlier) != _place(function):
            raise UsageError(
                f"a step {name!r} is registered already", found=_place(earlier), hint="choose another name"
            )
        _registered[name] = function
        return function

    return remember


def custom(name: str, /, **config: Any) -> Custom:
    """The step that calls the function registered under ``name`` with ``config``, which must be JSON values."""
    if name not in _registered:
        raise UsageError(
            f"no step {name!r} is registered",
            found=", ".join(sorted(_registered)) or "none",
            hint=f'write @modelkeep.steps.register("{name}") above its function, and import that module first',
        )
    return Custom(name, config, _place(_registered[name]))


def require(steps: Iterable[Custom], trust: Sequence[str] = ()) -> None:
    """Raise MissingCustomObjects, naming all of them, if functions that ``steps`` call are not registered.

    Modules of the packages in ``trust`` are imported first, where a step says it was defined there;
    nothing else ever is.
    """
    missing = [step for step in steps if step.name not in _registered]
    for module in sorted({_module(step) for step in missing}):
        if any(module == package or module.startswith(f"{package}.") for package in trust):
            import_module(module)
    missing = [step for step in missing if step.name not in _registered]
    if missing:
        raise _missing(missing)


def _missing(steps: Sequence[Custom]) -> MissingCustomObjects:
    lines = "".join(f"\n  - {step.name}, defined in {step.defined or 'an unknown place'}" for step in steps)
    modules = sorted({module for step in steps if (module := _module(step)) not in ("", "__main__")})
    define = [f'@modelkeep.steps.register("{s.name}")' for s in steps if _module(s) in ("", "__main__")]
    pastes = [f"import {module}" for module in modules] + [
        f"{line} above a function (batch, **config)" for line in define
    ]
    return MissingCustomObjects(
        f"the pipeline needs {len(steps)} step(s) that are not registered here{lines}",
        hint="before loading: " + "; ".join(pastes),
    )


def _module(step: Custom) -> str:
    return (step.defined or "").partition(":")[0]


def _place(function: Callable[..., Any]) -> str:
    return f"{function.__module__}:{function.__qualname__}"


# --- batches


def numbers(batch: Batch) -> np.ndarray[Any, Any]:
    """The batch as an array of booleans, integers or floats. Raises UsageError naming the row that is not."""
    import numpy as np

    try:
        array = np.asarray(batch)
    except ValueError:
        array = None
    if array is not None and array.dtype.kind in "biuf":
        return array
    if array is not None and array.dtype.name == "bfloat16":  # NumPy knows it only by extension
        return array.astype(np.float32)
    rows = list(batch)
    for row, value in enumerate(rows):
        if (odd := _odd(value)) is not None:
            raise UsageError(f"row {row} is not numbers", found=_shown(odd[0]), expected="numbers")
    lengths = {len(row) if hasattr(row, "__len__") else 0 for row in rows}
    raise UsageError("the rows differ in shape", found=f"lengths {sorted(lengths)[:9]}", hint="add steps.pad(length)")


def _odd(value: Any) -> tuple[Any] | None:
    """The first thing in ``value`` that is no number NumPy has, in a tuple because it may be None."""
    import numpy as np

    if isinstance(value, list | tuple):
        return next((odd for inner in value if (odd := _odd(inner)) is not None), None)
    return None if np.asarray(value).dtype.kind in "biuf" else (value,)


def _scores(outputs: Any, names: int | None = None) -> np.ndarray[Any, Any]:
    """The network's output as float64 of two axes or more, the last of ``names`` columns (or 1 for 2 names)."""
    import numpy as np

    scores = numbers(outputs).astype(np.float64)
    if names is not None and scores.ndim == 1:
        scores = scores[:, np.newaxis]
    nan = np.isnan(scores)
    if nan.any():
        raise UsageError(
            f"the network's answer for row {int(np.argwhere(nan)[0][0])} is not a number (NaN)",
            hint="look for missing or infinite values in that row of the input",
        )
    if names is not None and scores.shape[-1] != names and (scores.shape[-1], names) != (1, 2):
        raise UsageError(
            "label names and the network's outputs differ in number", found=scores.shape[-1], expected=names
        )
    return scores


def _label_names(names: tuple[str, ...] | str, assets: Mapping[str, Any]) -> Sequence[str]:
    if not isinstance(names, str):
        return names
    asset = assets[names]
    return [str(name) for name in asset.classes_] if hasattr(asset, "classes_") else _words(names, asset)


def _words(name: str, asset: Any) -> Sequence[str]:
    """A list of words, which text gives line by line."""
    if isinstance(asset, str):
        return asset.splitlines()
    if _is_words(asset):
        return asset  # type: ignore[no-any-return]
    raise _unfit(name, asset, "a list of text, or text with one a line")


def _is_words(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(word, str) for word in value)


def _unfit(name: str, asset: Any, expected: str) -> UsageError:
    return UsageError(f"the asset {name!r} does not fit this step", found=type(asset).__name__, expected=expected)


def _shown(value: Any) -> str:
    return f"{repr(value)[:80]} ({type(value).__name__})"
