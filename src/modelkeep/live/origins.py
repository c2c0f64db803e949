"""What was put into a model in memory, for the lineage of the version that is saved of it.

An origin is noted by every layer of the model, weakly: whoever takes the layers into a network of another kind (a new
head on a backbone that weights were transferred into) takes the origins along, and nobody keeps a model alive. Layers
are told apart by identity, since a class may say what it likes of equality and hashing. Training does not take an
origin away: what is trained on still came from there.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import keras
from msgspec.structs import replace

from modelkeep.live import internals
from modelkeep.manifest import Lineage, Transfer


@dataclass(frozen=True)
class Average:
    """The model is an average of these: refs with digests, or files."""

    parents: tuple[str, ...]


@dataclass(frozen=True)
class Trained:
    """The model was trained by a run as far as a step: ``sentiment-run@1200``."""

    run: str


Origin: TypeAlias = Transfer | Average | Trained


@dataclass(frozen=True)
class _Noted:
    number: int  # in the order of noting, over all models
    origin: Origin


_notes: dict[int, tuple[weakref.ref[keras.Layer], list[_Noted]]] = {}  # by the id of a layer
_numbers = itertools.count()
_lock = threading.RLock()  # a layer may be collected, and take its notes along, in the middle of anything


def note(model: keras.Model, origin: Origin) -> None:
    """Remember that ``origin`` was put into ``model``: once, however often it is noted.

    A run's later step takes the place of its earlier one.
    """
    with _lock:
        noted = _Noted(next(_numbers), origin)
        for layer in _layers(model):
            notes = _notes_of(layer)
            if all(each.origin != origin for each in notes):
                notes[:] = [each for each in notes if not _is_later(origin, each.origin)]
                notes.append(noted)


def of(model: keras.Model) -> tuple[Origin, ...]:
    """What was put into the model, or into layers that it is made of, in the order of noting."""
    with _lock:
        found = {each.number: each.origin for layer in _layers(model) for each in _notes.get(id(layer), (None, ()))[1]}
    origins: list[Origin] = []
    for _, origin in sorted(found.items(), key=lambda item: item[0]):
        if origin not in origins:
            origins.append(origin)
    return tuple(origins)


def adopt(model: keras.Model, told: Lineage, run: str) -> None:
    """Remember that the model is a checkpoint now: ``run@step``, and what its manifest's lineage tells."""
    for transfer in told.transfers:
        note(model, transfer)
    if told.parents:
        note(model, Average(told.parents))
    if told.run is not None:
        note(model, Trained(told.run))
    note(model, Trained(run))


def lineage(model: keras.Model, told: Lineage | None = None) -> Lineage:
    """``told`` by the user and, with it, what was put into the model."""
    told = told or Lineage()
    found = of(model)
    parents = [parent for origin in found if isinstance(origin, Average) for parent in origin.parents]
    runs = [origin.run for origin in found if isinstance(origin, Trained)]
    return replace(
        told,
        parents=tuple(dict.fromkeys((*told.parents, *parents))),
        transfers=(
            *told.transfers,
            *(each for each in found if isinstance(each, Transfer) and each not in told.transfers),
        ),
        run=runs[-1] if runs else told.run,
    )


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    return (node for _, node in internals.walk(model) if isinstance(node, keras.Layer))


def _notes_of(layer: keras.Layer) -> list[_Noted]:
    key = id(layer)
    if key not in _notes:

        def forget(_: object) -> None:
            with _lock:
                _notes.pop(key, None)

        _notes[key] = (weakref.ref(layer, forget), [])
    return _notes[key][1]


def _is_later(origin: Origin, earlier: Origin) -> bool:
    """Whether both are of one run."""
    return (
        isinstance(origin, Trained)
        and isinstance(earlier, Trained)
        and origin.run.rpartition("@")[0] == earlier.run.rpartition("@")[0]
    )
