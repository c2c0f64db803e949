"""What makes a place a store: ``modelkeep.json``, with the format's number and the store's id.

Format number
-------------
``FORMAT`` changes when an older modelkeep would misread the layout of keys, or lose what it does not know of.
To bump it:

1. Add the new number to ``READABLE`` and keep every older one there: stores open for ever, as they are.
2. Where a room lays keys out anew, it asks for the number that :func:`read` returns, and reads the older layout too.
3. Write a small store with the last release, commit it under ``tests/stores/<format>/``; the test that opens every
   store there must pass.
4. Say in CHANGELOG what an older modelkeep will answer (:class:`~modelkeep.errors.FormatTooNew`; it touches nothing).
"""

from __future__ import annotations

import uuid
from contextlib import suppress

import msgspec

from modelkeep.errors import FormatTooNew, IntegrityError, NotFound, ObjectExists, StoreNotFound
from modelkeep.manifest import canonical_json
from modelkeep.storage.protocol import ObjectStore

FORMAT = 1
READABLE = frozenset({1})
KEY = "modelkeep.json"


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """A store's format number and id."""

    format: int
    id: str


_decode = msgspec.json.Decoder(Marker).decode


def read(store: ObjectStore) -> Marker:
    """The store's marker. Raises StoreNotFound, FormatTooNew, IntegrityError."""
    try:
        data = store.get(KEY)
    except NotFound:
        raise StoreNotFound(
            f"{store.url} is not a modelkeep store",
            hint="a first save makes one there; or name another: --store, $MODELKEEP_STORE, mk.open(...)",
        ) from None
    try:
        marker = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{KEY} of {store.url} cannot be read ({error})") from error
    if marker.format not in READABLE:
        raise FormatTooNew(
            f"{store.url} was written in a format that this modelkeep does not know",
            found=f"format {marker.format}",
            expected=f"at most {FORMAT}",
            hint="pip install --upgrade modelkeep",
        )
    return marker


def ensure(store: ObjectStore) -> Marker:
    """The store's marker, written now where the place is still empty. Raises StoreNotFound where it is not."""
    try:
        return read(store)
    except StoreNotFound:
        stranger = next(store.list(""), None)
        if stranger is not None:
            return _read_beside(stranger.key, store)
    with suppress(ObjectExists):  # another process was first
        store.create(KEY, [canonical_json(Marker(format=FORMAT, id=uuid.uuid4().hex))])
    return read(store)


def _read_beside(stranger: str, store: ObjectStore) -> Marker:
    """The marker, if another process made the store in this moment: it comes before everything else."""
    try:
        return read(store)
    except StoreNotFound:
        raise StoreNotFound(
            f"{store.url} is neither a modelkeep store nor empty, so it is not touched",
            found=stranger,
            hint="name an empty or a new folder",
        ) from None
