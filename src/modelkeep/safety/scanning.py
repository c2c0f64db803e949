"""Whether a foreign file is safe to open: read to the last byte in a confined process, and every rule asked."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from modelkeep.errors import (
    IntegrityError,
    LimitExceeded,
    MissingExtra,
    ModelkeepError,
    NotFound,
    StorageError,
    UnsafeContent,
    UsageError,
)
from modelkeep.formats import forms
from modelkeep.formats.contents import Contents, Problem
from modelkeep.formats.limits import DEFAULT, MIB, Limits
from modelkeep.report import Finding, Report, Severity
from modelkeep.safety import archives, configs, confinement, graphs, hdf5, members, pickles, sandbox, saved_model
from modelkeep.safety.rules import RULES, Level

_ENTERED = (
    archives,
    hdf5,
)  # their import enters their rules
_MOST_OF_A_RULE = 25  # findings that are told one by one
_CHUNK = 16 * MIB


@dataclass(frozen=True, slots=True)
class ScanFinding:
    """One place where a file breaks a rule; ``allowed`` where that was let pass by name."""

    rule: str
    level: Level
    message: str
    place: str = ""
    allowed: bool = False

    def to_json(self) -> dict[str, Any]:
        """As JSON values, with the rule's title and the advisories it answers."""
        rule = RULES.get(self.rule)
        return {
            "rule": self.rule,
            "level": str(self.level),
            "title": rule.title if rule else "",
            "message": self.message,
            "place": self.place,
            "allowed": self.allowed,
            "advisories": list(rule.advisories) if rule else [],
        }


@dataclass(frozen=True)
class Scan:
    """What a scan found. ``digest`` is of the file's bytes, of a folder's names and files' digests.

    ``unconfined`` names what this system could not take from the process that looked.
    """

    path: Path
    form: str | None
    digest: str
    findings: tuple[ScanFinding, ...]
    strict: bool = False
    unconfined: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the file or folder is called; the one that one is in has a name, too."""
        return self.path.absolute().name

    @property
    def ok(self) -> bool:
        """Nothing is refused."""
        return not self.refused

    @property
    def refused(self) -> tuple[ScanFinding, ...]:
        """The findings for which the file is refused: critical and high (strict: medium) ones that were not allowed."""
        return tuple(finding for finding in self.findings if self._refuses(finding))

    def _refuses(self, finding: ScanFinding) -> bool:
        levels = (Level.CRITICAL, Level.HIGH, Level.MEDIUM)[: 3 if self.strict else 2]
        return finding.level in levels and not finding.allowed

    @cached_property
    def report(self) -> Report:
        """The findings as a report, which fails where the file is refused."""
        title = forms.title_of(self.form) if self.form else "a file of no known form"
        looked = [Finding("scanned", Severity.OK, f"{title}, {self.digest}")]
        if self.unconfined:
            lacking = f"this system does not confine the process that looks by: {', '.join(self.unconfined)}"
            looked.append(Finding("unconfined", Severity.NOTE, lacking))
        return Report(self.name, (*map(self._finding, self.findings), *looked), UnsafeContent)

    def _finding(self, finding: ScanFinding) -> Finding:
        severity = Severity.WARNING if finding.level is not Level.LOW else Severity.NOTE
        severity = Severity.FAILURE if self._refuses(finding) else severity
        told = f"{finding.level}{', allowed' if finding.allowed else ''}: {finding.message}"
        return Finding(finding.rule, severity, told, subject=finding.place, details=finding.to_json())

    def raise_for_failures(self) -> None:
        """Raise UnsafeContent, naming every rule for which the file is refused, unless :attr:`ok`."""
        if self.ok:
            return
        lines = [
            f"  - {finding.rule} ({finding.level}): {finding.message}"
            + (f", at {finding.place}" if finding.place else "")
            for finding in self.refused
        ]
        waivable = {finding.rule for finding in self.refused if _waivable(finding.rule)}
        hint = (
            f"if you know what it does and trust it: --allow {' --allow '.join(sorted(waivable))}" if waivable else None
        )
        error = UnsafeContent("\n".join([f"{self.name} was refused:", *lines]), hint=hint)
        error.report = self.report
        raise error

    def __str__(self) -> str:
        return str(self.report)

    def _repr_html_(self) -> str:
        return self.report._repr_html_()

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "path": str(self.path),
            "form": self.form,
            "digest": self.digest,
            "ok": self.ok,
            "findings": [finding.to_json() for finding in self.findings],
            "unconfined": list(self.unconfined),
        }

    def to_sarif(self) -> dict[str, Any]:
        """As a SARIF 2.1.0 log of one run."""
        from modelkeep.safety.sarif import log

        return log([self])


def scan(
    path: str | os.PathLike[str], *, limits: Limits = DEFAULT, allow: Sequence[str] = (), strict: bool = False
) -> Scan:
    """Judge a file or folder of any form that is known, and pickles, without running anything of it.

    It is looked at in a process of its own (:mod:`modelkeep.safety.sandbox`), which never imports Keras or a
    backend. Rules in ``allow`` may be broken; ``strict`` refuses what is of medium level, too.

    Raises NotFound, UsageError for a path that is no file or folder or a rule that cannot be allowed,
    MissingExtra where the form needs a package that is not installed, StorageError.
    """
    path = forms.look(Path(path)).path  # a checkpoint is named by what its files begin with
    _check_allowed(allow)
    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(digest_of, forms.look(path).path)
        try:
            told = sandbox.call("modelkeep.safety.scanning:scan_here", path, limits=limits)
        except UnsafeContent as error:
            told = {"form": None, "problems": [_as_json(_problem_of(error))], "unconfined": []}
    findings = tuple(_finding(*problem, allow=allow) for problem in told["problems"])
    return Scan(path, told["form"], digest.result(), findings, strict, tuple(told["unconfined"]))


def scan_here(path: Path, *, limits: Limits) -> dict[str, Any]:
    """``form``, ``problems``, ``unconfined``, found in this very process: what :func:`scan` has a child do."""
    form = None
    problems: list[Problem] = []
    try:
        with forms.open_contents(path, limits, thorough=True) as contents:
            form = contents.form
            for question in QUESTIONS:
                problems += question(contents, limits)
        problems += _check_ending(path, form)
    except (NotFound, StorageError, MissingExtra, ModuleNotFoundError):
        raise
    except ModelkeepError as error:
        problems.append(_problem_of(error))
    except MemoryError:
        problems.append(Problem("limit", "looking at it takes too much memory"))
    except Exception as error:  # noqa: BLE001 - a reader that stumbles has not said that the file is clean
        problems.append(Problem("not-scanned", f"{type(error).__name__}: {str(error)[:300]}"))
    told = [_as_json(problem) for problem in _told(problems)]
    return {"form": form, "problems": told, "unconfined": list(confinement.absent())}


def digest_of(path: Path) -> str:
    """The digest of a file, or of the names and digests of all files in a folder; links count by where they lead."""
    from modelkeep.storage.hashing import digest_of_stream

    if not path.is_dir():
        return digest_of_stream(_chunks(path))
    lines = (f"{file.relative_to(path).as_posix()}\0{_digest_or_target(file)}\0" for file in _files(path))
    return digest_of_stream(line.encode("utf-8", "surrogateescape") for line in lines)


# --- what is asked of the contents


def _own_problems(contents: Contents, limits: Limits) -> Iterable[Problem]:
    return contents.problems


def _configs(contents: Contents, limits: Limits) -> Iterator[Problem]:
    parameters = contents.parameters if contents.tensors else None
    if contents.config is not None:
        if not isinstance(contents.config, dict) or "class_name" not in contents.config:
            yield Problem("malformed-config", "a config that is of no model", "config")
        yield from configs.check(contents.config, parameters=parameters, limits=limits)
    # Keras 3 keeps the compile config inside the config, and readers may give it once more.
    inside = contents.config.get("compile_config") if isinstance(contents.config, dict) else None
    if not isinstance(contents.compile, dict | None):
        yield Problem("malformed-config", "compile arguments without names", "compile")
    if contents.compile is not None and contents.compile != inside:
        yield from configs.check(contents.compile, place="compile", parameters=parameters, limits=limits)


QUESTIONS: tuple[Callable[[Contents, Limits], Iterable[Problem]], ...] = (
    _own_problems,
    _configs,
    pickles.check,
    members.check,
    saved_model.check,
    graphs.check,
)


def _check_ending(path: Path, form: str) -> Iterator[Problem]:
    """A name that ends as another form's files do."""
    name = path.name.lower()
    claimed = [one for one in forms.all_forms() if any(name.endswith(ending) for ending in one.endings)]
    # TensorFlow 2.12 wrote HDF5 under .keras unless it was asked for the new format.
    if (
        path.is_dir()
        or not claimed
        or any(form in one.names for one in claimed)
        or (form, path.suffix) == ("h5", ".keras")
    ):
        return
    yield Problem("wrong-ending", f"{forms.title_of(form)} under the name of {claimed[0].title}", path.name)


