"""The rules of SavedModels and checkpoints, and what is asked of graphs: which operations are there, on which files.

A graph is a program. TensorFlow has some 1,900 operations, nearly all of which compute; the few that open files, talk
to others or run Python are listed here, and what is not among its operations is refused. Every function is looked
at, whether anything calls it or not: whoever loads the model can.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from math import prod
from typing import Any

from modelkeep.formats import saved_model
from modelkeep.formats.contents import Contents, Problem
from modelkeep.formats.limits import DEFAULT, Limits
from modelkeep.formats.protobuf import Message
from modelkeep.formats.saved_model import KerasObject, MetaGraph
from modelkeep.formats.tensor_bundle import DTYPES, shape_of, width_of
from modelkeep.formats.tf_graph import Node
from modelkeep.safety import configs
from modelkeep.safety.dataflow import Dataflow, Origin
from modelkeep.safety.rules import Level, Rule, rules

rules(
    Rule(
        "graph-python",
        Level.CRITICAL,
        "An operation that runs Python",
        "PyFunc and its kin call functions of the process that runs the graph. No exported model has them: they cannot "
        "be saved.",
    ),
    Rule(
        "graph-writes-file",
        Level.CRITICAL,
        "An operation that writes files",
        "It writes where the graph says, with the rights of whoever serves the model; answering one request is enough.",
        ("CVE-2023-25668",),
    ),
    Rule(
        "graph-network",
        Level.CRITICAL,
        "An operation that talks to other machines",
        "A graph with a client or server inside can send away whatever it is asked.",
    ),
    Rule(
        "graph-unknown-operation",
        Level.CRITICAL,
        "An operation that TensorFlow does not have",
        "It needs a library of native code to be loaded first, and what that does nobody can tell from the graph.",
    ),
    Rule(
        "graph-ends-process",
        Level.CRITICAL,
        "An operation that ends the program",
        "Abort stops whatever process runs the graph; it is there to test TensorFlow itself.",
    ),
    Rule(
        "graph-checkpoint",
        Level.CRITICAL,
        "A checkpoint read or written elsewhere than the loader says",
        "Every SavedModel saves and restores its variables, by the one path that it is given. Another path is a file "
        "of the author's choice.",
    ),
    Rule(
        "graph-reads-file",
        Level.HIGH,
        "An operation that reads a file that is no asset of the model",
        "What it reads becomes part of the answers: any file that the server can read.",
        ("CVE-2025-12058",),
    ),
    Rule(
        "graph-dataset-service",
        Level.HIGH,
        "An operation that changes or asks a service",
        "Datasets from a service, and settings of a file system, belong to training and not to a model.",
    ),
    Rule(
        "graph-initializer",
        Level.MEDIUM,
        "Loading the model does more than fill tables and variables",
        "What runs at load runs before anybody has asked anything.",
    ),
    Rule(
        "graph-constant",
        Level.HIGH,
        "A constant or a filled tensor beyond all measure",
        "A few bytes of graph can make whoever runs it take gigabytes.",
        ("CVE-2026-0897",),
    ),
    Rule(
        "asset-path",
        Level.CRITICAL,
        "An asset whose name leads out of its folder",
        "TensorFlow joins the name to the path of assets/ and opens what is there.",
    ),
    Rule("asset-missing", Level.HIGH, "An asset that is not in the folder", "The model cannot be loaded without it."),
    Rule(
        "saved-model-shadowed",
        Level.HIGH,
        "A second graph beside the first",
        "TensorFlow takes saved_model.cpb before saved_model.pb: it would run another graph than the one that was "
        "looked at.",
    ),
    Rule(
        "saved-model-file",
        Level.MEDIUM,
        "A file that no SavedModel has",
        "TensorFlow writes its graphs, variables and assets, and does not read anything else.",
    ),
    Rule(
        "saved-model-program",
        Level.MEDIUM,
        "A program or a pickle among the assets",
        "TensorFlow does not run it; somebody who takes it for a part of the model may.",
    ),
    Rule(
        "unlisted-bytes",
        Level.LOW,
        "Bytes among the tensors that belong to none",
        "TensorFlow writes tensors one after the other. It reads nothing of what lies between them.",
    ),
    Rule(
        "checksum-not-checked",
        Level.LOW,
        "Checksums of tensors were not computed",
        "The library for CRC-32C is not installed, so damage to a tensor would not be noticed.",
    ),
)

_PYTHON = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})
_WRITES = re.compile(
    r"WriteFile|Save|SaveSlices|DumpTensor|CreateSummary(File|Db)Writer|(Experimental)?DatasetToTFRecord"
    r"|SaveDataset(V2)?|DistributedSave|CalibrationStatisticsSaver"
)
_NETWORK = re.compile(r"Rpc(Client|Server|Call|GetValue)|RpcServer(Register|Start)")
_DEBUG = re.compile(r"DebugIdentity(V[23])?|DebugNanCount|DebugNumericSummary(V2)?")
_STREAMS = ("stdout", "stderr", "log(info)", "log(warning)", "log(error)")
# Operations that read files, with the input that names them.
_READS = {
    "ReadFile": 0, "MatchingFiles": 0, "MatchingFilesDataset": 0, "ExperimentalMatchingFilesDataset": 0,
    "TextLineDataset": 0, "TFRecordDataset": 0, "TFRecordDatasetV2": 0, "FixedLengthRecordDataset": 0,
    "FixedLengthRecordDatasetV2": 0, "CSVDataset": 0, "CSVDatasetV2": 0, "ExperimentalCSVDataset": 0,
    "SqlDataset": 1, "ExperimentalSqlDataset": 1, "LMDBDataset": 0, "ExperimentalLMDBDataset": 0,
    "LoadAndRemapMatrix": 0, "GenerateVocabRemapping": 0,
    "LoadDataset": 0, "SnapshotDataset": 1, "SnapshotDatasetV2": 1, "SnapshotChunkDataset": 0,
    "SnapshotDatasetReader": 0, "SnapshotNestedDatasetReader": 0, "ListSnapshotChunksDataset": 0, "Restore": 0,
    "RestoreSlice": 0, "InitializeTableFromTextFile": 1, "InitializeTableFromTextFileV2": 1,
}  # fmt: skip
# Readers get their names from a queue, which cannot be followed; RecordInput has them as an attribute.
_READERS = re.compile(r"(TextLine|TFRecord|FixedLengthRecord|WholeFile|LMDB)Reader(V2)?|RecordInput|DTensorRestoreV2")
_SERVICE = re.compile(r"DataServiceDataset(V\d)?|RegisterDataset(V2)?|FileSystemSetConfiguration")
_CHECKPOINT = {"SaveV2": (0,), "RestoreV2": (0,), "MergeV2Checkpoints": (0, 1)}
# What TensorFlow joins to the path that it is given, and the names it has for a path that is not given.
_PART_OF_PATH = re.compile(r"model|\.part|(_temp(_[0-9a-f]{32})?/)?part")
_AT_LOAD = re.compile(r".*(Table|Lookup|Variable|VarHandle|PartitionedCall|Assign|Random|Placeholder).*|Assert|Const")
_KNOWN_FILES = re.compile(
    r"saved_model\.pb|fingerprint\.pb|keras_metadata\.pb|variables/variables\.(index|data-\d{5}-of-\d{5})"
    r"|assets/.+|assets\.extra/.+|debug/saved_model_debug_info\.pb"
)
_PROGRAMS = re.compile(r".*\.(bat|cmd|com|dll|dylib|exe|jar|joblib|js|pickle|pkl|ps1|pyc?|sh|so)", re.IGNORECASE)
_SHADOWS = ("saved_model.cpb",)
_INITIAL = ("saved_model_main_op", "legacy_init_op")  # collections that name what is run at load


def check(contents: Contents, limits: Limits = DEFAULT) -> Iterator[Problem]:
    """What is wrong with the graphs, files and Keras objects of a SavedModel; nothing of other forms.

    Raises IntegrityError and LimitExceeded as its reader does.
    """
    if contents.form != "saved_model":
        return
    with saved_model.open_parts(contents.path, limits) as parts:
        yield from _check_files(parts.files)
        for graph in parts.graphs:
            yield from _check_assets(graph, parts.files)
            yield from check_graph(graph, limits)
        yield from _check_keras(parts.objects, limits)


def check_graph(graph: MetaGraph, limits: Limits = DEFAULT) -> Iterator[Problem]:
    """What is wrong with one graph and the functions in its library."""
    flow = Dataflow(graph.graph, frozenset({*graph.assets, graph.saver.text(1)}), _known()["functions"])
    for function, node in graph.graph.everything():
        place = f"{function or 'graph'}/{node.name}"
        yield from _check_operation(node, place, graph)
        yield from _check_files_of(function, node, place, graph, flow)
        if node.op == "Const" or (node.op == "Fill" and node.inputs):
            yield from _check_constant(function, node, place, flow, limits)
    yield from _check_what_runs(graph, flow)


def _check_operation(node: Node, place: str, graph: MetaGraph) -> Iterator[Problem]:
    """What needs no more than the operation's own name and attributes."""
    if node.op not in _known()["ops"] and node.op not in graph.graph.functions:
        yield Problem("graph-unknown-operation", f"{node.op[:100]!r} is no operation of TensorFlow", place)
    elif node.op == "Abort":
        yield Problem("graph-ends-process", f"{node.op} ends the program that runs it", place)
    elif node.op in _PYTHON:
        yield Problem("graph-python", f"{node.op} calls Python", place)
    elif _WRITES.fullmatch(node.op) or (node.op == "PrintV2" and _stream(node) not in _STREAMS):
        yield Problem("graph-writes-file", f"{node.op} writes a file", place)
    elif _NETWORK.fullmatch(node.op) or (
        _DEBUG.fullmatch(node.op) and node.attribute("debug_urls").message(1).views(2)
    ):
        yield Problem("graph-network", f"{node.op} sends tensors away", place)
    elif _READERS.fullmatch(node.op) or (
        node.op == "FixedUnigramCandidateSampler" and node.attribute("vocab_file").view(2)
    ):
        yield Problem("graph-reads-file", f"{node.op} reads files", place)
    elif _SERVICE.fullmatch(node.op):
        yield Problem("graph-dataset-service", f"{node.op} in a model", place)


