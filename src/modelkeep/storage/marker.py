"""What makes a place a store: ``modelkeep.json``, with the format's number and the store's id.

``FORMAT`` changes when an older modelkeep would misread the layout of keys. To bump it, follow the steps in
:mod:`modelkeep.manifest`; a place whose number is not in ``READABLE`` is left alone.
"""

from __future__ import annotations

import uuid

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
        # Another process may be making this very store: its marker may be there by now.
        if stranger is not None and stranger.key != KEY:
            raise StoreNotFound(
                f"{store.url} is neither a modelkeep store nor empty, so it is not touched",
                found=stranger.key,
                hint="name an empty or a new folder",
            ) from None
    try:
        store.create(KEY, [canonical_json(Marker(format=FORMAT, id=uuid.uuid4().hex))])
    except ObjectExists:
        pass  # another process was first
    return read(store)
