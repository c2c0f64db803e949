"""The rules of models that runtimes run: ONNX, LiteRT and OpenVINO.

Their operators compute and do nothing else, so it is what lies beside or beyond them that is judged: files outside
the model's folder, operators that need native code to be loaded first, and those that run TensorFlow's or Python's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from modelkeep.formats.contents import Contents, Problem
from modelkeep.formats.limits import Limits
from modelkeep.formats.litert import FLEX
from modelkeep.safety.rules import Level, Rule, rules

rules(
    Rule(
        "onnx-external-data",
        Level.CRITICAL,
        "Weights in a file outside the model's folder",
        "An absolute path, one with .. or a link makes a runtime read any file of this machine as weights, and a model "
        "that repeats its weights hands it over.",
        ("CVE-2022-25882", "CVE-2024-27318"),
    ),
    Rule(
        "onnx-python",
        Level.CRITICAL,
        "An operator that runs Python",
        "Some builds of onnxruntime have operators that import a module which the model names.",
    ),
    Rule(
        "onnx-custom-operator",
        Level.MEDIUM,
        "An operator that ONNX does not have",
        "It needs a library of native code to be loaded first, and what that does nobody can tell from the model.",
    ),
    Rule(
        "litert-external-data",
        Level.HIGH,
        "Weights in another file",
        "The model names a file to be read beside it; exported models hold all their weights.",
    ),
    Rule(
        "litert-flex-outside",
        Level.CRITICAL,
        "An operation of TensorFlow that reaches outside the network",
        "LiteRT can hand operations to TensorFlow, among them those that read and write files or run Python.",
    ),
    Rule(
        "litert-custom-operator",
        Level.MEDIUM,
        "An operator that LiteRT does not have",
        "It needs a library of native code, or all of TensorFlow, to be loaded first.",
    ),
    Rule(
        "openvino-doctype",
        Level.CRITICAL,
        "A document type in an XML model",
        "Entities read files, open addresses, or grow without end in programs that follow them. Exporters write none.",
    ),
    Rule(
        "openvino-custom-layer",
        Level.MEDIUM,
        "A layer that OpenVINO does not have",
        "It needs a library of native code to be loaded first.",
    ),
)

# Domains of operators that onnxruntime brings itself.
_ONNX_DOMAINS = re.compile(r"ai\.onnx(\.\w+)*|com\.microsoft(\.nchwc)?|com\.ms\.internal\.nhwc")
_ONNX_PYTHON = re.compile(r"(.*:)?(PyOp|PyCustomOp|PythonOp(Grad)?)|ai\.onnx\.contrib:.*")
_FLEX_OUTSIDE = re.compile(
    r"(Eager)?PyFunc(Stateless)?|(Read|Write)File|Matching.*|.*(Save|Restore).*|.*Checkpoint.*|.*Dataset.*|.*Reader.*"
    r"|Print.*|Debug.*|Dump.*|.*Rpc.*|.*Summary.*|.*FromTextFile.*"
)


def check(contents: Contents, limits: Limits) -> Iterator[Problem]:
    """The rules that a model's operators break; those of files are told by its reader."""
    if contents.form in _QUESTIONS:
        for operator, count in contents.details["ops"].items():
            rule = _QUESTIONS[contents.form](operator, contents)
            if rule is not None:
                yield Problem(rule, f"{operator} ({count} times)" if count > 1 else operator, operator)


def _onnx(operator: str, contents: Contents) -> str | None:
    domain, _, _ = operator.rpartition(":")
    if operator in contents.details["functions"]:
        return None  # made of other operators, in the file itself
    if _ONNX_PYTHON.fullmatch(operator):
        return "onnx-python"
    return None if not domain or _ONNX_DOMAINS.fullmatch(domain) else "onnx-custom-operator"


def _litert(operator: str, contents: Contents) -> str | None:
    if operator.startswith(FLEX) and _FLEX_OUTSIDE.fullmatch(operator.removeprefix(FLEX)):
        return "litert-flex-outside"
    return "litert-custom-operator" if operator in contents.details["custom"] else None


def _openvino(operator: str, contents: Contents) -> str | None:
    return "openvino-custom-layer" if ":" in operator else None


_QUESTIONS: dict[str, Callable[[str, Contents], str | None]] = {"onnx": _onnx, "litert": _litert, "openvino": _openvino}
