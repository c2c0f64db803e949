"""Which layer of a source is which layer of a model: by path, by name, by structure.

=============  ====================================================================================================
``path``       the same place in both networks, as Keras' own files number it, unless chosen names say otherwise
``name``       the same name; where one network lies within another, the same last names. Of the names that Keras
               chose itself (``dense_7``), which count through a process, only the order counts
``structure``  other names for the same graph: the layers from the input on, as far as classes, shapes and wiring agree
=============  ====================================================================================================

``auto`` goes by all three in this order, and by structure only where no chosen name fitted: where some do, the
others differ on purpose.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import keras

from modelkeep.live.outline import Names, snake_case
from modelkeep.live.variables import without_number

Match: TypeAlias = Literal["auto", "path", "name", "structure"]
RULES = ("path", "name", "structure")
MATCHES = ("auto", *RULES)

T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True, eq=False)
class Weight(Generic[T]):
    """A tensor or variable of a layer, which may lie in layers within it: a cell's kernel is one of its LSTM.

    ``names`` are those of the layers within and its own (``("lstm_cell", "kernel")``), ``key`` its place below the
    layer in Keras' files (``cell/vars/0``); either is empty where it is not known.
    """

    names: Names
    key: str
    shape: tuple[int, ...]
    item: T


@dataclass(frozen=True, eq=False)
class Holder(Generic[T]):
    """A layer that holds weights, with all that lies within it; models are no such layers, they are looked into.

    ``names`` are those of the models around it and its own, as they are; empty where nothing tells them. ``path`` is
    its place in Keras' files. ``place`` orders the layers as data flows; None where that is not known.
    """

    names: Names
    weights: tuple[Weight[T], ...]
    path: str | None = None
    kind: str | None = None  # its class
    place: int | None = None
    feeds: tuple[Names, ...] | None = None  # the layers with weights that feed it; None where that is not known
    renamed: bool = False

    @property
    def name(self) -> str:
        """What people call it: ``backbone/conv1``."""
        return "/".join(self.names) or self.path or ""

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Those of its weights, in order."""
        return tuple(weight.shape for weight in self.weights)

    @property
    def is_chosen(self) -> bool:
        """Whether somebody gave it its name."""
        return bool(self.names) and (self.renamed or not is_automatic(self.names[-1], self.kind))


Pair: TypeAlias = tuple[Holder[S], Holder[T], str]


@dataclass
class Correspondence(Generic[S, T]):
    """The pairs that were found, each with its rule, and what to know of them."""

    pairs: list[Pair[S, T]] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def add(self, pairs: Iterable[tuple[Holder[S], Holder[T]]], rule: str) -> None:
        """Take pairs in."""
        self.pairs += [(source, target, rule) for source, target in pairs]

    def left(
        self, sources: Iterable[Holder[S]], targets: Iterable[Holder[T]]
    ) -> tuple[list[Holder[S]], list[Holder[T]]]:
        """Those that have no partner yet."""
        taken = {id(holder) for source, target, _ in self.pairs for holder in (source, target)}
        return [s for s in sources if id(s) not in taken], [t for t in targets if id(t) not in taken]


def correspond(
    sources: Sequence[Holder[S]],
    network: Sequence[Holder[T]],
    match: Match = "auto",
    closed: Collection[Holder[T]] = (),
) -> Correspondence[S, T]:
    """Find for each source the layer of the network it belongs to; each has one partner at most.

    ``closed`` are layers that take nothing. They count where the whole structure does, and nowhere else.
    """
    found: Correspondence[S, T] = Correspondence()
    targets = [target for target in network if target not in closed]
    named = _by_name(sources, targets)
    if match in ("auto", "path"):
        # Who asks for paths alone is not told better by names.
        found.add(_by_path(sources, targets, named if match == "auto" else None), "path")
    if match in ("auto", "name"):
        found.add(_by_name(*found.left(sources, targets)), "name")
    fits_by_name = any(source.is_chosen and target.is_chosen for source, target, _ in found.pairs)
    if match == "structure" or (match == "auto" and not fits_by_name):
        aligned, doubt = _by_structure(*found.left(sources, network))
        found.add([(source, target) for source, target in aligned if target not in closed], "structure")
        found.doubts += [doubt] if doubt else []
    return found


# --- names


def is_automatic(name: str, kind: str | None = None) -> bool:
    """Whether a layer's name is one that Keras chooses by itself: its class', with a number."""
    stem = without_number(name.removeprefix("forward_").removeprefix("backward_"))
    return stem in _stems() or (kind is not None and stem == snake_case(kind))


@cache
def _stems() -> frozenset[str]:
    classes = (name for name in dir(keras.layers) if isinstance(getattr(keras.layers, name), type))
    return frozenset(snake_case(name) for name in (*classes, "Functional", "Sequential", "Model"))


def stem_of(name: str) -> str:
    """A name without the number that Keras gave it; a chosen name as it is."""
    return without_number(name) if is_automatic(name) else name


# --- by path


def _by_path(
    sources: Sequence[Holder[S]], targets: Sequence[Holder[T]], named: Sequence[tuple[Holder[S], Holder[T]]] | None
) -> Iterator[tuple[Holder[S], Holder[T]]]:
    by_path = {target.path: target for target in targets}
    chosen = [(s, t) for s, t in named or () if s.is_chosen and t.is_chosen]
    partner_of = {id(s): t for s, t in chosen} | {id(t): s for s, t in chosen}
    for source in sources:
        target = None if source.path is None or source.renamed else by_path.get(source.path)
        if target is None:
            continue
        if named is None:
            yield source, target
            continue
        by_name = partner_of.get(id(source)) or partner_of.get(id(target))
        if (by_name is None or by_name in (source, target)) and _may_be_one(source, target):
            yield source, target


def _may_be_one(source: Holder[S], target: Holder[T]) -> bool:
    """Whether the names of two layers at one path say nothing against it."""
    if not source.names or (not source.is_chosen and not target.is_chosen):
        return True
    if source.is_chosen and target.is_chosen:
        return source.names[-1] == target.names[-1]
    return source.shapes == target.shapes


# --- by name


def _by_name(sources: Sequence[Holder[S]], targets: Sequence[Holder[T]]) -> list[tuple[Holder[S], Holder[T]]]:
    """Pairs of which neither could be of another pair that is as good: equal names, else equal last names."""
    keys = (_keys(sources), _keys(targets))
    pairs: list[tuple[Holder[S], Holder[T]]] = []
    for same in (_equal, _one_in_the_other):
        taken = {id(holder) for pair in pairs for holder in pair}
        edges = [
            (source, target)
            for source, target in same(sources, targets, keys)
            if id(source) not in taken and id(target) not in taken
        ]
        counts: dict[int, int] = defaultdict(int)
        for pair in edges:
            for holder in pair:
                counts[id(holder)] += 1
        pairs += [(s, t) for s, t in edges if counts[id(s)] == counts[id(t)] == 1]
    return pairs


_Keys: TypeAlias = Mapping[int, Names]


def _keys(holders: Sequence[Holder[Any]]) -> dict[int, Names]:
    """The names of each, with the numbers of automatic ones replaced by their rank among those of one kind."""
    numbers: dict[tuple[Names, str], set[int]] = defaultdict(set)
    for holder in holders:
        for depth, name in enumerate(holder.names):
            if is_automatic(name, holder.kind):
                numbers[holder.names[:depth], without_number(name)].add(_number(name))
    ranks = {key: {number: rank for rank, number in enumerate(sorted(found))} for key, found in numbers.items()}

    def ranked(around: Names, name: str, kind: str | None) -> str:
        if not is_automatic(name, kind):
            return name
        stem = without_number(name)
        return f"{stem}#{ranks[around, stem][_number(name)]}"

    def key(holder: Holder[Any]) -> Names:
        return tuple(ranked(holder.names[:depth], name, holder.kind) for depth, name in enumerate(holder.names))

    return {id(holder): key(holder) for holder in holders if holder.names}


def _number(name: str) -> int:
    last = name.rpartition("_")[2]
    return int(last) if last.isdecimal() else 0


def _equal(
    sources: Sequence[Holder[S]], targets: Sequence[Holder[T]], keys: tuple[_Keys, _Keys]
) -> Iterator[tuple[Holder[S], Holder[T]]]:
    by_key = {keys[1][id(target)]: target for target in targets if id(target) in keys[1]}
    by_names = {target.names: target for target in targets}
    for source in sources:
        # What was renamed is called as the model calls it.
        target = by_names.get(source.names) if source.renamed else by_key.get(keys[0].get(id(source), ()))
        if target is not None:
            yield source, target


def _one_in_the_other(
    sources: Sequence[Holder[S]], targets: Sequence[Holder[T]], keys: tuple[_Keys, _Keys]
) -> Iterator[tuple[Holder[S], Holder[T]]]:
    """All the names of one are the last names of the other; those that Keras chose tell no more than their shapes."""
    by_last: dict[str, list[Holder[T]]] = defaultdict(list)
    for target in targets:
        if id(target) in keys[1]:
            by_last[keys[1][id(target)][-1]].append(target)
    for source in sources:
        key = source.names if source.renamed else keys[0].get(id(source), ())
        for target in by_last.get(key[-1], ()) if key else ():
            other = keys[1][id(target)]
            least = min(len(key), len(other))
            if key[-least:] == other[-least:] and (source.is_chosen or source.shapes == target.shapes):
                yield source, target


