"""Every rule that a foreign file can break: how bad that is, why, and the published weakness it answers.

Levels
------
``critical`` is refused always, unless the rule is allowed by name for one file; ``high`` likewise; ``medium``
is a warning, which a strict policy refuses; ``low`` is a note.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is when a rule is broken."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. ``id`` is stable and kebab-case; ``advisories`` are published weaknesses it answers."""

    id: str
    level: Level
    title: str
    why: str
    advisories: tuple[str, ...] = ()
    waivable: bool = True  # whether a file may be let break it: not where nobody knows what is being let pass


RULES: dict[str, Rule] = {}


def rules(*added: Rule) -> None:
    """Enter rules into ``RULES``; an id is used once."""
    for rule in added:
        assert rule.id not in RULES, rule.id
        RULES[rule.id] = rule


rules(
    # --- the file as a whole
    Rule(
        "not-scanned",
        Level.HIGH,
        "A part could not be looked at",
        "What cannot be read as its form demands cannot be judged either; a reader that is more lenient may do with it "
        "whatever its author wished.",
        waivable=False,
    ),
    Rule(
        "damaged",
        Level.HIGH,
        "Bytes are not what their checksums say",
        "The file was cut off or changed after it was written.",
    ),
    Rule(
        "limit",
        Level.HIGH,
        "A limit was exceeded",
        "The file asks for more memory, time or nesting than models need. Limits can be raised where it is trusted.",
        ("CVE-2026-0897",),
    ),
    Rule(
        "unknown-form",
        Level.HIGH,
        "No kind of model file",
        "Nothing that is known begins so; a program that opens it anyway guesses.",
        waivable=False,
    ),
    Rule(
        "wrong-ending",
        Level.HIGH,
        "The name claims another form than the bytes",
        "Programs that choose a reader by the name would read it otherwise than it was looked at here: a pickle named "
        ".keras, say.",
    ),
    # --- configs of Keras
    Rule(
        "code-by-value",
        Level.CRITICAL,
        "Python bytecode in the place of a function",
        "Keras kept lambdas as marshalled bytecode, which runs whatever it holds, at load. Keras 2 has no way to "
        "refuse it, Keras 3 had several ways around its refusal.",
        ("CVE-2024-3660", "CVE-2025-9905", "CVE-2025-9906"),
    ),
    Rule(
        "foreign-module",
        Level.CRITICAL,
        "A class or function of Python's own library",
        "A config that names os, subprocess or builtins makes a reader import and call what no network is made of.",
        ("CVE-2025-1550",),
    ),
    Rule(
        "gadget",
        Level.CRITICAL,
        "A part of Keras that no network is made of",
        "Functions of Keras that fetch files, load other models, or switch the safe mode off do so when a config names "
        "them.",
        ("CVE-2025-8747", "CVE-2025-9906"),
    ),
    Rule(
        "foreign-layer",
        Level.CRITICAL,
        "A layer that runs another program's model",
        "TFSMLayer loads a SavedModel from a path, TorchModuleWrapper unpickles what it holds.",
        ("CVE-2025-49655", "CVE-2026-1462"),
    ),
    Rule(
        "function-layer",
        Level.HIGH,
        "A layer made of functions from outside",
        "JaxLayer and FlaxLayer call functions that the file names.",
    ),
    Rule(
        "tensorflow-operation",
        Level.CRITICAL,
        "An operation of TensorFlow that reaches outside the network",
        "Keras 2 keeps plain operations by name, and the name may be that of one that reads or writes files, or runs "
        "Python.",
    ),
    Rule(
        "registered-name",
        Level.HIGH,
        "A class of Keras under another name",
        "Readers look the registered name up first, so a config can say Dense and get something else.",
        ("CVE-2025-1550",),
    ),
    Rule(
        "file-argument",
        Level.HIGH,
        "An argument that names a file or an address",
        "Lookup layers read their vocabulary from a path or a URL: any file of this machine, or a request in its name.",
        ("CVE-2025-12058",),
    ),
    Rule(
        "outside-reference",
        Level.MEDIUM,
        "A path or an address in the config of a custom object",
        "What the custom class does with it is for its author to say.",
    ),
    Rule(
        "layer-name",
        Level.HIGH,
        "A name that would leave its folder",
        "Names of layers become paths inside weights files.",
    ),
    Rule(
        "malformed-config",
        Level.HIGH,
        "A config that Keras would not have written",
        "Its parts are not of the kinds that a config is made of.",
    ),
    Rule(
        "declared-size",
        Level.HIGH,
        "Layers far larger than the weights in the file",
        "A few bytes of config can make a reader take gigabytes before it looks at the weights.",
    ),
    Rule(
        "custom-object",
        Level.MEDIUM,
        "A class or function that is not Keras' own",
        "It is never imported because a file names it; it has to be given by whoever loads the file.",
    ),
    # --- text
    Rule(
        "tokenizer-inconsistent",
        Level.MEDIUM,
        "A tokenizer that contradicts itself",
        "Words have no number, one number twice, or another in index_word than in word_index: texts would mean "
        "something else than in training.",
    ),
)
