"""A pickle run as far as data go: its opcodes are followed, and nothing that it names is imported or called.

Where unpickling would look a name up there is a ``Global`` here, and where it would call one a ``Made``. The
opcodes are those of ``pickletools``; what each does to the stack is in its documentation there.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple, Protocol

from modelkeep.errors import LimitExceeded
from modelkeep.formats.limits import MIB, Limits

_LINE = MIB  # bytes; no name or number is longer
_CHUNK = 64 * 1024  # bytes that are read at once
_AHEAD = MIB  # bytes of an array's values that are tried as opcodes


class Stream(Protocol):
    """What a pickle is read from: forwards, and forwards only."""

    def read(self, size: int, /) -> bytes:
        """As many bytes as there are, up to ``size``."""


class Global(NamedTuple):
    """A class or function that a pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Made:
    """What a call would give, and what would then be put into it."""

    of: Any  # a Global, where the pickle is an honest one
    arguments: Any = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A value that only the program that unpickles would know."""

    why: str


@dataclass(slots=True)
class Followed:
    """One pickle, followed to its end: what it gives, and all that it names on the way."""

    value: Any = None
    protocol: int = 0
    opcodes: int = 0
    globals: dict[Global, int] = field(default_factory=dict)  # and how often each is called
    unresolved: list[str] = field(default_factory=list)
    persistent: list[Any] = field(default_factory=list)  # ids that the reading program must resolve
    broken: str | None = None


class _Mark:
    pass


_MARK = _Mark()


class _Long(bytes):
    """Bytes that were passed over: only their number is known."""

    length = 0

    def __len__(self) -> int:
        return self.length


class Source:
    """A stream that counts, passes over what is large, and ends at a limit."""

    def __init__(self, stream: Stream, most: int) -> None:
        self._stream = stream
        self._most = most
        self._data, self._at = b"", 0
        self.position = 0

    def tell(self) -> int:
        """Bytes read so far."""
        return self.position

    def peek(self, size: int) -> bytes:
        """The next bytes, which stay."""
        while (there := len(self._data) - self._at) < size:
            if not (more := self._stream.read(max(_CHUNK, size - there))):
                break
            self._data, self._at = self._data[self._at :] + more, 0
        return self._data[self._at : self._at + size]

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes, or what is left; more than 1 MiB of them are passed over."""
        if size > MIB:
            long = _Long()
            long.length = self.skip(size)
            return long
        if len(self._data) - self._at < size:
            self.peek(size)
        return self._taken(self._data[self._at : self._at + size])

    def readline(self) -> bytes:
        """A line, cut off where it is longer than any name."""
        self.peek(1)
        if (end := self._data.find(b"\n", self._at)) < 0:
            self.peek(_LINE)
            end = self._data.find(b"\n", self._at)
        return self._taken(self._data[self._at : end + 1 if end >= 0 else self._at + _LINE])

    def _taken(self, data: bytes) -> bytes:
        self._at += len(data)
        self.position += len(data)
        if self.position > self._most:
            raise LimitExceeded(
                "the pickle unpacks to too much",
                expected=f"at most {self._most:,} bytes",
                hint="where the file can be trusted, raise the limit 'expansion_ratio'",
            )
        return data

    def skip(self, size: int) -> int:
        """Pass over bytes; how many there were."""
        left = size
        while left and (data := self.read(min(left, MIB))):
            left -= len(data)
        return size - left


def follow(source: Source, limits: Limits, *, joblib: bool = True) -> Followed:
    """Follow one pickle to its STOP, or to where it breaks. Raises LimitExceeded.

    ``joblib``: after an array's wrapper its values follow in the stream, as joblib writes them.
    """
    return _followed(_Machine(source, limits, joblib))


def _followed(machine: _Machine) -> Followed:
    try:
        machine.run()
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        machine.result.broken = f"{type(error).__name__}: {str(error)[:200]}"
    return machine.result


