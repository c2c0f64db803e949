"""Weights moved into another network, with a full account: every tensor of the source and every variable of the model
is copied, copied in part, mismatched, missing, unused or excluded, and is told as such.

Everything is found, judged and read before the first value is assigned, so that a transfer is made whole or not at all.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Literal, TypeAlias

import keras
import numpy as np

from modelkeep import assets, manifest
from modelkeep.assets.hf_tokenizer import HuggingFaceTokenizer
from modelkeep.assets.keras_tokenizer import KerasTokenizer
from modelkeep.errors import NotFaithful, UsageError
from modelkeep.formats.contents import ForeignTensor
from modelkeep.formats.limits import DEFAULT, Limits
from modelkeep.live import internals, origins, variables
from modelkeep.live.correspondence import MATCHES, Correspondence, Holder, Match, correspond
from modelkeep.live.donor import Donated, Donor, holders, of_file, of_version, pairs, renamed
from modelkeep.live.internals import Variable
from modelkeep.live.matching import form_of, is_exact, kind_of
from modelkeep.live.network import Network, network_of
from modelkeep.live.stored import Stored
from modelkeep.live.tensors import Array, numpy_dtype
from modelkeep.live.vocabulary import Rows, remap, rows
from modelkeep.report import Finding, Report, Severity, plain
from modelkeep.storage.blobs import Blobs

OnMismatch: TypeAlias = Literal["refuse", "skip", "slice", "pad"]
Fate: TypeAlias = Literal["copied", "partial", "mismatched", "missing", "unused", "excluded"]
Patterns: TypeAlias = Sequence[str] | str
Vocabularies: TypeAlias = Mapping[str, Any] | Any

ON_MISMATCH = ("refuse", "skip", "slice", "pad")
FATES: tuple[Fate, ...] = ("copied", "partial", "mismatched", "missing", "unused", "excluded")


@dataclass(frozen=True)
class Outcome:
    """What became of one tensor, one variable, or a pair of them.

    ``source`` and ``target`` are what people call them (``encoder/dense/kernel``), ``tensor`` the name in the source;
    shapes and dtypes are those of either side, None where it has no part in it. ``rule`` is what paired them: path,
    name or structure. ``parameters`` counts the numbers that were copied, else those that were not.
    """

    fate: Fate
    parameters: int
    source: str | None = None
    tensor: str | None = None
    source_shape: tuple[int, ...] | None = None
    source_dtype: str | None = None
    target: str | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    rule: str | None = None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        value: dict[str, Any] = plain(vars(self))
        return value

    def finding(self, *, refused: bool) -> Finding:
        """The same as a finding of a report; a mismatch is its failure where it is ``refused``."""
        severity = Severity.FAILURE if refused and self.fate == "mismatched" else _SEVERITIES[self.fate]
        ours = "" if self.shape is None else form_of(self.shape, str(self.dtype))
        theirs = "" if self.source_shape is None else form_of(self.source_shape, str(self.source_dtype))
        words = [ours or theirs]
        differs = (self.source if self.source != self.target else "", theirs if theirs != ours else "")
        if self.source and self.target and any(differs):
            words[0] = " ".join(filter(None, (words[0], "from", *differs)))
        words += [f"by {self.rule}"] if self.rule else []
        words += [self.note] if self.note else []
        return Finding(self.fate, severity, ", ".join(words), self.target or self.source or "", self.to_json())


_SEVERITIES: Mapping[Fate, Severity] = {
    "copied": Severity.OK,
    "partial": Severity.WARNING,
    "mismatched": Severity.WARNING,
    "missing": Severity.NOTE,
    "unused": Severity.NOTE,
    "excluded": Severity.NOTE,
}


@dataclass(frozen=True)
class Transfer:
    """What a transfer did, or with ``dry_run`` would do. Prints as a table.

    ``frozen`` are the layers whose ``trainable`` it set to False, ``findings`` what else there is to know.
    """

    source: str
    model: str
    outcomes: tuple[Outcome, ...]
    frozen: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    refuses: bool = True  # what is mismatched
    dry_run: bool = False

    @property
    def copied(self) -> tuple[Outcome, ...]:
        """Variables that have all values of their tensor now."""
        return self._of("copied")

    @property
    def partial(self) -> tuple[Outcome, ...]:
        """Variables that have some of their tensor's values, or some values of it: sliced, padded, row by row."""
        return self._of("partial")

    @property
    def mismatched(self) -> tuple[Outcome, ...]:
        """Pairs whose shapes or dtypes differ; both are left as they were."""
        return self._of("mismatched")

    @property
    def missing(self) -> tuple[Outcome, ...]:
        """Variables that the source has nothing for."""
        return self._of("missing")

    @property
    def unused(self) -> tuple[Outcome, ...]:
        """Tensors of the source that went nowhere."""
        return self._of("unused")

    @property
    def excluded(self) -> tuple[Outcome, ...]:
        """Variables that were not to be touched."""
        return self._of("excluded")

    def _of(self, fate: Fate) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.fate == fate)

    @cached_property
    def report(self) -> Report:
        """All of it as a report; what refuses a transfer is among its failures."""
        findings = (*self.findings, *(outcome.finding(refused=self.refuses) for outcome in self.outcomes))
        refused = any(finding.severity is Severity.FAILURE for finding in findings)
        counts = ", ".join(self._summary(fate) for fate in FATES if self._of(fate))
        if refused or self.dry_run:
            counts = counts.replace("copied", "would be copied", 1)
        return Report(f"{self.source} into {self.model}: {counts}", findings, NotFaithful)

    def _summary(self, fate: Fate) -> str:
        found = self._of(fate)
        return f"{len(found)} {fate} ({sum(outcome.parameters for outcome in found):,} numbers)"

    def __str__(self) -> str:
        """The report: the worst first."""
        return str(self.report)

    def to_json(self) -> dict[str, Any]:
        """As JSON values: the lists by name, and the findings."""
        lists: dict[str, Any] = {fate: [outcome.to_json() for outcome in self._of(fate)] for fate in FATES}
        return {
            "source": self.source,
            "model": self.model,
            "ok": self.report.ok,
            "dry_run": self.dry_run,
            **lists,
            "frozen": list(self.frozen),
            "findings": [finding.to_json() for finding in self.findings],
        }

    def _repr_html_(self) -> str:
        return self.report._repr_html_()


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How a transfer is to be made; see :meth:`modelkeep.Keep.transfer`."""

    rename: Mapping[str, str] = field(default_factory=dict)
    include: Patterns = ()
    exclude: Patterns = ()
    freeze: bool = False
    on_mismatch: OnMismatch = "refuse"
    match: Match = "auto"
    vocabulary: Vocabularies = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (("on_mismatch", self.on_mismatch, ON_MISMATCH), ("match", self.match, MATCHES)):
            if value not in known:
                raise UsageError(f"{name} is not one of those there are", found=repr(value), expected=", ".join(known))

    @property
    def options(self) -> dict[str, Any]:
        """What shaped the transfer, as JSON values: for the lineage."""
        given = {
            "rename": dict(self.rename),
            "include": list(_patterns(self.include)),
            "exclude": list(_patterns(self.exclude)),
            "freeze": self.freeze,
            "on_mismatch": self.on_mismatch if self.on_mismatch != "refuse" else None,
            "match": self.match if self.match != "auto" else None,
            "vocabulary": self.vocabulary is not None,
        }
        return {name: value for name, value in given.items() if value}


def _patterns(given: Patterns) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def source_tokenizer(version: manifest.Manifest, stored: Stored) -> Any:
    """The only tokenizer among a version's assets. Raises UsageError where there is none, or more than one."""
    found = [asset for asset in version.assets if asset.kind in (KerasTokenizer.kind, HuggingFaceTokenizer.kind)]
    if len(found) != 1:
        raise UsageError(
            f"which tokenizer {version.model}:{version.version} was trained with is not clear",
            found=", ".join(asset.name for asset in found) or "none among its assets",
            hint="give the old one, too: vocabulary=(old, new)",
        )
    return assets.unpack(found[0], stored.part, stored.tensor, trust=())


