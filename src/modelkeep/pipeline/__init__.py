"""The declared way from raw input to the network's input, and from its output to the answer: data, not code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import msgspec

from modelkeep.errors import FormatTooNew, LimitExceeded, ModelkeepError, UsageError
from modelkeep.formats import strict_json
from modelkeep.manifest import canonical_json
from modelkeep.pipeline.steps import Custom, InputStep, OutputStep, Step, numbers, require
from modelkeep.pipeline.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Pipeline", "Tokenizer"]

FORMAT = 1
MAX_JSON = 4 * 2**20  # bytes; label names of a thousand classes take about 20 kB

Steps: TypeAlias = Sequence[Step] | Mapping[str, Sequence[Step]]
"""One line of steps, or one for each input or output by its name."""


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    inputs: tuple[InputStep, ...] | dict[str, tuple[InputStep, ...]]
    outputs: tuple[OutputStep, ...] | dict[str, tuple[OutputStep, ...]]


class Pipeline(msgspec.Struct, frozen=True):
    """Steps for the input and steps for the output, each a list; or a mapping of lists, by input or output name.

    ``Pipeline([tokenize("tokenizer"), pad(100)], outputs=[labels(["negative", "positive"])])``

    Raises UsageError for a step in the wrong place, or one that is no step.
    """

    inputs: Steps
    outputs: Steps = ()

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "inputs", _line(self.inputs, get_args(InputStep), "inputs"))
        msgspec.structs.force_setattr(self, "outputs", _line(self.outputs, get_args(OutputStep), "outputs"))

    # --- running

    def prepare(self, raw: Any, assets: Mapping[str, Any]) -> np.ndarray[Any, Any] | dict[str, np.ndarray[Any, Any]]:
        """The network's input for a batch of raw items: an array, or a mapping of arrays for named inputs.

        ``raw`` is always a batch: a list or array with one row an item. For named inputs, a list of
        records (mappings) or one mapping of columns. Text that no step turned into numbers comes out as an
        array of Python strings, which Keras takes on TensorFlow. Pure: the same input, the same arrays.

        Raises UsageError, naming input, step, row and value, for raw input that does not fit;
        MissingCustomObjects for a step that is not registered.
        """
        self.check_steps()
        if not isinstance(self.inputs, Mapping):
            return _network_input(_run(self.inputs, _rows(raw), assets))
        columns = _columns(raw, tuple(self.inputs))
        return {
            name: _network_input(_run(line, columns[name], assets, f"input {name!r}, "), f"input {name!r}: ")
            for name, line in self.inputs.items()
        }

    def finish(self, outputs: Any, assets: Mapping[str, Any]) -> Any:
        """The answer to the network's output, in JSON values, one a row; a mapping of them for several outputs.

        Outputs that the network gives in a list are named ``"0"``, ``"1"``, and so on. Raises UsageError
        where the outputs do not fit the declared steps.
        """
        self.check_steps()
        if not self.outputs:
            return _plain(outputs)
        if not isinstance(self.outputs, Mapping):
            if not hasattr(outputs, "__array__"):
                raise UsageError(
                    "the pipeline's outputs are for a network with one output",
                    found=_kind(outputs),
                    expected="an array",
                    hint="for several write outputs={name: [steps], ...}",
                )
            return _plain(_run(self.outputs, outputs, assets))
        if isinstance(outputs, list | tuple):
            outputs = {str(place): output for place, output in enumerate(outputs)}
        if not isinstance(outputs, Mapping) or not self.outputs.keys() <= outputs.keys():
            raise UsageError(
                "the network does not give the outputs that the pipeline names",
                found=", ".join(outputs) if isinstance(outputs, Mapping) else type(outputs).__name__,
                expected=", ".join(self.outputs),
            )
        return {
            name: _plain(_run(self.outputs.get(name, ()), output, assets, f"output {name!r}, "))
            for name, output in outputs.items()
        }

    # --- checking

    def check_assets(self, assets: Iterable[str]) -> None:
        """Raise UsageError, naming those that exist, if a step uses an asset that is not among ``assets``."""
        known = sorted(assets)
        wanted = {name: step for step in self for name in step.assets()}
        for name in sorted(wanted.keys() - known):
            raise UsageError(
                f"the step {wanted[name].tag()} uses an asset {name!r} that is not there",
                found=", ".join(known) or "no assets",
                hint=f"save it along: keep.save(…, assets={{{name!r}: …}})",
            )

    def check_steps(self, trust: Sequence[str] = ()) -> None:
        """Raise MissingCustomObjects, naming all of them, if functions it needs are not registered.

        Modules of the packages in ``trust`` are imported first, where the steps say they were defined
        there; nothing else ever is.
        """
        require([step for step in self if isinstance(step, Custom)], trust)

    def __iter__(self) -> Iterator[Step]:
        for line in (self.inputs, self.outputs):
            for steps in line.values() if isinstance(line, Mapping) else (line,):
                yield from steps

    # --- as data

    def to_json(self) -> bytes:
        """Canonical JSON: the same pipeline gives the same bytes."""
        data = canonical_json({"format": FORMAT, "inputs": self.inputs, "outputs": self.outputs})
        if len(data) > MAX_JSON:
            raise LimitExceeded(
                "the pipeline is too large",
                found=f"{len(data)} bytes",
                expected=f"at most {MAX_JSON}",
                hint="keep long lists of names as an asset, and name it in the step",
            )
        return data

    @classmethod
    def from_json(cls, data: str | bytes) -> Pipeline:
        """Read what :meth:`to_json` wrote; steps of your own need not be registered for that.

        Raises LimitExceeded over ``MAX_JSON`` bytes, FormatTooNew for a later format, UsageError for
        anything else that is no pipeline: unknown steps or fields, values out of range.
        """
        document = strict_json.parse(data, what="the pipeline", limit=MAX_JSON)
        number = document.get("format") if isinstance(document, dict) else None
        if isinstance(number, int) and number > FORMAT:
            raise FormatTooNew.of("the pipeline", found=number, newest=FORMAT)
        try:
            read = msgspec.convert(document, _Document)
        except msgspec.ValidationError as error:
            raise UsageError(f"not a pipeline: {error}") from error
        return cls(read.inputs, read.outputs)


def _line(steps: Any, allowed: tuple[type[Step], ...], place: str) -> Steps:
    if isinstance(steps, Mapping):
        if not steps or not all(isinstance(name, str) for name in steps):
            raise UsageError(f"the pipeline's {place} need names", found=repr(list(steps))[:80], expected="text")
        return {name: _checked(line, allowed, f"{place}[{name!r}]") for name, line in steps.items()}
    return _checked(steps, allowed, place)


def _checked(steps: Any, allowed: tuple[type[Step], ...], place: str) -> tuple[Step, ...]:
    if not isinstance(steps, list | tuple):
        raise UsageError(f"the pipeline's {place} are not a list of steps", found=type(steps).__name__)
    for position, step in enumerate(steps):
        if not isinstance(step, allowed):
            raise UsageError(
                f"the pipeline's {place} cannot have that at position {position}",
                found=step.tag() if isinstance(step, Step) else repr(step)[:80],
                expected=", ".join(kind.tag() for kind in allowed),
                hint='a function of your own: @modelkeep.steps.register("mypackage>name"), then '
                'steps.custom("mypackage>name")',
            )
    return tuple(steps)


def _run(line: Sequence[Step], batch: Any, assets: Mapping[str, Any], place: str = "") -> Any:
    for position, step in enumerate(line, start=1):
        rows = len(batch)
        what = f"{place}step {position} ({step.tag()})"
        try:
            batch = step.apply(batch, assets)
        except UsageError as error:
            raise UsageError(
                f"{what}: {error.what}", found=error.found, expected=error.expected, hint=error.hint
            ) from error
        except ModelkeepError:
            raise
        except Exception as error:  # functions and assets are anybody's code
            raise UsageError(f"{what} failed: {type(error).__name__}: {error}") from error
        if not hasattr(batch, "__len__") or len(batch) != rows:
            found = len(batch) if hasattr(batch, "__len__") else type(batch).__name__
            raise UsageError(f"{what} changed the number of rows", found=found, expected=rows)
    return batch


def _rows(raw: Any) -> Any:
    """A batch, if ``raw`` is one: never a single text, whose letters would otherwise pass for rows."""
    if isinstance(raw, list | tuple):
        return raw
    if isinstance(raw, str | bytes | Mapping) or not hasattr(raw, "__array__"):
        raise UsageError(
            "a batch is a list or array with one row an item", found=_kind(raw), hint="for one item write [item]"
        )
    import numpy as np

    array = np.asarray(raw)
    if not array.ndim:
        raise UsageError("a batch is a list or array with one row an item", found="one number", hint="write [number]")
    return array


def _columns(raw: Any, names: Sequence[str]) -> dict[str, Any]:
    """Columns by input name, from columns or from records."""
    if isinstance(raw, Mapping):
        _check_names(raw, names, "the batch")
        columns = {name: _rows(raw[name]) for name in names}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise UsageError("the columns differ in length", found=lengths)
        return columns
    if not isinstance(raw, list | tuple):
        raise UsageError(
            "a batch for several inputs is a list of records or a mapping of columns",
            found=_kind(raw),
            expected=f"records or columns of {', '.join(names)}",
            hint="a DataFrame: frame.to_dict('list')",
        )
    for row, record in enumerate(raw):
        if not isinstance(record, Mapping):
            raise UsageError(f"row {row} is not a record", found=_kind(record), expected=f"{{{', '.join(names)}}}")
        _check_names(record, names, f"row {row}")
    return {name: [record[name] for record in raw] for name in names}


def _check_names(given: Mapping[str, Any], names: Sequence[str], what: str) -> None:
    if given.keys() != set(names):
        raise UsageError(
            f"{what} does not have the pipeline's inputs",
            found=", ".join(map(str, given)) or "nothing",
            expected=", ".join(names),
        )


def _network_input(batch: Any, place: str = "") -> np.ndarray[Any, Any]:
    import numpy as np

    try:
        if len(batch) and _is_text(batch):
            return np.asarray(batch).astype(object)  # the only form of text that Keras takes
        return numbers(batch)
    except UsageError as error:
        raise UsageError(f"{place}{error.what}", found=error.found, expected=error.expected, hint=error.hint) from error
    except ValueError as error:
        raise UsageError(f"{place}the rows have different numbers of texts") from error


def _is_text(batch: Any) -> bool:
    if getattr(getattr(batch, "dtype", None), "kind", "O") not in "OU":
        return False
    rows = batch.tolist() if hasattr(batch, "tolist") else batch
    return all(isinstance(row, str) or (isinstance(row, list | tuple) and bool(row) and _is_text(row)) for row in rows)


def _plain(answer: Any) -> Any:
    if isinstance(answer, Mapping):
        return {name: _plain(inner) for name, inner in answer.items()}
    if isinstance(answer, list | tuple):
        return [_plain(inner) for inner in answer]
    if hasattr(answer, "__array__"):
        return numbers(answer).tolist()
    return answer


def _kind(value: Any) -> str:
    return f"{repr(value)[:80]} ({type(value).__name__})"
