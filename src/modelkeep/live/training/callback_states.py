"""States of callbacks: what they remember from one epoch to the next.

* A callback with ``get_state()`` and ``set_state(value)``, values as ``state.pack`` takes them, tells its own.
* Of Keras' own callbacks what is below is kept, and of subclasses of them their further plain attributes, too, except
  those that are named like an argument of the constructor: that is configuration, and who resumes may give another.
* Of any other nothing is kept. :class:`Watched` notices if that would have mattered.

What is not a callback's own attribute (learning rates are the optimizer's variables) is not kept here.
"""

from __future__ import annotations

import dis
import inspect
import os
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from types import FunctionType
from typing import Any, TypeAlias

import keras
import numpy as np

from modelkeep.live.training import state
from modelkeep.report import Finding, Severity, several

Callback: TypeAlias = keras.callbacks.Callback

_COUNTED = ("_batches_seen_since_last_saving", "_last_batch_seen", "_current_epoch")
_KEPT: dict[str, tuple[str, ...]] = {
    "EarlyStopping": ("best", "best_epoch", "best_weights", "stopped_epoch", "wait"),
    "ReduceLROnPlateau": ("best", "cooldown_counter", "wait"),
    "ModelCheckpoint": ("best", *_COUNTED),
    "OrbaxCheckpoint": ("best", "_total_batches_seen", *_COUNTED),
    "BackupAndRestore": _COUNTED,
    "SwapEMAWeights": ("_ema_weights_in_model",),
    "History": ("epoch", "history"),
    "CSVLogger": ("keys",),
    "TensorBoard": (
        "_global_train_batch",
        "_global_test_batch",
        "_previous_epoch_iterations",
        "_train_accumulated_time",
    ),
}
"""Attributes of Keras' own callbacks that change while training goes on; those of them that a release has.

The direction in which a monitored value improves is in :func:`_direction`. Not here, as they remember nothing:
LearningRateScheduler, TerminateOnNaN, RemoteMonitor, ProgbarLogger, LambdaCallback.
"""


def capture(callback: Callback) -> dict[str, Any] | None:
    """What ``callback`` remembers, as ``state.pack`` takes it; None where it is not known to remember anything.

    Raises whatever its own ``get_state`` raises.
    """
    told: dict[str, Any] = {}
    if _is_keras(callback):
        told = {part: take(callback) for part, (take, _) in _PARTS.items()}
        told["attributes"] = {name: _plain(name, vars(callback)[name]) for name in sorted(_kept(callback))}
        told = {part: content for part, content in told.items() if content}
    if _tells(callback):
        told["own"] = callback.get_state()
    return told or None


def restore(callback: Callback, value: dict[str, Any]) -> tuple[Finding, ...]:
    """Give ``callback`` back what :func:`capture` told. Keras' own forget at ``on_train_begin``: call it after that.

    The finding is of rows that a CSVLogger no longer has. Raises whatever its own ``set_state`` raises.
    """
    findings: list[Finding] = []
    for part, (_, give) in _PARTS.items():
        if part in value:
            findings += give(callback, value[part]) or ()
    for name, content in value.get("attributes", {}).items():
        setattr(callback, name, content)
    if "own" in value and _tells(callback):
        callback.set_state(value["own"])
    elif "own" in value:
        message = "told its state when the checkpoint was written, and has no set_state now: it is dropped"
        findings.append(Finding("callback-state-dropped", Severity.WARNING, message, _kind(callback)))
    return tuple(findings)


# --- a list of them


def capture_all(callbacks: Sequence[Callback]) -> list[list[Any]]:
    """The states of a list, in order: ``[kind, digest of the arguments, state]`` each."""
    return [[_kind(callback), _configuration(callback), capture(callback)] for callback in callbacks]


def restore_all(callbacks: Sequence[Callback], saved: Sequence[Sequence[Any]]) -> tuple[Finding, ...]:
    """Give each callback its own of the states that :func:`capture_all` told, and say which found no other half.

    A state goes to the callback of the same kind with the same arguments; what is left to callbacks of the same kind,
    if there are as many of them. So none is given to another when the list is in another order, longer or shorter.
    """
    findings: list[Finding] = []
    places = _matched(
        [(_kind(callback), _configuration(callback)) for callback in callbacks], [one[:2] for one in saved]
    )
    for place, callback in enumerate(callbacks):
        value = saved[places[place]][2] if place in places else None
        if value is not None:
            findings += restore(callback, value)
        elif capture(callback) is not None:
            message = "the checkpoint knows none like it: it begins anew"
            findings.append(Finding("callback-new", Severity.WARNING, message, _kind(callback), {"place": place}))
    for place in sorted(set(range(len(saved))) - set(places.values())):
        kind, _, value = saved[place]
        if value is not None:
            message = "there is none like it now: what it remembered is dropped"
            findings.append(Finding("callback-gone", Severity.WARNING, message, kind, {"place": place}))
    return tuple(findings)