def from_version(
    version: manifest.Manifest, blobs: Blobs, into: keras.Model, terms: Terms, *, name: str, digest: str
) -> Transfer:
    """:func:`transfer` from a version, or a checkpoint's manifest; ``name`` is its ref, ``digest`` the manifest's."""
    network = network_of(into)
    donor = of_version(version, blobs, network, name=name, digest=digest)
    return transfer(donor, network, terms, tokenizer=lambda: source_tokenizer(version, Stored(version, blobs)))


def from_file(
    path: Path, into: keras.Model, terms: Terms, *, allow: Sequence[str] = (), limits: Limits = DEFAULT
) -> Transfer:
    """:func:`transfer` from a file or folder of any form, scanned first."""
    network = network_of(into)
    with of_file(path, network, allow=allow, limits=limits) as donor:
        return transfer(donor, network, terms)


def transfer(donor: Donor, network: Network, terms: Terms, *, tokenizer: Callable[[], Any] | None = None) -> Transfer:
    """Give a model the weights of a donor, as far as they fit; all that is to be copied, or nothing.

    ``tokenizer`` gives the source's own, where a vocabulary is asked for and the old one is not told. Raises
    UsageError for patterns that name nothing, NotFaithful with the whole report where a pair does not fit and is
    not to be skipped, or nothing would be copied; IntegrityError where the source is damaged.
    """
    plan = _Plan(donor, network, terms, tokenizer)
    result = plan.result()
    if terms.dry_run:
        return result
    result.report.raise_for_failures()
    values = [(step.variable, step.values()) for step in plan.steps if step.is_taken]
    for variable, array in values:
        variables.run_initializers([variable])
        variables.assign(variable, array)
    for _, node in internals.walk(network.model):
        internals.finish(node)
    for layer in plan.frozen_layers:
        layer.trainable = False
    origins.note(network.model, _origin(donor, result, terms))
    return result