# --- problems and findings


def _as_json(problem: Problem) -> list[str]:
    return [problem.rule, problem.message, problem.place]


def _problem_of(error: ModelkeepError) -> Problem:
    """What an error of a reader means: the rule that it names, or the one for its kind."""
    found = str(error.found or "")
    message = str(error).partition("\n")[0]
    if found in RULES:
        return Problem(found, error.what)
    if isinstance(error, LimitExceeded):
        return Problem("limit", message)
    if isinstance(error, IntegrityError):
        return Problem("damaged", message)
    if isinstance(error, UsageError) and "no kind of model file" in error.what:
        return Problem("unknown-form", message)
    return Problem("not-scanned", message)


def _told(problems: Sequence[Problem]) -> Iterator[Problem]:
    """The first findings of each rule, and how many more there are."""
    counts: Counter[str] = Counter()
    for problem in problems:
        counts[problem.rule] += 1
        if counts[problem.rule] <= _MOST_OF_A_RULE:
            yield problem
    for rule, count in counts.items():
        if count > _MOST_OF_A_RULE:
            yield Problem(rule, f"and {count - _MOST_OF_A_RULE:,} more")


def _finding(rule: str, message: str, place: str, *, allow: Sequence[str]) -> ScanFinding:
    # What a reader calls by a name that no rule has is not taken for harmless.
    level = RULES[rule].level if rule in RULES else Level.HIGH
    return ScanFinding(rule, level, message, place, rule in allow)


def _waivable(rule: str) -> bool:
    return rule in RULES and RULES[rule].waivable


def _check_allowed(allow: Sequence[str]) -> None:
    for rule in allow:
        if rule not in RULES:
            close = get_close_matches(rule, RULES)
            raise UsageError(
                "there is no such rule", found=repr(rule), hint=f"did you mean {close[0]!r}?" if close else None
            )
        if not RULES[rule].waivable:
            raise UsageError(f"the rule {rule!r} cannot be allowed", hint="nobody knows what would be let pass")


# --- digests


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if file.is_symlink() or not file.is_dir())


def _digest_or_target(file: Path) -> str:
    from modelkeep.storage.hashing import digest_of_stream

    if file.is_symlink():
        return f"-> {os.readlink(file)}"
    return digest_of_stream(_chunks(file)) if file.is_file() else "not a file"


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk
