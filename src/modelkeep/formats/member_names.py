"""What the files inside an archive may be called, so that each has one place and none lies outside."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from modelkeep.formats.limits import Limits

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DRIVE = re.compile(r"[A-Za-z]:")
_LONGEST_PART = 255  # bytes, on every file system in use


def fault_of(name: str, limits: Limits) -> str | None:
    """Why a path inside an archive is no plain path below it; None where it is one. Raises LimitExceeded."""
    limits.check("name", len(name.encode(errors="surrogatepass")), "the name of a member is too long")
    parts = name.split("/")
    limits.check("depth", len(parts), f"{name[:80]!r} lies too deep")
    faults = {
        "a control character": _CONTROL.search(name),
        "a backslash": "\\" in name,
        "a drive": _DRIVE.match(name),
        "it is absolute": name.startswith("/"),
        "it leads upwards": ".." in parts,
        "an empty part": not all(parts) or "." in parts,
        "a part that is too long": any(len(part.encode(errors="surrogatepass")) > _LONGEST_PART for part in parts),
    }
    return next((fault for fault, found in faults.items() if found), None)


def clashes(names: Iterable[str]) -> Iterator[tuple[str, str, bool]]:
    """Pairs of names that are one file to some system, and whether they are one to every system.

    Names that differ in how an accent is written (NFC) are one to macOS; in case only, one to Windows. A
    file that is also the folder of another clashes with it everywhere.
    """
    names = list(names)
    seen: dict[str, str] = {}
    for name in names:
        composed = unicodedata.normalize("NFC", name)
        if (earlier := seen.get(composed.casefold())) is not None:
            yield earlier, name, unicodedata.normalize("NFC", earlier) == composed
        seen[composed.casefold()] = name
    files = set(names)
    for name in names:
        folder = name.rpartition("/")[0]
        while folder:
            if folder in files:
                yield folder, name, True
            folder = folder.rpartition("/")[0]