def _stream(node: Node) -> str:
    return str(bytes(node.attribute("output_stream").view(2)), errors="replace") or "stderr"


def _check_files_of(function: str, node: Node, place: str, graph: MetaGraph, flow: Dataflow) -> Iterator[Problem]:
    """Operations that are harmless or not by the file that they are given."""
    if node.op in _CHECKPOINT:
        for index in _CHECKPOINT[node.op]:
            odd = [one for one in _origins(function, node, index, flow) if not _is_checkpoint(one, graph)]
            yield from (Problem("graph-checkpoint", f"{node.op} on {_told(one)}", place) for one in odd)
    elif node.op in _READS or (node.op in ("CacheDataset", "CacheDatasetV2") and len(node.inputs) > 1):
        index = _READS.get(node.op, 1)
        for one in _origins(function, node, index, flow):
            # The empty name is a cache in memory.
            if one.tensor not in graph.assets and not (node.op.startswith("Cache") and one == Origin()):
                yield Problem("graph-reads-file", f"{node.op} reads {_told(one)}, which is no asset", place)


def _origins(function: str, node: Node, index: int, flow: Dataflow) -> Iterable[Origin]:
    if index >= len(node.inputs):
        return [Origin(op="nothing")]
    return sorted(flow.origins(function, node.inputs[index]), key=str)


