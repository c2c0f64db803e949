"""The rules of HDF5 files, and of Keras' layouts in them: what :mod:`modelkeep.formats.hdf5` and ``h5`` find."""

from __future__ import annotations

from modelkeep.safety.rules import Level, Rule, rules

_READS_FILES = ("CVE-2026-1669",)
_EXHAUSTS = ("CVE-2026-0897",)

rules(
    Rule(
        "hdf5-external-link",
        Level.CRITICAL,
        "A link into another file",
        "HDF5 opens the file that an external link names, wherever it is, and its values become weights. A model's "
        "file holds all that is its own.",
        _READS_FILES,
    ),
    Rule(
        "hdf5-external-storage",
        Level.CRITICAL,
        "A dataset whose values are another file's bytes",
        "External storage reads any file on the machine, of any kind, as the values of a weight; whoever gets the "
        "weights or the answers gets what it held.",
        _READS_FILES,
    ),
    Rule(
        "hdf5-virtual-dataset",
        Level.CRITICAL,
        "A dataset made of other datasets",
        "A virtual dataset takes its values from other files when it is read, and some open them even to tell their "
        "shape. It looks like any other dataset to a reader that asks about links alone.",
        _READS_FILES,
    ),
    Rule(
        "hdf5-user-link",
        Level.CRITICAL,
        "A user-defined link",
        "What such a link does is decided by code that is registered with the HDF5 library. Keras makes none.",
    ),
    Rule(
        "hdf5-filter",
        Level.CRITICAL,
        "A dataset packed by a filter other than deflate, shuffle and Fletcher32",
        "HDF5 loads a shared library for a filter that it does not know, from a folder that the environment names, "
        "and runs it on the file's bytes; some of its own overflow. Keras packs nothing.",
        ("CVE-2025-2308", "CVE-2025-44905", "CVE-2026-19026"),
    ),
    Rule(
        "hdf5-name",
        Level.CRITICAL,
        "A link whose name is a path, or another one's",
        "HDF5 splits names at each slash, so such a link leads elsewhere than it says, through links that were not "
        "looked at. Of two links of one name, readers differ in which they follow.",
    ),
    Rule(
        "hdf5-soft-link",
        Level.HIGH,
        "A soft link",
        "It stands for a path that may lead through an external link, to nothing, or in circles. Keras makes none, and "
        "refuses them itself.",
        _READS_FILES,
    ),
    Rule(
        "hdf5-shared-object",
        Level.HIGH,
        "One object under two names",
        "Keras writes each weight once. An object that is met again on the way down is a cycle that never ends, or one "
        "weight read as many.",
    ),
    Rule(
        "hdf5-declared-size",
        Level.HIGH,
        "Far more declared than stored",
        "A dataset of a few stored bytes can declare a shape of terabytes; whoever reads it asks for that memory.",
        _EXHAUSTS,
    ),
    Rule(
        "hdf5-chunk",
        Level.HIGH,
        "Chunks that are not what their dataset declares",
        "HDF5 takes memory for whole chunks, inflates a packed one however far it goes, and copies one of another size "
        "than it declares beyond its room.",
        ("CVE-2025-44904", *_EXHAUSTS),
    ),
    Rule(
        "hdf5-overlap",
        Level.HIGH,
        "Datasets that together claim more than the file has",
        "Several of them lie on the same bytes: a small file that becomes large when it is read.",
        _EXHAUSTS,
    ),
    Rule(
        "hdf5-type",
        Level.HIGH,
        "A dataset that is no array of numbers",
        "References lead to other objects, and types of variable length or of many members reach parts of the HDF5 "
        "library in which weaknesses were found. Weights are integers, floating-point, complex or truth values.",
        ("CVE-2016-4333", "CVE-2025-2309", "CVE-2026-26197"),
    ),
    Rule(
        "hdf5-object",
        Level.MEDIUM,
        "An object that is neither a group nor a dataset",
        "Keras keeps no types under names of their own.",
    ),
    Rule(
        "hdf5-attribute",
        Level.MEDIUM,
        "An attribute that is neither text nor numbers",
        "Keras keeps names, versions and JSON in attributes, as UTF-8. This one was not read.",
        ("CVE-2025-2310",),
    ),
    Rule(
        "hdf5-opaque",
        Level.MEDIUM,
        "A dataset of bytes of no known type",
        "Numbers of types that NumPy lacks are kept as bare bytes; only bfloat16 says that it is.",
    ),
    Rule(
        "hdf5-string-dataset",
        Level.MEDIUM,
        "A dataset of text",
        "Weights are numbers. The text was not read.",
    ),
    Rule(
        "hdf5-unwritten",
        Level.MEDIUM,
        "A dataset that was declared and never written",
        "It reads as zeros, without a word: the save was cut short, or the file relies on it.",
    ),
    Rule(
        "hdf5-superblock",
        Level.HIGH,
        "A superblock that no writer of models makes",
        "It decides where every address counts from and which driver reads the file; readers differ in what they make "
        "of an odd one.",
    ),
    Rule(
        "hdf5-extension",
        Level.HIGH,
        "An extension of the superblock",
        "It can hold an image of the library's cache and tables of free space, parts of the HDF5 library in which "
        "weaknesses were found. Keras writes none.",
        ("CVE-2025-6269", "CVE-2025-7067", "CVE-2025-7069", "CVE-2026-17572"),
    ),
    Rule(
        "hdf5-user-block",
        Level.HIGH,
        "Something before the HDF5 file",
        "The file is of two kinds at once: what reads its beginning sees another one than what reads its weights.",
    ),
    Rule(
        "hdf5-trailing-data",
        Level.MEDIUM,
        "Something after the HDF5 file",
        "Bytes that no reader of the model looks at, and another program may.",
    ),
    Rule(
        "h5-weight-names",
        Level.HIGH,
        "Weights that are listed wrongly",
        "Each listed weight must be there, and be listed once: Keras takes them by their place in the list, so one "
        "that is missing or doubled moves all that follow.",
    ),
    Rule(
        "h5-unlisted",
        Level.LOW,
        "A dataset that Keras does not read",
        "It is in none of the lists that Keras goes by. Programs that keep data of their own beside a model do this.",
    ),
)
