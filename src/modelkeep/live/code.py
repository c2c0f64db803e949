"""What code refers to, read from its bytecode; nothing is run."""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import keras

from modelkeep.live.sources import is_user_code


class Reached(NamedTuple):
    """Something a function uses that it was not given."""

    name: str
    value: Any
    is_global: bool  # else from the function around it


def reached_from(function: FunctionType) -> Iterator[Reached]:
    """What a function uses from the function around it and from its module, in that order."""
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield Reached(name, cell.cell_contents, is_global=False)
        except ValueError:  # not assigned yet
            continue
    for name in dict.fromkeys(_names(code, "LOAD_GLOBAL")):
        if name in function.__globals__:
            yield Reached(name, function.__globals__[name], is_global=True)


@functools.cache
def assigned_by_keras(cls: type) -> frozenset[str]:
    """The instance attributes that a class has from Keras and the backend: bookkeeping, not the user's state."""
    bases = [base for base in cls.__mro__ if not is_user_code(base)]
    codes = (code for base in bases for member in vars(base).values() for code in _codes_of(member))
    assigned = {name for code in codes for name in _names(code, "STORE_ATTR")}
    return frozenset(assigned | _set_otherwise())


@functools.cache
def _set_otherwise() -> frozenset[str]:
    # torch and TensorFlow set some attributes without naming them in code. A name of its own keeps Keras from
    # counting this layer among those it numbers.
    return frozenset(vars(keras.layers.Layer(name="reference")))


def _codes_of(member: Any) -> Iterator[CodeType]:
    functions = (member.fget, member.fset) if isinstance(member, property) else (getattr(member, "__func__", member),)
    for function in functions:
        inner = inspect.unwrap(function) if callable(function) else None
        if isinstance(inner, FunctionType):
            yield inner.__code__


def _names(code: CodeType, operation: str) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname == operation:
            yield str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant, operation)