def _origin(donor: Donor, result: Transfer, terms: Terms) -> manifest.Transfer:
    counts = {
        fate: manifest.Count(tensors=len(found), parameters=sum(outcome.parameters for outcome in found))
        for fate in FATES
        if fate != "excluded"
        for found in [result._of(fate)]
    }
    return manifest.Transfer(source=donor.source, digest=donor.digest, options=terms.options, **counts)


# --- names


def _at_whole_names(pattern: str) -> re.Pattern[str]:
    """A regular expression that matches one or several whole names of a path."""
    try:
        return re.compile(rf"(?<![^/])(?:{pattern})(?![^/])")
    except re.error as error:
        raise UsageError(
            f"not a regular expression: {error}", found=repr(pattern), hint=r"write \. for a dot, .* for anything"
        ) from error


class _Renaming:
    """Patterns and what they are replaced by, one after the other, in names of the source."""

    def __init__(self, rename: Mapping[str, str]) -> None:
        self._rules = [(pattern, _at_whole_names(pattern), new) for pattern, new in rename.items()]
        self._unused = set(rename)

    def __call__(self, name: str) -> str:
        for pattern, expression, new in self._rules:
            try:
                after, count = expression.subn(new, name)
            except (re.error, IndexError) as error:
                raise UsageError(f"{new!r} refers to what {pattern!r} has not: {error}") from error
            if count:
                self._unused.discard(pattern)
                name = re.sub("/+", "/", after).strip("/")
        return name

    def check(self, names: Iterable[str]) -> None:
        _refuse_unused("rename", self._unused, "the source", names)


def _refuse_unused(option: str, patterns: Iterable[str], whose: str, names: Iterable[str]) -> None:
    unused = sorted(patterns)
    if unused:
        layers = dict.fromkeys(name.rpartition("/")[0] or name for name in names)
        raise UsageError(
            f"{option} names nothing of {whose}: {', '.join(map(repr, unused))}",
            expected=f"whole names, such as {', '.join(list(layers)[:5])}",
            hint="patterns are regular expressions of one or several whole names: block_1.*, encoder/dense",
        )


# --- what becomes of each