def _matched(now: Sequence[Sequence[str]], then: Sequence[Sequence[str]]) -> dict[int, int]:
    """Places in ``now`` to places in ``then``; both hold kinds and configurations."""
    places: dict[int, int] = {}
    for parts in (2, 1):  # by both, then by kind alone
        groups: dict[tuple[str, ...], tuple[list[int], list[int]]] = {}
        for side, (ones, done) in enumerate(((now, set(places)), (then, set(places.values())))):
            for place in sorted(set(range(len(ones))) - done):
                groups.setdefault(tuple(ones[place][:parts]), ([], []))[side].append(place)
        for here, there in groups.values():
            if len(here) == len(there):
                places.update(zip(here, there, strict=True))
    return places


# --- what cannot be kept


def doubts(callback: Callback) -> tuple[Finding, ...]:
    """What is known beforehand: that a callback's state will not, or not fully, come back."""
    name = _kind(callback)
    if isinstance(callback, keras.callbacks.BackupAndRestore):
        message = "two keepers for one training: the checkpoints of this run count, leave this callback out"
        return (Finding("two-keepers", Severity.WARNING, message, name),)
    if isinstance(callback, keras.callbacks.CSVLogger) and "://" in callback.filename:
        message = f"earlier rows of {callback.filename} are not kept: it is not on this machine's disks"
        return (Finding("callback-not-kept", Severity.WARNING, message, name),)
    halves = [method for method in ("get_state", "set_state") if callable(getattr(callback, method, None))]
    if len(halves) == 1:
        message = f"has {halves[0]} alone: nothing is kept without the other"
        return (Finding("callback-not-kept", Severity.WARNING, message, name),)
    if isinstance(callback, keras.callbacks.LambdaCallback) and any(map(_may_remember, vars(callback).values())):
        message = "what its functions remember is not kept"
        return (Finding("callback-not-kept", Severity.NOTE, message, name),)
    return ()


class Watched:
    """Callbacks whose state nobody keeps, and what their attributes were when training began.

    It sees numbers, texts, collections and arrays of them, tensors, generators of random numbers and Keras' metrics.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._before = [(callback, _prints(callback)) for callback in callbacks if not _tells(callback)]
        self._said: set[int] = set()

    def doubts(self) -> tuple[Finding, ...]:
        """A finding for each callback of which attributes changed that no checkpoint holds; said once."""
        found = []
        for place, (callback, before) in enumerate(self._before):
            if place in self._said:
                continue
            now = _prints(callback)
            if changed := sorted(name for name in {*before, *now} if before.get(name) != now.get(name)):
                self._said.add(place)
                message = f"{several(changed)} changed, and no checkpoint holds it: add get_state and set_state"
                details = {"attributes": changed}
                found.append(Finding("callback-not-kept", Severity.WARNING, message, _kind(callback), details))
        return tuple(found)


def _prints(callback: Callback) -> dict[str, str]:
    """The attributes that are not kept, as digests."""
    kept = _kept(callback) if _is_keras(callback) else frozenset()
    names = set(vars(callback)) - {"params", "_model", *kept}
    if _is_keras(callback):
        names -= _assigned_by_keras(callback.__class__)
    plain = {name: _as_plain(vars(callback)[name]) for name in names}
    return {name: state.digest(value) for name, value in plain.items() if state.is_plain(value)}


def _as_plain(value: Any) -> Any:
    """What changes with ``value`` and is plain, where there is such a thing."""
    match value:
        case np.random.Generator():
            return value.bit_generator.state
        case np.random.RandomState():
            return value.get_state(legacy=False)
        case random.Random():
            return value.getstate()
        case deque():
            return list(value)
        case dict():
            return dict(value)
        case keras.metrics.Metric():
            return [keras.ops.convert_to_numpy(variable) for variable in value.variables]
    return keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else value


def _may_remember(function: Any) -> bool:
    plain = isinstance(function, FunctionType) and function.__closure__ is None
    return callable(function) and not plain


# --- what is whose


def _kind(callback: Callback) -> str:
    """The class, and the metric that it monitors; modules have other names when they are run as scripts."""
    name, monitored = type(callback).__qualname__, vars(callback).get("monitor")
    return f"{name} of {monitored}" if isinstance(monitored, str) else name


def _configuration(callback: Callback) -> str:
    """A digest of the arguments that the callback was made with, as far as they are plain and it holds them."""
    # Keras turns the sign of `min_delta` while training.
    names = sorted((set(vars(callback)) & _arguments(callback.__class__)) - {"min_delta"})
    held = {name: vars(callback)[name] for name in names}
    return state.digest({name: value for name, value in held.items() if state.is_plain(value)})


def _tells(callback: Callback) -> bool:
    return callable(getattr(callback, "get_state", None)) and callable(getattr(callback, "set_state", None))


def _of_keras(cls: type) -> bool:
    return cls.__module__.startswith("keras.") and cls is not keras.callbacks.Callback


def _is_keras(callback: Callback) -> bool:
    return any(map(_of_keras, type(callback).__mro__))


def _kept(callback: Callback) -> frozenset[str]:
    """The attributes that a checkpoint holds of one of Keras' callbacks, or of a subclass."""
    cls: Any = type(callback)
    names = {name for base in cls.__mro__ if _of_keras(base) for name in _KEPT.get(base.__name__, ())}
    if not _of_keras(cls):
        further = set(vars(callback)) - _assigned_by_keras(cls) - _arguments(cls)
        names |= {name for name in further if state.is_plain(vars(callback)[name])}
    return frozenset(names & set(vars(callback)))