# --- by structure


def _by_structure(
    sources: Sequence[Holder[S]], targets: Sequence[Holder[T]]
) -> tuple[list[tuple[Holder[S], Holder[T]]], str | None]:
    """The layers from the input on as far as both networks agree; nothing, and why, where more than one way fits."""
    if any(place is None for place in (*(s.place for s in sources), *(t.place for t in targets))):
        return _by_whole_structure(sources, targets)
    pairs: list[tuple[Holder[S], Holder[T]]] = []
    partner: dict[Names, Names] = {}
    for source, target in zip(sorted(sources, key=_place), sorted(targets, key=_place), strict=False):
        if not _alike(source, target, partner):
            break
        pairs.append((source, target))
        partner[source.names] = target.names
    twins = _interchangeable([source for source, _ in pairs])
    if twins:
        names = " and ".join(holder.name for holder in twins)
        return [], f"by structure {names} could be either of two layers, so none was matched by it: rename them"
    return pairs, None


def _by_whole_structure(
    sources: Sequence[Holder[S]], targets: Sequence[Holder[T]]
) -> tuple[list[tuple[Holder[S], Holder[T]]], str | None]:
    """Where the order of layers is not known, classes and their numbers tell them apart if all of them are the same."""
    ours = {source.path: source for source in sources}
    theirs = {target.path: target for target in targets}
    if None not in ours and {p: s.shapes for p, s in ours.items()} == {p: t.shapes for p, t in theirs.items()}:
        return [(source, theirs[path]) for path, source in ours.items()], None
    return [], "the order of the layers is not known, so they were not matched by structure" if sources else None


def _place(holder: Holder[Any]) -> int:
    assert holder.place is not None
    return holder.place


def _alike(source: Holder[S], target: Holder[T], partner: Mapping[Names, Names]) -> bool:
    if source.shapes != target.shapes or (source.kind and target.kind and source.kind != target.kind):
        return False
    if source.feeds is None or target.feeds is None:
        return True
    # What feeds it and is not among those that are matched here was matched already.
    return len(source.feeds) == len(target.feeds) and all(
        partner.get(s, t) == t for s, t in zip(source.feeds, target.feeds, strict=True)
    )


def _interchangeable(holders: Sequence[Holder[S]]) -> tuple[Holder[S], Holder[S]] | None:
    """Two layers that could change places, so that their order alone tells them apart."""
    if any(holder.feeds is None for holder in holders):
        return None  # one after the other
    feeding: dict[Names, set[tuple[Names, int]]] = defaultdict(set)
    for holder in holders:
        for index, fed in enumerate(holder.feeds or ()):
            feeding[fed].add((holder.names, index))
    seen: dict[Any, Holder[S]] = {}
    for holder in holders:
        look = (holder.kind, holder.shapes, holder.feeds, frozenset(feeding[holder.names]))
        if look in seen:
            return seen[look], holder
        seen[look] = holder
    return None


# --- within a layer


def paired(source: Holder[S], target: Holder[T]) -> list[tuple[Weight[S], Weight[T]]]:
    """The weights of two layers that are one: by their names, else by their places, else the only ones left.

    Releases call some weights otherwise: DepthwiseConv2D's kernel was its depthwise kernel.
    """
    pairs: list[tuple[Weight[S], Weight[T]]] = []

    def left() -> tuple[list[Weight[S]], list[Weight[T]]]:
        taken = {id(weight) for pair in pairs for weight in pair}
        return [w for w in source.weights if id(w) not in taken], [w for w in target.weights if id(w) not in taken]

    for tells in (_names_within, _key):
        ours, theirs = left()
        by_word = _unique((tells(weight), weight) for weight in theirs)
        words = _unique((tells(weight), weight) for weight in ours)
        pairs += [(weight, by_word[word]) for word, weight in words.items() if word and word in by_word]
    ours, theirs = left()
    return [*pairs, (ours[0], theirs[0])] if len(ours) == len(theirs) == 1 else pairs


W = TypeVar("W")


def _unique(items: Iterable[tuple[str, W]]) -> dict[str, W]:
    found: dict[str, list[W]] = defaultdict(list)
    for word, item in items:
        found[word].append(item)
    return {word: each[0] for word, each in found.items() if len(each) == 1}


def _names_within(weight: Weight[Any]) -> str:
    return "/".join(stem_of(name) for name in weight.names)


def _key(weight: Weight[Any]) -> str:
    """Attributes that Keras 2 kept private are public since: ``_key_dense``."""
    return re.sub(r"(^|/)_", r"\1", weight.key)
