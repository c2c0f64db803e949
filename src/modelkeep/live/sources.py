"""The source text of a class or function: where it stands, what it says, and the digest of that.

Read from the files (or notebook cells) it was made from; nothing is imported or run.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
import textwrap
from dataclasses import dataclass
from pathlib import PurePath
from types import FunctionType
from typing import Any

from blake3 import blake3

# Classes from these are named by their packages' versions in the environment, not by their source.
_NOT_USER_CODE = frozenset(sys.stdlib_module_names | {"modelkeep", "keras", "tensorflow", "jax", "torch", "numpy"}) - {
    "__main__"
}


@dataclass(frozen=True, slots=True)
class Source:
    """The text of an object and of the user's classes it extends; ``text`` is None where it cannot be read.

    ``file`` is relative to the folder that holds the object's top package, so it names no machine.
    """

    text: str | None
    file: str | None
    line: int | None

    @property
    def digest(self) -> str | None:
        """``blake3:…`` of the UTF-8 text."""
        return None if self.text is None else f"blake3:{blake3(self.text.encode()).hexdigest()}"


def is_user_code(thing: Any) -> bool:
    """Whether a class or function was written outside Keras, its backends and the standard library."""
    module = getattr(thing, "__module__", None)
    return module is None or str(module).partition(".")[0] not in _NOT_USER_CODE


def source_of(thing: Any) -> Source:
    """Read the source of a class or function.

    A class' text includes that of the user's classes it extends: an edit there changes it too.
    """
    text, line = _read(thing)
    if text is not None and isinstance(thing, type):
        bases = [base for base in thing.__mro__[1:] if is_user_code(base)]
        texts = [text, *(_read(base)[0] or f"# no source: {base.__qualname__}\n" for base in bases)]
        text = "\n".join(texts)
    return Source(text, _file(thing), line)


def _read(thing: Any) -> tuple[str | None, int | None]:
    text, line = _read_around_method(thing) if isinstance(thing, type) else (None, None)
    if text is not None:
        return text, line
    try:
        lines, line = inspect.getsourcelines(thing)
    except (OSError, TypeError, IndentationError, SyntaxError):
        return None, None
    return textwrap.dedent("".join(lines)), line


def _read_around_method(cls: type) -> tuple[str | None, int | None]:
    """The class that one of its methods stands in.

    A class itself knows only its name, so of two of one name in a file ``inspect`` may give the other, and of
    those in a notebook's cells none.
    """
    method = next((value for value in vars(cls).values() if isinstance(value, FunctionType)), None)
    if method is None:
        return None, None
    lines = linecache.getlines(method.__code__.co_filename)
    try:
        tree = ast.parse("".join(lines))
    except (SyntaxError, ValueError):
        return None, None
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == cls.__name__ and node.end_lineno is not None:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if first <= method.__code__.co_firstlineno <= node.end_lineno:
                return textwrap.dedent("".join(lines[first - 1 : node.end_lineno])), first
    return None, None


def _file(thing: Any) -> str | None:
    try:
        path = PurePath(inspect.getfile(thing))
    except (OSError, TypeError):
        return None
    depth = thing.__module__.count(".") + (path.name == "__init__.py")
    return "/".join(path.parts[-depth - 1 :])