class _Machine:
    def __init__(self, source: Source, limits: Limits, joblib: bool) -> None:
        self.result = Followed()
        self._source = source
        self._limits = limits
        self._joblib = joblib
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> None:
        for opcode, argument, _ in pickletools.genops(self._source):  # type: ignore[arg-type]
            self.result.opcodes += 1
            if self.result.opcodes > self._limits.opcodes:
                self._limits.check("opcodes", self.result.opcodes, "the pickle has too many opcodes")
            self._step(opcode.name, argument)

    def _step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        else:
            getattr(self, _METHODS[name])(argument)

    # --- the stack and the memo

    def _proto(self, argument: int) -> None:
        self.result.protocol = max(self.result.protocol, argument)

    def _frame(self, _: Any) -> None:
        pass

    def _stop(self, _: Any) -> None:
        self.result.value = self._stack.pop()
        if self._stack or self.result.value is _MARK:
            raise ValueError("it stops in the midst of a value")

    def _mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def _pop(self, _: Any) -> None:
        self._stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _since_mark(self) -> list[Any]:
        for index in range(len(self._stack) - 1, -1, -1):
            if self._stack[index] is _MARK:
                values = self._stack[index + 1 :]
                del self._stack[index:]
                return values
        raise IndexError("no mark")

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    _binget = _long_binget = _get

    # --- containers

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._since_mark()))

    def _tuple1(self, _: Any) -> None:
        self._last_as_tuple(1)

    def _tuple2(self, _: Any) -> None:
        self._last_as_tuple(2)

    def _tuple3(self, _: Any) -> None:
        self._last_as_tuple(3)

    def _last_as_tuple(self, count: int) -> None:
        values = tuple(self._stack.pop() for _ in range(count))
        self._stack.append(values[::-1])

    def _list(self, _: Any) -> None:
        self._stack.append(self._since_mark())

    def _frozenset(self, _: Any) -> None:
        self._stack.append(self._since_mark())

    def _dict(self, _: Any) -> None:
        values = self._since_mark()
        self._stack.append(_pairs(values))

    def _append(self, _: Any) -> None:
        value = self._stack.pop()
        _elements(self._stack[-1]).append(value)

    def _appends(self, _: Any) -> None:
        values = self._since_mark()
        _elements(self._stack[-1]).extend(values)

    _additems = _appends

    def _setitem(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        _items(self._stack[-1]).update(_pairs([key, value]))

    def _setitems(self, _: Any) -> None:
        values = self._since_mark()
        _items(self._stack[-1]).update(_pairs(values))

    # --- names and calls

    def _global(self, argument: str) -> None:
        # Module and name come joined by a space; where there are more, nobody knows which is which.
        module, _, name = argument.partition(" ")
        self._name(module, name)

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._name(module, name)

    def _name(self, module: Any, name: Any) -> None:
        if type(module) is str and type(name) is str and " " not in name:
            found = Global(module, name)
            self.result.globals.setdefault(found, 0)
            self._stack.append(found)
        else:
            self._unresolved("a name that is made while it is read")

    def _unresolved(self, why: str) -> None:
        self.result.unresolved.append(why)
        self._stack.append(Unresolved(why))

    def _called(self, of: Any, arguments: Any) -> None:
        if isinstance(of, Global):
            self.result.globals[of] += 1
        else:
            self.result.unresolved.append("a call of what another call gave")
        self._stack.append(Made(of, arguments))

    def _reduce(self, _: Any) -> None:
        arguments, of = self._stack.pop(), self._stack.pop()
        self._called(of, arguments)

    _newobj = _reduce

    def _newobj_ex(self, _: Any) -> None:
        named, arguments, of = self._stack.pop(), self._stack.pop(), self._stack.pop()
        self._called(of, (arguments, named))

    def _inst(self, argument: str) -> None:
        arguments = self._since_mark()
        self._global(argument)
        self._called(self._stack.pop(), tuple(arguments))

    def _obj(self, _: Any) -> None:
        of, *arguments = self._since_mark()
        self._called(of, tuple(arguments))

    def _build(self, _: Any) -> None:
        state = self._stack.pop()
        made = self._stack[-1]
        if not isinstance(made, Made):
            self.result.unresolved.append("a state put into what was not made here")
            return
        made.state = state
        if self._joblib and _is_wrapper(made):
            self._values_of(made)

    # --- what is not in the pickle

    def _persid(self, argument: Any) -> None:
        self.result.persistent.append(argument)
        # PyTorch's id of a class is a tuple with the class itself in it.
        is_class = isinstance(argument, tuple) and argument[:1] == ("module",) and isinstance(argument[1], Global)
        self._stack.append(argument[1] if is_class else Unresolved("a persistent id"))

    def _binpersid(self, _: Any) -> None:
        self._persid(self._stack.pop())

    def _ext1(self, _: Any) -> None:
        self._unresolved("a name from the extension registry")

    _ext2 = _ext4 = _ext1

    def _next_buffer(self, _: Any) -> None:
        self._unresolved("a buffer from outside")

    def _readonly_buffer(self, _: Any) -> None:
        pass

    # --- joblib

    def _values_of(self, wrapper: Made) -> None:
        """The values of an array that lie behind its wrapper: raw, or another pickle where they are objects."""
        state = wrapper.state
        if not isinstance(state, dict):
            raise TypeError("an array's wrapper without a state")
        kind, size = _dtype(state["dtype"])
        if kind == "O":
            self._add(follow(self._source, self._limits, joblib=False))
            return
        self._try_as_opcodes()
        if state.get("numpy_array_alignment_bytes") is not None:
            padding = self._source.read(1)
            self._source.skip(padding[0])
        size *= prod(_length(length) for length in state["shape"])
        if self._source.skip(size) < size:
            raise ValueError("an array is cut off")

    def _try_as_opcodes(self) -> None:
        """What a program finds here that is not joblib: it takes the values for opcodes, and calls what they name."""
        ahead = self._source.peek(_AHEAD)
        if ahead[:1] not in _CODES:
            return  # so it breaks off
        other = _Machine(Source(io.BytesIO(ahead), len(ahead)), self._limits, joblib=False)
        other._stack, other._memo = list(self._stack), dict(self._memo)
        found = _followed(other)
        if found.broken is None or (len(ahead) == _AHEAD and _ran_out(found.broken)):
            found.unresolved.append("an array whose values are opcodes, too")
        found.broken = None
        self._add(found)

    def _add(self, inner: Followed) -> None:
        for name, calls in inner.globals.items():
            self.result.globals[name] = self.result.globals.get(name, 0) + calls
        self.result.unresolved += inner.unresolved
        self.result.persistent += inner.persistent
        self.result.opcodes += inner.opcodes
        if inner.broken:
            raise ValueError(inner.broken)


_METHODS = {opcode.name: f"_{opcode.name.lower()}" for opcode in pickletools.opcodes}
_CODES = frozenset(opcode.code.encode("latin-1") for opcode in pickletools.opcodes)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": list}
_LITERALS = frozenset(
    opcode.name
    for opcode in pickletools.opcodes
    if opcode.arg is not None
    and not opcode.stack_before
    and [str(value) for value in opcode.stack_after] not in (["any"], [])
)


def _pairs(values: list[Any]) -> dict[Any, Any]:
    """Keys and values in turn as a mapping. Keys of no simple kind are kept by identity: hashing them could recurse."""
    if len(values) % 2:
        raise ValueError("a key without a value")
    keys = (key if isinstance(key, str | int | float | bytes | None) else _Key(key) for key in values[::2])
    return dict(zip(keys, values[1::2], strict=True))


class _Key:
    def __init__(self, value: Any) -> None:
        self.value = value


def _items(holder: Any) -> dict[Any, Any]:
    if isinstance(holder, Made):
        return holder.items
    if isinstance(holder, dict):
        return holder
    raise TypeError(f"items put into a {type(holder).__name__}")


def _elements(holder: Any) -> list[Any]:
    if isinstance(holder, Made):
        return holder.elements
    if isinstance(holder, list):
        return holder
    raise TypeError(f"elements put into a {type(holder).__name__}")


def _is_wrapper(made: Made) -> bool:
    of = made.of
    if isinstance(of, Global) and of.name in ("_reconstructor", "__newobj__") and isinstance(made.arguments, tuple):
        of = made.arguments[0]
    return isinstance(of, Global) and of.name == "NumpyArrayWrapper" and of.module.endswith("joblib.numpy_pickle")


def _dtype(made: Any) -> tuple[str, int]:
    """Kind and bytes of a dtype as NumPy pickles it: ``dtype("f8", …)``, or ``V16`` with its size in the state."""
    code = made.arguments[0]
    kind, digits = code[0], code[1:]
    if isinstance(made.state, tuple) and len(made.state) > 5 and kind in "SUV":
        return kind, _length(made.state[5])
    return kind, int(digits)


def _length(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError("a length that is none")
    return value


def begins(head: bytes, limits: Limits) -> bool:
    """Whether bytes are the beginning of a pickle.

    From protocol 2 on it says so. Before, there is no sign but that the opcodes make sense: at least as far as
    the head goes, or to a STOP.
    """
    if len(head) >= 2 and head[0] == 0x80:
        return 2 <= head[1] <= 5
    if not head[:1] or head[0] not in b"(cilp]})IFLNSVKMJTUXG":
        return False
    found = follow(Source(io.BytesIO(head), len(head)), limits)
    return found.opcodes >= 2 and (found.broken is None or _ran_out(found.broken))


def _ran_out(broken: str) -> bool:
    return any(words in broken for words in ("pickle exhausted", "not enough data", "no newline", "expected "))


def pickles(source: Source, limits: Limits) -> Iterator[Followed]:
    """Every pickle in a stream, one behind the other, up to what is none."""
    while True:
        found = follow(source, limits)
        yield found
        if found.broken or not begins(source.peek(2), limits):
            return
