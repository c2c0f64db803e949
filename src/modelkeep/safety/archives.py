"""The rules of zip and tar files, of JSON and YAML, and of the plain forms that lie in them or beside them."""

from __future__ import annotations

from modelkeep.safety.rules import Level, Rule, rules

_TRAVERSAL = ("CVE-2025-12060", "CVE-2025-12638")
_TWO_READINGS = (
    "Programs differ in what they believe, so that a scanner sees one file and the program that loads it another."
)

rules(
    # --- zip
    Rule("zip-mismatch", Level.CRITICAL, "A zip that says two things of one member", _TWO_READINGS),
    Rule("zip-two-ends", Level.CRITICAL, "A zip with two ends", _TWO_READINGS),
    Rule(
        "zip-overlap",
        Level.CRITICAL,
        "Members that share bytes",
        "One run of bytes under many names unpacks to many times the file; and a member can hide in another.",
        ("CVE-2024-0450",),
    ),
    Rule("zip-duplicate-name", Level.CRITICAL, "Two members of one name", _TWO_READINGS),
    Rule(
        "zip-similar-name",
        Level.HIGH,
        "Two members whose names differ in case only",
        "They are one file where the file system does not tell case apart, and which of the two is left differs.",
    ),
    Rule(
        "zip-path",
        Level.CRITICAL,
        "A member whose name leads elsewhere",
        "An absolute name, one with '..', a drive or a backslash is written outside the folder that it is unpacked to.",
        _TRAVERSAL,
    ),
    Rule(
        "zip-special-file",
        Level.CRITICAL,
        "A link or device in a zip",
        "What is written through a link, or read from it, lies outside the archive.",
        _TRAVERSAL,
    ),
    Rule(
        "zip-unreadable",
        Level.CRITICAL,
        "A member that is encrypted or packed in an unusual way",
        "What is in it cannot be told, and no writer of models does so.",
    ),
    Rule(
        "zip-gap",
        Level.HIGH,
        "Bytes of a zip that belong to no member",
        "A program that reads from the beginning finds there what the directory does not name.",
    ),
    Rule(
        "zip-prefix",
        Level.HIGH,
        "Something stands before a zip",
        "The file is also one of another kind: a program, a page, an HDF5 file. Who opens it decides which.",
    ),
    Rule(
        "zip-trailing",
        Level.MEDIUM,
        "Something stands behind a zip",
        "No writer leaves it there. The file was joined with another, or damaged on its way.",
    ),
    Rule(
        "zip-comment",
        Level.LOW,
        "A zip with a comment",
        "Harmless by itself, and nothing that Keras or NumPy write.",
    ),
    Rule(
        "zip-name-encoding",
        Level.LOW,
        "A name in a zip whose encoding is not said",
        "Programs may show and unpack it under different names.",
    ),
    # --- tar
    Rule(
        "tar-path",
        Level.CRITICAL,
        "A member whose name leads elsewhere",
        "An absolute name or one with '..' is written outside the folder that it is unpacked to.",
        _TRAVERSAL,
    ),
    Rule(
        "tar-special-file",
        Level.CRITICAL,
        "A link, device or pipe in a tar",
        "What is written through a link lies outside the archive, whatever the names of the members say.",
        _TRAVERSAL,
    ),
    Rule(
        "tar-sparse",
        Level.CRITICAL,
        "A sparse file in a tar",
        "A few bytes become a file of any length.",
    ),
    Rule(
        "tar-ambiguous",
        Level.HIGH,
        "A member of a tar that programs read differently",
        _TWO_READINGS,
        ("CVE-2025-62518",),
    ),
    Rule("tar-override", Level.HIGH, "A tar that changes names or sizes for all members", _TWO_READINGS),
    Rule("tar-unknown", Level.HIGH, "A member of an unknown kind", "What unpacking it does differs between programs."),
    Rule("tar-duplicate-name", Level.HIGH, "Two members of one name", _TWO_READINGS),
    Rule(
        "tar-trailing",
        Level.MEDIUM,
        "Something stands behind the end of a tar",
        "Programs that go on past an end find members that others do not see.",
    ),
    # --- folders
    Rule(
        "folder-special-file",
        Level.HIGH,
        "A link or device in a folder",
        "A model's folder holds all that is its own. A link leads to a file that is none of it; it is not followed. "
        "Copy the folder with what its links lead to: cp -rL.",
    ),
    # --- the .keras file
    Rule(
        "keras-archive-program",
        Level.HIGH,
        "Something to run, or a pickle, beside a model",
        "Keras writes no such member. It runs where somebody imports, unpickles or starts it.",
    ),
    Rule(
        "keras-archive-nested",
        Level.HIGH,
        "An archive within a .keras file",
        "What is in it is not looked at, and unpacks to any size.",
    ),
    Rule(
        "keras-archive-two-weights",
        Level.HIGH,
        "Weights in two forms",
        "Which of them a model gets depends on the release of Keras.",
    ),
    Rule(
        "keras-archive-member",
        Level.MEDIUM,
        "A member that Keras does not write",
        "Keras leaves it alone; whoever unpacks the file may not.",
    ),
    Rule(
        "keras-archive-executable",
        Level.MEDIUM,
        "A member that is marked as a program",
        "Keras marks none. Systems without such marks, and shared folders, mark every file.",
    ),
    Rule(
        "keras-archive-left-over",
        Level.LOW,
        "A member that macOS or Windows left",
        "It came in when the file was packed anew by hand.",
    ),
    # --- JSON and YAML
    Rule("json-duplicate-key", Level.HIGH, "A key that stands there twice", _TWO_READINGS),
    Rule(
        "json-number",
        Level.MEDIUM,
        "A number beyond any that computers count with",
        "Readers round it, refuse it, or take all memory for it.",
    ),
    Rule(
        "json-not-finite",
        Level.LOW,
        "NaN or an infinity in JSON",
        "The standard has no such number, though Python writes and reads it.",
    ),
    Rule(
        "yaml-python-tag",
        Level.CRITICAL,
        "A tag of Python in YAML",
        "A YAML library that heeds it makes any object, and so runs any code.",
        ("CVE-2021-37678",),
    ),
    Rule(
        "yaml-architecture",
        Level.MEDIUM,
        "An architecture as YAML",
        "It is told and not read: Keras itself gave it up, since reading it could run code.",
        ("CVE-2021-37678",),
    ),
    # --- arrays
    Rule(
        "npy-objects",
        Level.CRITICAL,
        "An array of objects",
        "It is a pickle, and loading it runs what it holds.",
        ("CVE-2019-6446",),
    ),
    Rule("npy-size", Level.HIGH, "An array that is not as long as it says", "Memory is taken for what it says."),
    Rule("npy-fields", Level.MEDIUM, "An array of records", "No weights are; it is not read."),
    Rule("npz-member", Level.MEDIUM, "A member of an .npz that is no array", "NumPy writes none."),
    Rule(
        "safetensors-overlap",
        Level.HIGH,
        "Tensors that share bytes",
        "The format forbids it: a file could hide in another.",
    ),
    Rule(
        "safetensors-gap",
        Level.HIGH,
        "Bytes that belong to no tensor",
        "The format forbids it: a file could hide there.",
    ),
    Rule(
        "safetensors-size",
        Level.HIGH,
        "A tensor that is not as long as its shape says",
        "Memory is taken for what it says.",
    ),
    Rule(
        "safetensors-metadata",
        Level.MEDIUM,
        "Metadata that are no texts",
        "The format has texts there and nothing else.",
    ),
    Rule(
        "torch-code",
        Level.HIGH,
        "Code of TorchScript",
        "It runs when PyTorch loads and calls the file. modelkeep reads none of it.",
    ),
)