@cache
def _assigned_by_keras(cls: type[Any]) -> frozenset[str]:
    """The attributes that methods of Keras' classes set: their configuration, and what follows from it."""
    methods = [one for base in cls.__mro__ if base.__module__.startswith("keras.") for one in vars(base).values()]
    return frozenset(
        line.argval
        for method in methods
        if isinstance(method, FunctionType)
        for line in dis.get_instructions(method)
        if line.opname == "STORE_ATTR"
    )


@cache
def _arguments(cls: type[Any]) -> frozenset[str]:
    constructors = [base.__init__ for base in cls.__mro__ if "__init__" in vars(base) and base is not object]  # type: ignore[misc]
    return frozenset(name for constructor in constructors for name in inspect.signature(constructor).parameters)


def _plain(name: str, value: Any) -> Any:
    """An attribute as ``state.pack`` takes it; tensors come back as NumPy scalars or arrays of the same dtype."""
    if name == "best_weights" and isinstance(value, list):
        return [state.Constant(array) for array in value]  # a new list of new arrays each time, only ever read
    if keras.ops.is_tensor(value):
        return keras.ops.convert_to_numpy(value)[()]
    return value


# --- what is more than an attribute


def _direction(callback: Callback) -> str | None:
    """In which direction a monitored value improves; Keras decides that at the first epoch's end."""
    chosen = vars(callback).get("monitor_op")
    return next((word for word in ("less", "greater") if chosen is getattr(keras.ops, word)), None)


def _set_direction(callback: Callback, word: str) -> None:
    # As Keras itself does then. Were it left to do so again, older releases would forget the best value with it.
    if vars(callback).get("monitor_op", callback) is None:
        callback.monitor_op = getattr(keras.ops, word)
        if word == "less" and hasattr(callback, "min_delta"):
            callback.min_delta *= -1


def _epoch_time(callback: Callback) -> float | None:
    """Seconds since the epoch began, as TensorBoard counts."""
    began = vars(callback).get("_epoch_start_time")
    return None if began is None else time.time() - began


def _set_epoch_time(callback: Callback, seconds: float) -> None:
    callback._epoch_start_time = time.time() - seconds


_TAIL = 256  # bytes by which a file is known again


def _rows(callback: Callback) -> dict[str, Any] | None:
    """Where the file of a CSVLogger ends, and how; all of it, where Keras will begin it anew with the next ``fit``."""
    if not isinstance(callback, keras.callbacks.CSVLogger) or not os.path.exists(callback.filename):
        return None
    with open(callback.filename, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
        file.seek(0)
        content = None if callback.append else np.frombuffer(file.read(), np.uint8)
    return {"size": size, "tail": tail, "content": None if content is None else state.Constant(content)}


def _set_rows(callback: Callback, rows: dict[str, Any]) -> list[Finding]:
    """Cut the file to the rows that the checkpoint knows, or write them again."""
    size, tail, content = rows["size"], rows["tail"], rows["content"]
    callback.append_header = size == 0
    if callback.csv_file is not None:
        callback.csv_file.close()
    try:
        with open(callback.filename, "rb+") as file:
            file.seek(max(0, size - len(tail)))
            if file.read(len(tail)) == tail:
                file.truncate(size)
            elif content is not None:
                file.seek(0)
                file.write(content)
                file.truncate()
            else:
                callback.append_header = file.seek(0, os.SEEK_END) == 0
                message = "is not the file that had the earlier rows: those from here on are put at its end"
                return [Finding("csv-rows-lost", Severity.WARNING, message, callback.filename)]
    finally:
        callback.csv_file = open(callback.filename, "a")  # noqa: SIM115 (the callback closes it)
    return []


_PARTS: dict[str, tuple[Callable[[Callback], Any], Callable[[Callback, Any], list[Finding] | None]]] = {
    "direction": (_direction, _set_direction),
    "epoch_time": (_epoch_time, _set_epoch_time),
    "rows": (_rows, _set_rows),
}
