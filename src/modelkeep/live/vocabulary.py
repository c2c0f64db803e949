"""Tensors that a vocabulary indexes, made to follow another one: each token's row goes where the token went.

An embedding's matrix is such a tensor (rows), the kernel of an output over words, tied or not (columns), and its bias.
What a row stands for is told by the tokenizers themselves, of each kind in its own way: a token; padding, or unknown
tokens, whose rows follow their role whatever the tokens around them; or nothing, as in a matrix with spare rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any, TypeAlias

import keras
import numpy as np

from modelkeep.assets import from_file
from modelkeep.assets.hf_tokenizer import HuggingFaceTokenizer
from modelkeep.assets.keras_tokenizer import KerasTokenizer
from modelkeep.errors import NotFaithful, UsageError
from modelkeep.live.tensors import Array
from modelkeep.pipeline.tokenizer import Tokenizer
from modelkeep.report import several

Token: TypeAlias = Hashable
"""A text nearly always; a whole number to an ``IntegerLookup``."""


@dataclass(frozen=True)
class Vocabulary:
    """What each index stands for: tokens by their index, and the roles that indices have.

    ``padding`` fills up what is too short, ``unknown`` (several where tokens are hashed into buckets) stands for
    tokens that are not in the vocabulary. Raises UsageError where two tokens share an index.
    """

    tokens: Mapping[Token, int]
    padding: int | None = None
    unknown: Sequence[int] = ()

    def __post_init__(self) -> None:
        of: dict[int, Token] = {}
        for token, index in self.tokens.items():
            if isinstance(index, bool) or not isinstance(index, int | np.integer) or index < 0:
                raise UsageError(f"the token {token!r} has no index", found=repr(index), expected="a number from 0 on")
            if of.setdefault(int(index), token) != token:
                raise UsageError(
                    f"{of[int(index)]!r} and {token!r} share an index, so its row cannot follow both", found=int(index)
                )

    @cached_property
    def size(self) -> int:
        """One more than the largest index: the rows that a matrix must have at least."""
        return 1 + max(map(int, chain(self.tokens.values(), self._roles())), default=-1)

    @cached_property
    def names(self) -> dict[int, str]:
        """What to call each index that stands for something."""
        names = {int(index): str(token) for token, index in self.tokens.items()}
        names |= dict.fromkeys(self.unknown, "(unknown)")
        return names if self.padding is None else names | {self.padding: "(padding)"}

    def _roles(self) -> Sequence[int]:
        return (*self.unknown, *(() if self.padding is None else (self.padding,)))


@dataclass(frozen=True)
class Rows:
    """Which row becomes which. ``kept`` are old and new indices, int64 of equal length, by rising new index."""

    kept: tuple[Array, Array]
    added: tuple[str, ...]  # new tokens, by index: their rows stay what the target's initializer gave
    dropped: tuple[str, ...]  # old ones that the new vocabulary lacks, by index
    sizes: tuple[int, int]  # the least lengths of the old and the new tensor
    details: dict[str, int] = field(init=False)  # the counts

    def __post_init__(self) -> None:
        old, new = self.kept
        counts = {"kept": len(new), "moved": int((old != new).sum())}
        object.__setattr__(self, "details", counts | {"added": len(self.added), "dropped": len(self.dropped)})

    def __str__(self) -> str:
        """``9 rows follow their tokens, 3 to another index; 2 new (dull, odd); none dropped``."""
        text = f"{self.details['kept']:,} rows follow their tokens, {self.details['moved']:,} to another index"
        return f"{text}; {_counted(self.added, 'new')}; {_counted(self.dropped, 'dropped')}"


def _counted(names: Sequence[str], word: str) -> str:
    return f"{len(names):,} {word} ({several([repr(name)[1:-1] for name in names])})" if names else f"none {word}"


def rows(old: Any, new: Any) -> Rows:
    """Which row of a tensor indexed by ``old`` belongs where, once ``new`` indexes it.

    Each is a :class:`Vocabulary`, or anything that :func:`vocabulary` reads. Padding goes to padding and unknown to
    unknown; every other row follows its token. Raises UsageError.
    """
    was, now = vocabulary(old), vocabulary(new)
    pairs = dict(zip(map(int, now.unknown), map(int, was.unknown), strict=False))
    if was.padding is not None and now.padding is not None:
        pairs[now.padding] = was.padding
    for token, index in now.tokens.items():
        if token in was.tokens:
            pairs.setdefault(int(index), int(was.tokens[token]))
    return Rows(
        (np.array([pairs[index] for index in sorted(pairs)], np.int64), np.array(sorted(pairs), np.int64)),
        added=tuple(now.names[index] for index in sorted(now.names.keys() - pairs.keys())),
        dropped=tuple(was.names[index] for index in sorted(was.names.keys() - set(pairs.values()))),
        sizes=(was.size, now.size),
    )


def remap(old_values: Array, into_values: Array, rows: Rows, axis: int = 0) -> Array:
    """``into_values`` with what was kept of ``old_values`` in its new place, as an array of its own.

    Both are indexed by their vocabulary along ``axis``, and equally long along every other. Raises NotFaithful where
    they are not, or the target's dtype cannot hold the values; UsageError where a vocabulary has more indices than
    its tensor: it is another one's.
    """
    for values, size, whose in zip((old_values, into_values), rows.sizes, ("old", "new"), strict=True):
        if not -values.ndim <= axis < values.ndim or values.shape[axis] < size:
            raise UsageError(
                f"the {whose} vocabulary does not index this tensor along axis {axis}",
                found=f"shape {values.shape}",
                expected=f"a length of at least {size}",
                hint="give the tokenizer that the model was trained with, cut to the rows that it uses",
            )
    if _without(old_values.shape, axis) != _without(into_values.shape, axis):
        raise NotFaithful("rows of different shapes", found=old_values.shape, expected=into_values.shape)
    if not np.can_cast(old_values.dtype, into_values.dtype):
        raise NotFaithful(f"{into_values.dtype} cannot hold every {old_values.dtype}")
    old, new = rows.kept
    result = into_values.copy()
    np.moveaxis(result, axis, 0)[new] = np.moveaxis(old_values, axis, 0)[old]
    return result


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return tuple(length for place, length in enumerate(shape) if place != axis % len(shape))


# --- what tokenizers say of themselves


def vocabulary(tokenizer: Any) -> Vocabulary:
    """The vocabulary of whatever turns tokens into indices.

    That is a :class:`modelkeep.Tokenizer` or Keras' legacy one, either also as JSON text; a Hugging Face
    ``tokenizers.Tokenizer``; a ``TextVectorization``, ``StringLookup`` or ``IntegerLookup``; a mapping from tokens to
    indices, or a list of tokens, neither of which knows of padding; or the path of a file with one of these.
    Raises UsageError for anything else.
    """
    if isinstance(tokenizer, os.PathLike):
        tokenizer = from_file("vocabulary", tokenizer)
    match tokenizer:
        case Vocabulary():
            return tokenizer
        case str() | bytes() if tokenizer.lstrip()[:1] in ("{", b"{"):
            return _of_keras_tokenizer(Tokenizer.from_json(tokenizer))
        case str():
            return _of_list(tokenizer.splitlines())
        case keras.layers.TextVectorization():
            return _of_lookup(tokenizer, unknown=1)
        case keras.layers.StringLookup() | keras.layers.IntegerLookup():
            return _of_lookup(tokenizer, unknown=tokenizer.num_oov_indices)
        case Mapping():
            return Vocabulary(dict(tokenizer))
        case list() | tuple() | np.ndarray():
            return _of_list(list(tokenizer))
    if KerasTokenizer().accepts(tokenizer):
        return _of_keras_tokenizer(tokenizer)
    if HuggingFaceTokenizer().accepts(tokenizer):
        return _of_hugging_face(tokenizer)
    raise UsageError(
        "no vocabulary to read",
        found=f"a {type(tokenizer).__name__}",
        expected="a tokenizer, a lookup layer, a mapping from tokens to indices, or a list of tokens",
    )


def _of_keras_tokenizer(tokenizer: Any) -> Vocabulary:
    """Numbers from ``num_words`` on never come out of it; 0 is padding by its own definition."""
    limit = tokenizer.num_words or max(tokenizer.word_index.values(), default=0) + 1
    tokens = {word: index for word, index in tokenizer.word_index.items() if index < limit}
    unknown = tokens.get(tokenizer.oov_token)
    return Vocabulary(tokens, padding=0, unknown=() if unknown is None else (unknown,))


def _of_hugging_face(tokenizer: Any) -> Vocabulary:
    """Its JSON form names what pads and what is unknown, either by token or by id."""
    document = json.loads(tokenizer.to_str())
    tokens = tokenizer.get_vocab()
    padding, model = document.get("padding") or {}, document["model"]
    unknown = model.get("unk_id", tokens.get(model.get("unk_token")))
    return Vocabulary(tokens, padding.get("pad_id"), () if unknown is None else (unknown,))


def _of_lookup(layer: Any, *, unknown: int) -> Vocabulary:
    """Before its tokens come the mask, where it has one, and as many indices for unknown ones."""
    tokens = layer.get_vocabulary()
    special = len(tokens) - len(layer.get_vocabulary(include_special_tokens=False))
    named: dict[Token, int] = {}
    for index, token in enumerate(tokens):
        named.setdefault(token, index)  # each of several unknown ones has the same name
    return Vocabulary(named, 0 if special > unknown else None, range(special - unknown, special))


def _of_list(tokens: Sequence[Token]) -> Vocabulary:
    named = {token: index for index, token in enumerate(tokens)}
    if len(named) < len(tokens):
        twice = next(token for index, token in enumerate(tokens) if named[token] != index)
        raise UsageError("a token is twice in the list", found=repr(twice))
    return Vocabulary(named)