def _is_checkpoint(origin: Origin, graph: MetaGraph) -> bool:
    return bool(
        (origin.tensor and origin.tensor == graph.saver.text(1))
        or (origin.text and _PART_OF_PATH.fullmatch(origin.text))
    )


def _told(origin: Origin) -> str:
    if origin.op:
        return f"what {origin.op} gives"
    return f"{origin.text[:100]!r}" if origin.text else f"the path in {origin.tensor or 'an empty constant'}"


def _check_constant(function: str, node: Node, place: str, flow: Dataflow, limits: Limits) -> Iterator[Problem]:
    """Constants of one repeated value, and tensors filled to a shape: small in the file and large in memory.

    Those that are as large in the file are bounded by it.
    """
    if node.op == "Const":
        value = Message(node.attribute("value").view(8), numbers=(1, 2))
        lengths, dtype, what = list(shape_of(value.message(2)) or (0,)), value.unsigned(1), "a constant"
    else:
        lengths, dtype, what = [*flow.numbers(function, node.inputs[0])], node.attribute("T").unsigned(6), "a tensor"
    declared = prod(length or 0 for length in lengths) * width_of(DTYPES.get(dtype, "float32"))
    if declared > limits.constant and declared > limits.expansion_ratio * node.size:
        yield Problem("graph-constant", f"{what} of {declared:,} bytes", place)


