"""Names: models, aliases, semantic versions, digests, and refs that select one version.

Values only: nothing here reads a store. A ref is one of

=====================  ==================================================
``sentiment``          the newest version
``sentiment:1``        the newest within 1.x.y (``:1.2`` within 1.2.x)
``sentiment:1.2.0``    exactly that version
``sentiment@stable``   what the alias points at
``sentiment@blake3:…`` the version whose manifest has that digest (or a
                       prefix of it, 8 hex digits or more)
``sentiment-run@1200`` the checkpoint of a run after that step
=====================  ==================================================

Versions follow Semantic Versioning 2.0.0 (https://semver.org), by the ``semver`` package.
Pre-releases are selected only when named exactly or when nothing else is there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

from semver import Version as SemVer

from modelkeep.errors import InvalidRef

__all__ = [
    "ByAlias",
    "ByDigest",
    "Digest",
    "Exact",
    "Newest",
    "Ref",
    "SemVer",
    "Step",
    "Within",
    "alias_name",
    "is_run_name",
    "model_name",
    "parse_digest",
    "parse_ref",
    "parse_version",
    "run_name",
    "short_digest",
]

Digest = NewType("Digest", str)
"""``blake3:`` and 64 lower-case hexadecimal digits."""

_NAME_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"blake3:[0-9a-f]{64}")
_DIGEST_PREFIX = re.compile(r"blake3:[0-9a-f]{8,64}")
_STEP = re.compile(r"0|[1-9][0-9]{0,17}")
_WITHIN = re.compile(r"(0|[1-9][0-9]{0,17})(?:\.(0|[1-9][0-9]{0,17}))?")
# Folder names the store itself uses below a model, and below a run.
_RESERVED = frozenset({"ledger", "snapshots"})
_RESERVED_BELOW_RUNS = frozenset({"entries", "progress"})
_MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class Newest:
    """The highest version that is not yanked; pre-releases only when there is nothing else."""

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Within:
    """The newest version with this major, or this major and minor, number."""

    major: int
    minor: int | None = None

    def __str__(self) -> str:
        return f":{self.major}" if self.minor is None else f":{self.major}.{self.minor}"


@dataclass(frozen=True, slots=True)
class Exact:
    """One version by its number."""

    version: SemVer

    def __str__(self) -> str:
        return f":{self.version}"


@dataclass(frozen=True, slots=True)
class ByAlias:
    """What an alias points at."""

    alias: str

    def __str__(self) -> str:
        return f"@{self.alias}"


@dataclass(frozen=True, slots=True)
class ByDigest:
    """The version whose manifest's digest begins so."""

    prefix: str

    def __str__(self) -> str:
        return f"@{self.prefix}"


@dataclass(frozen=True, slots=True)
class Step:
    """The checkpoint of a run after so many steps. Aliases begin with a letter, so it is none."""

    step: int

    def __str__(self) -> str:
        return f"@{self.step}"


Selector = Newest | Within | Exact | ByAlias | ByDigest | Step


@dataclass(frozen=True, slots=True)
class Ref:
    """A model's name and which of its versions, or a run's and which of its checkpoints."""

    model: str
    selector: Selector = Newest()

    def __str__(self) -> str:
        return f"{self.model}{self.selector}"


def model_name(text: str) -> str:
    """Return ``text`` if it may name a model, else raise :class:`InvalidRef`.

    Parts of letters, digits, ``.``, ``_`` and ``-``, joined by ``/``; at most 64 characters a
    part and 200 in all. ``ledger`` and ``snapshots`` are the store's own words.
    """
    if not is_model_name(text):
        raise InvalidRef(
            "not a model name",
            found=repr(text)[:_MAX_NAME],
            expected="parts of up to 64 letters, digits, '.', '_', '-' joined by '/', such as team/sentiment",
        )
    return text


def is_model_name(text: object) -> bool:
    """Whether this may name a model; the rule is :func:`model_name`'s."""
    return (
        isinstance(text, str)
        and len(text) <= _MAX_NAME
        and all(_NAME_PART.fullmatch(part) and part not in _RESERVED for part in text.split("/"))
    )


def run_name(text: str) -> str:
    """Return ``text`` if it may name a training run, else raise :class:`InvalidRef`.

    The rule is :func:`model_name`'s; ``entries`` and ``progress`` are the store's own words, too.
    """
    if not is_run_name(text):
        raise InvalidRef(
            "not a run's name",
            found=repr(text)[:_MAX_NAME],
            expected="parts of up to 64 letters, digits, '.', '_', '-' joined by '/', such as team/sentiment-run",
        )
    return text


def is_run_name(text: object) -> bool:
    """Whether this may name a run; the rule is :func:`run_name`'s."""
    return is_model_name(text) and not _RESERVED_BELOW_RUNS & set(str(text).split("/"))


def alias_name(text: str) -> str:
    """Return ``text`` if it may name an alias, else raise :class:`InvalidRef`.

    A letter, then letters, digits, ``.``, ``_``, ``-``; at most 64 characters. ``blake3`` alone
    is fine: a digest is told apart by its colon.
    """
    if not _ALIAS.fullmatch(text):
        raise InvalidRef(
            "not an alias",
            found=repr(text[:_MAX_NAME]),
            expected="a letter, then letters, digits, '.', '_' or '-', such as production",
        )
    return text


def parse_version(text: str | SemVer) -> SemVer:
    """``1.2.0``, ``1.2.0-rc.1``, ``1.2.0+build`` as a :class:`SemVer`; else :class:`InvalidRef`."""
    if isinstance(text, SemVer):
        return text
    try:
        if len(text) > _MAX_NAME:
            raise ValueError
        return SemVer.parse(text)
    except (ValueError, TypeError):
        raise InvalidRef(
            "not a semantic version",
            found=repr(str(text)[:_MAX_NAME]),
            expected="major.minor.patch, such as 1.2.0",
            hint="drop a leading 'v' and write all three numbers; see https://semver.org",
        ) from None


def parse_digest(text: str) -> Digest:
    """A whole digest, checked; else :class:`InvalidRef`."""
    if not _DIGEST.fullmatch(text):
        raise InvalidRef("not a digest", found=repr(text[:_MAX_NAME]), expected="blake3:<64 hex digits>")
    return Digest(text)


def short_digest(digest: str) -> str:
    """As much of a digest as a ref needs: ``blake3:9f2c41d0``."""
    return digest[: len("blake3:") + 8]


def parse_ref(text: str) -> Ref:
    """Parse a ref as drawn in the module's table; else raise :class:`InvalidRef`."""
    if not isinstance(text, str):
        raise InvalidRef("not a ref", found=f"a {type(text).__name__}", expected="text, such as sentiment:1.2.0")
    if "@" in text:
        name, _, selector = text.partition("@")
        if selector.startswith("blake3:"):
            if not _DIGEST_PREFIX.fullmatch(selector):
                raise InvalidRef(
                    f"not a digest in ref {text[:_MAX_NAME]!r}",
                    found=repr(selector[:_MAX_NAME]),
                    expected="blake3: and 8 to 64 lower-case hex digits",
                )
            return Ref(model_name(name), ByDigest(selector))
        if _STEP.fullmatch(selector):
            return Ref(run_name(name), Step(int(selector)))
        return Ref(model_name(name), ByAlias(alias_name(selector)))
    name, colon, selector = text.partition(":")
    if not colon:
        return Ref(model_name(name))
    within = _WITHIN.fullmatch(selector)
    if within:
        major, minor = within.groups()
        return Ref(model_name(name), Within(int(major), None if minor is None else int(minor)))
    return Ref(model_name(name), Exact(parse_version(selector)))
