"""Text and JSON values: vocabularies, label names, settings."""

from __future__ import annotations

from typing import Any

from modelkeep.assets.codec import Packed, Stored, one_part
from modelkeep.errors import LimitExceeded, UsageError
from modelkeep.formats import strict_json
from modelkeep.manifest import canonical_json

MAX_VALUE = 512 * 2**20  # bytes


class Text:
    """A ``str``, as UTF-8."""

    kind = "text"

    def accepts(self, value: Any) -> bool:
        """Any text."""
        return isinstance(value, str)

    def pack(self, name: str, value: str) -> Packed:
        """Raises UsageError for lone surrogates, which UTF-8 does not have."""
        try:
            return one_part(name, self.kind, _within(value.encode()), {"characters": len(value)}, ".txt")
        except UnicodeEncodeError as error:
            raise UsageError(f"text that is not valid Unicode: {error}") from error

    def unpack(self, stored: Stored) -> str:
        """The text."""
        try:
            return stored.part().decode()
        except UnicodeDecodeError as error:
            raise stored.damaged(error) from error


class Json:
    """What JSON has: mappings with text keys, lists (tuples come back as lists), numbers, booleans."""

    kind = "json"

    def accepts(self, value: Any) -> bool:
        """Not None: as an asset it would be a slip."""
        return isinstance(value, dict | list | tuple | int | float)

    def pack(self, name: str, value: Any) -> Packed:
        """Raises UsageError, naming where, for a value that JSON would change."""
        strict_json.check_plain(value)
        info = {"items": len(value)} if isinstance(value, dict | list | tuple) else {}
        return one_part(name, self.kind, _within(canonical_json(value)), info, ".json")

    def unpack(self, stored: Stored) -> Any:
        """The value."""
        try:
            return strict_json.parse(stored.part(), what="it", limit=MAX_VALUE)
        except UsageError as error:
            raise stored.damaged(error.what) from error


def _within(data: bytes) -> bytes:
    if len(data) > MAX_VALUE:
        raise LimitExceeded("the value is too large", found=f"{len(data)} bytes", expected=f"at most {MAX_VALUE}")
    return data