@dataclass
class _Step:
    """A tensor and the variable it is for: whether it fits, and what the variable is then given."""

    parts: tuple[Donated, ...]  # what the tensor is made of
    tensor: ForeignTensor
    variable: Variable
    rule: str
    on_mismatch: OnMismatch
    rows: Rows | None = None
    axis: int = 0
    left: str = ""  # why it is left though it fits

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(length) for length in self.variable.shape)

    @cached_property
    def dtype(self) -> str:
        return variables.held_dtype(self.variable)

    @cached_property
    def fault(self) -> str:
        """Why the tensor's values cannot go into the variable; empty where they can."""
        if kind_of(self.tensor.dtype) != kind_of(self.dtype):
            return f"{self.tensor.dtype} is no {self.dtype}"
        if self.rows is not None:
            return self._vocabulary_fault(self.rows)
        if self.tensor.shape == self.shape:
            return ""
        if len(self.tensor.shape) == len(self.shape):
            fits = {"slice": all(map(int.__ge__, self.tensor.shape, self.shape))}
            fits["pad"] = all(map(int.__le__, self.tensor.shape, self.shape))
            if fits.get(self.on_mismatch):
                return ""
        if self.on_mismatch in ("slice", "pad"):
            return f"the source cannot be {_DONE[self.on_mismatch]} to that shape"
        return (
            "the shapes differ (on_mismatch: skip, slice or pad)"
            if self.on_mismatch == "refuse"
            else "the shapes differ"
        )

    def _vocabulary_fault(self, follows: Rows) -> str:
        lengths = [shape[self.axis] if shape else 0 for shape in (self.tensor.shape, self.shape)]
        for length, size, whose in zip(lengths, follows.sizes, ("old", "new"), strict=True):
            if length < size:
                return f"the {whose} vocabulary has {size} indices, {length} rows are there"
        ours, theirs = list(self.shape), list(self.tensor.shape)
        del ours[self.axis], theirs[self.axis]
        return "" if ours == theirs else "the shapes differ in more than the vocabulary"

    @property
    def is_taken(self) -> bool:
        return not self.fault and not self.left

    @property
    def is_whole(self) -> bool:
        return self.is_taken and self.rows is None and self.tensor.shape == self.shape

    @property
    def block(self) -> tuple[slice, ...]:
        """The leading block that both have."""
        return tuple(slice(min(pair)) for pair in zip(self.tensor.shape, self.shape, strict=True))

    def outcome(self, source: str, target: str) -> Outcome:
        fate: Fate = "copied" if self.is_whole else "partial" if self.is_taken else "mismatched"
        return Outcome(
            fate,
            self._parameters(),
            source=source,
            tensor=self.tensor.name,
            source_shape=self.tensor.shape,
            source_dtype=self.tensor.dtype,
            target=target,
            shape=self.shape,
            dtype=self.dtype,
            rule=self.rule,
            note=self._note(),
        )

    def _parameters(self) -> int:
        if not self.is_taken or self.is_whole:
            return prod(self.shape)
        if self.rows is not None:
            return len(self.rows.kept[0]) * prod(self.shape) // (self.shape[self.axis] or 1)
        return prod(each.stop for each in self.block)

    def _note(self) -> str:
        if not self.is_taken:
            return self.fault or self.left
        words = []
        if self.rows is not None:
            words.append(str(self.rows))
        elif not self.is_whole:
            words.append(f"{_DONE[self.on_mismatch]} to {[each.stop for each in self.block]}")
            if self.on_mismatch == "pad":
                words.append("the rest stays as it was")
        if not is_exact(self.tensor.dtype, self.dtype):
            words.append(f"{self.dtype} rounds it")
        elif self.tensor.dtype != self.dtype:
            words.append(f"as {self.dtype} with equal values")
        return ", ".join(words)

    def values(self) -> Array:
        """What the variable is given, in its dtype and in memory of its own."""
        found = _converted(self.tensor, self.dtype)
        if self.is_whole:
            return found
        variables.run_initializers([self.variable])
        now = np.array(keras.ops.convert_to_numpy(self.variable)).astype(numpy_dtype(self.dtype))
        if self.rows is not None:
            return remap(found, now, self.rows, self.axis)
        now[self.block] = found[self.block]
        return now


_DONE = {"slice": "sliced", "pad": "padded"}


def _converted(tensor: ForeignTensor, dtype: str) -> Array:
    found = tensor.read()
    if found.shape != tensor.shape or found.dtype.name != tensor.dtype:
        raise NotFaithful(
            f"{tensor.name} is not what the source declared",
            found=form_of(found.shape, found.dtype.name),
            expected=form_of(tensor.shape, tensor.dtype),
        )
    held = numpy_dtype(dtype)
    if found.dtype == held:
        return found if found.flags.owndata and found.flags.writeable else found.copy()
    with np.errstate(over="ignore"):
        converted = found.astype(held)
    if kind_of(dtype) == "int" and not np.array_equal(converted, found):
        raise NotFaithful(f"{tensor.name} has values that {dtype} cannot hold", found=f"{found.min()} to {found.max()}")
    wide = converted.astype(found.dtype)
    if not is_exact(tensor.dtype, dtype) and bool((np.isfinite(found) & ~np.isfinite(wide)).any()):
        raise NotFaithful(f"{tensor.name} has values that {dtype} cannot hold", found=f"up to {np.abs(found).max()}")
    return converted


class _Plan:
    """What is to go where, found before anything is done."""

    def __init__(self, donor: Donor, network: Network, terms: Terms, tokenizer: Callable[[], Any] | None) -> None:
        self.network, self.terms, self.tokenizer = network, terms, tokenizer
        self.donor = donor
        self.targets = _unambiguous(
            (id(v), network.names[id(v)], v.path) for holder in network.holders for v in _variables(holder)
        )
        self.sources = _unambiguous((id(one.tensor), one.name, one.tensor.name) for one in donor.tensors)
        self.excluded = self._excluded()
        self.found = self._correspond()
        self.steps = list(self._steps())
        self._ask_vocabularies()
        self._leave_layers_whole()

    def _excluded(self) -> set[int]:
        left: set[int] = set()
        for option, given, wanted in (("include", self.terms.include, True), ("exclude", self.terms.exclude, False)):
            patterns = {pattern: _at_whole_names(pattern) for pattern in _patterns(given)}
            hits = {p: {key for key, name in self.targets.items() if e.search(name)} for p, e in patterns.items()}
            _refuse_unused(option, [p for p, hit in hits.items() if not hit], "the model", self.targets.values())
            named = set().union(*hits.values())
            left |= (self.targets.keys() - named if wanted else named) if patterns else set()
        return left

    def _correspond(self) -> Correspondence[Donated, Variable]:
        rename = _Renaming(self.terms.rename)
        tensors = [renamed(one, rename(one.name), self.network) for one in self.donor.tensors]
        rename.check(self.sources.values())
        closed = [h for h in self.network.holders if all(id(v) in self.excluded for v in _variables(h))]
        return correspond(holders(tensors, self.network), self.network.holders, self.terms.match, closed)

    def _steps(self) -> Iterator[_Step]:
        for source, target, rule in self.found.pairs:
            layer = self.network.layers[id(target)]
            for parts, tensor, variable in pairs(self.donor, source, target, layer):
                if id(variable) not in self.excluded:
                    yield _Step(parts, tensor, variable, rule, self.terms.on_mismatch)

    # --- vocabularies

    def _ask_vocabularies(self) -> None:
        for pattern, given in self._vocabularies().items():
            expression = _at_whole_names(pattern)
            steps = [step for step in self.steps if expression.search(self.targets[id(step.variable)])]
            _refuse_unused("vocabulary", [] if steps else [pattern], "what fits together", self.targets.values())
            old, new = given if isinstance(given, tuple) and len(given) == 2 else (None, given)
            follows = rows(self._own_tokenizer() if old is None else old, new)
            embeddings = {id(v) for h in self.network.holders if h.kind == "Embedding" for v in _variables(h)}
            for step in steps:
                step.rows, step.axis = follows, 0 if id(step.variable) in embeddings else -1

    def _vocabularies(self) -> Mapping[str, Any]:
        given = self.terms.vocabulary
        if given is None or isinstance(given, Mapping):
            return given or {}
        found = [h for h in self.network.holders if h.kind == "Embedding"]
        if len(found) != 1:
            raise UsageError(
                "which embedding the vocabulary is of is not clear",
                found=", ".join(holder.name for holder in found) or "no embedding",
                hint="name it: vocabulary={'embedding': (old, new)}",
            )
        return {re.escape(found[0].name): given}

    def _own_tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise UsageError(
                f"{self.donor.name} has no tokenizer of its own", hint="give the old one, too: vocabulary=(old, new)"
            )
        return self.tokenizer()

    # --- the account

    def _leave_layers_whole(self) -> None:
        """What belongs to one layer is skipped with it: a bias without its kernel is of no use."""
        faults: dict[str, str] = {}
        for step in self.steps:
            if step.fault:
                faults.setdefault(self._owner(step.variable), self.targets[id(step.variable)])
        for step in self.steps:
            name = faults.get(self._owner(step.variable))
            if name is not None and not step.fault:
                step.left = f"left with its layer, of which {name.rpartition('/')[2]} does not fit"

    def _owner(self, variable: Variable) -> str:
        return self.targets[id(variable)].rpartition("/")[0]

    def result(self) -> Transfer:
        outcomes = (*self._moved(), *self._missing(), *self._unused(), *self._left_out())
        name = f"the model {self.network.model.name!r}"
        frozen = tuple(holder.name for holder in self._whole_holders()) if self.terms.freeze else ()
        findings = tuple(self._findings(outcomes))
        refuses = self.terms.on_mismatch != "skip"
        return Transfer(self.donor.name, name, outcomes, frozen, findings, refuses, self.terms.dry_run)

    def _moved(self) -> Iterator[Outcome]:
        steps = {id(step.variable): step for step in self.steps}
        for key, name in self.targets.items():
            if key in steps:
                source = ", ".join(self.sources[id(part.tensor)] for part in steps[key].parts)
                yield steps[key].outcome(source, name)

    def _missing(self) -> Iterator[Outcome]:
        taken = {id(step.variable) for step in self.steps} | self.excluded
        return (_of_variable("missing", v, self.targets) for v in self._all_variables() if id(v) not in taken)

    def _left_out(self) -> Iterator[Outcome]:
        return (_of_variable("excluded", v, self.targets) for v in self._all_variables() if id(v) in self.excluded)

    def _all_variables(self) -> Iterator[Variable]:
        return (variable for holder in self.network.holders for variable in _variables(holder))

    def _unused(self) -> Iterator[Outcome]:
        taken = {id(part.tensor) for step in self.steps for part in step.parts}
        for one in self.donor.tensors:
            if id(one.tensor) not in taken:
                tensor = one.tensor
                yield Outcome(
                    "unused",
                    prod(tensor.shape),
                    source=self.sources[id(tensor)],
                    tensor=tensor.name,
                    source_shape=tensor.shape,
                    source_dtype=tensor.dtype,
                )

    def _findings(self, outcomes: Sequence[Outcome]) -> Iterator[Finding]:
        if not any(outcome.fate in ("copied", "partial") for outcome in outcomes):
            why = "; ".join(self.found.doubts) or "no layer of the source is one of the model"
            yield Finding("nothing", Severity.FAILURE, f"nothing would be copied: {why}; rename tells which is which")
        for doubt in self.found.doubts:
            yield Finding("structure", Severity.WARNING, doubt)
        if self.donor.states:
            text = f"{len(self.donor.states)} states of generators, metrics and optimizers stay where they are"
            yield Finding("states", Severity.NOTE, text, details={"names": list(self.donor.states)})
        yield from self._about_training()

    # --- training

    @cached_property
    def frozen_layers(self) -> tuple[keras.Layer, ...]:
        """Every layer and inner model all of whose weights are copied whole, if that is to be frozen."""
        if not self.terms.freeze:
            return ()
        whole = {id(step.variable) for step in self.steps if step.is_whole}
        layers = [node for path, node in internals.walk(self.network.model) if path and isinstance(node, keras.Layer)]
        weights = [(layer, [v for v in layer.weights if id(v) in self.targets]) for layer in layers]
        return tuple(layer for layer, held in weights if held and all(id(v) in whole for v in held))

    def _whole_holders(self) -> list[Holder[Variable]]:
        whole = {id(step.variable) for step in self.steps if step.is_whole}
        return [h for h in self.network.holders if all(id(v) in whole for v in _variables(h))]

    def _about_training(self) -> Iterator[Finding]:
        model = self.network.model
        if self.terms.freeze:
            yield from self._about_freezing()
        optimizer = getattr(model, "optimizer", None)
        if optimizer is not None and optimizer.built:
            text = "its optimizer keeps the slots of the weights that were there before; compile again for fresh ones"
            yield Finding("optimizer", Severity.WARNING, text)

    def _about_freezing(self) -> Iterator[Finding]:
        whole = self._whole_holders()
        text = f"{'would be' if self.terms.dry_run else 'is'} frozen: all its weights are copied"
        for holder in whole:
            yield Finding("frozen", Severity.NOTE, text, holder.name)
        some = {id(step.variable) for step in self.steps if step.is_taken}
        for holder in self.network.holders:
            if holder not in whole and any(id(v) in some for v in _variables(holder)):
                yield Finding("not-frozen", Severity.WARNING, "stays trainable: copied in part", holder.name)
        if self.network.model.compiled and any(layer.trainable for layer in self.frozen_layers):
            text = "what is trained was settled by compile; compile again so that frozen layers stay as they are"
            yield Finding("compile-again", Severity.WARNING, text)


def _variables(holder: Holder[Variable]) -> Iterator[Variable]:
    return (weight.item for weight in holder.weights)


def _of_variable(fate: Fate, variable: Variable, names: Mapping[int, str]) -> Outcome:
    shape = tuple(int(length) for length in variable.shape)
    dtype = variables.held_dtype(variable)
    return Outcome(fate, prod(shape), target=names[id(variable)], shape=shape, dtype=dtype)


def _unambiguous(named: Iterable[tuple[int, str, str]]) -> dict[int, str]:
    """What to call each thing: by its name where that is its alone, else by the other one, too."""
    listed = list(named)
    count = Counter(name for _, name, _ in listed)
    return {key: name if count[name] == 1 else f"{name} ({other})" for key, name, other in listed}