def _check_what_runs(graph: MetaGraph, flow: Dataflow) -> Iterator[Problem]:
    """What is run to answer, and what to load: paths are fed to the graph only while it is loaded."""
    outputs = {name: [info.text(1) for info in one.map(2).values()] for name, one in graph.signatures.items()}
    at_load = outputs.pop(saved_model.INIT, [])
    for key in _INITIAL:
        at_load += graph.collections[key].message(1).texts(1) if key in graph.collections else []
    for function, node in flow.run([tensor for tensors in outputs.values() for tensor in tensors]):
        place = f"{function or 'graph'}/{node.name}"
        if node.op in _CHECKPOINT:
            yield Problem("graph-checkpoint", f"{node.op} runs whenever the model answers", place)
        elif node.op in _READS and any(map(flow.is_constant, _origins(function, node, _READS[node.op], flow))):
            yield Problem("graph-reads-file", f"{node.op} runs when nothing is fed to the path of its asset", place)
    for function, node in flow.run(at_load):
        place = f"{function or 'graph'}/{node.name}"
        if node.op in _CHECKPOINT:
            yield Problem("graph-checkpoint", f"{node.op} runs when the model is loaded", place)
        elif node.op in _known()["stateful"] and not _AT_LOAD.fullmatch(node.op):
            yield Problem("graph-initializer", f"{node.op} runs when the model is loaded", place)


def _check_assets(graph: MetaGraph, sizes: Mapping[str, int]) -> Iterator[Problem]:
    for name in graph.assets.values():
        if not name or re.search(r"[/\\\x00]", name) or name in (".", ".."):
            yield Problem("asset-path", f"an asset is called {name[:200]!r}", saved_model.GRAPHS)
        elif f"{saved_model.ASSETS}{name}" not in sizes:
            yield Problem("asset-missing", f"{name[:200]!r} is not in {saved_model.ASSETS}", saved_model.GRAPHS)


def _check_files(sizes: Mapping[str, int]) -> Iterator[Problem]:
    for name in sizes:
        if name in _SHADOWS:
            yield Problem("saved-model-shadowed", f"{name} lies beside {saved_model.GRAPHS}", name)
        elif not _KNOWN_FILES.fullmatch(name):
            yield Problem("saved-model-file", f"{name} is none of a SavedModel's files", name)
        elif _PROGRAMS.fullmatch(name):
            yield Problem("saved-model-program", f"{name} is a program by its name", name)


def _check_keras(objects: Iterable[KerasObject], limits: Limits) -> Iterator[Problem]:
    """The config of every layer: Keras 2 makes each from its own, not only from the model's."""
    told = set()
    for one in objects:
        where = f"{saved_model.METADATA}: {one.path or one.node}"
        for key in ("config", "training_config"):
            config = one.metadata.get(key)
            if key == "config":
                config = {"class_name": one.metadata.get("class_name"), "config": config}
            for problem in configs.check(config, place=where, limits=limits):
                # A layer's config stands in those of all that hold it.
                if (problem.rule, problem.message) not in told:
                    told.add((problem.rule, problem.message))
                    yield problem


@cache
def _known() -> dict[str, frozenset[str]]:
    text = (files("modelkeep.safety") / "tensorflow_ops.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return {word: frozenset(names) for word, names in found.items()}
