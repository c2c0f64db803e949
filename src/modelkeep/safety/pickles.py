"""What a pickle names, judged; and a Keras tokenizer's pickle turned into plain data without unpickling it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modelkeep.errors import UnsafeContent, UsageError
from modelkeep.formats.contents import Contents, Problem
from modelkeep.formats.limits import DEFAULT, Limits
from modelkeep.formats.pickle_machine import Global, Made, Source, follow
from modelkeep.formats.pickles import facts_of_member, opened
from modelkeep.safety.rules import Level, Rule, rules

rules(
    Rule(
        "pickle-call",
        Level.CRITICAL,
        "A pickle that names something outside the known",
        "Unpickling calls whatever the pickle names, before anybody sees the result.",
        ("CVE-2024-37052", "CVE-2025-32434", "CVE-2025-49655"),
    ),
    Rule(
        "pickle-unresolved",
        Level.CRITICAL,
        "A pickle whose names cannot be told",
        "It makes the name of what it calls while it is read, or refers to what only the reading program knows.",
    ),
    Rule(
        "pickle-broken",
        Level.CRITICAL,
        "A pickle that breaks off",
        "Unpickling has called everything before the break by the time it fails, so other scanners can be led past "
        "the call.",
        ("CVE-2025-1716", "CVE-2025-10155", "CVE-2025-10156", "CVE-2025-10157"),
    ),
    Rule(
        "pickle-trailing",
        Level.MEDIUM,
        "Bytes behind a pickle",
        "What follows the last pickle is neither looked at nor explained by its form.",
    ),
    Rule(
        "pickle",
        Level.MEDIUM,
        "A pickle",
        "All that it calls builds plain values, arrays, tokenizers or estimators. It is never unpickled here all the "
        "same; JSON, .npz and the like hold such data without calling anything.",
    ),
)

_PLAIN = """
builtins: int float complex str bytes bytearray bool list dict set frozenset tuple slice range object
builtins: unicode long xrange
collections: OrderedDict defaultdict Counter deque
copyreg: _reconstructor
_codecs: encode
datetime: date datetime time timedelta timezone
decimal: Decimal
fractions: Fraction
uuid: UUID
numpy: dtype ndarray bool_ bool str_ bytes_ int8 int16 int32 int64 uint8 uint16 uint32 uint64
numpy: float16 float32 float64 complex64 complex128
numpy.core._internal: _reconstruct
numpy.core.multiarray: _reconstruct scalar
numpy.core.numeric: _frombuffer
numpy.ma.core: _mareconstruct MaskedArray
numpy.random._pickle: __randomstate_ctor __generator_ctor __bit_generator_ctor
numpy.random._mt19937: MT19937
numpy.random._pcg64: PCG64 PCG64DXSM
numpy.random.bit_generator: SeedSequence __pyx_unpickle_SeedSequence
joblib.numpy_pickle: NumpyArrayWrapper
pandas._libs.internals: _unpickle_block
pandas.core.frame: DataFrame
pandas.core.series: Series
pandas.core.internals.managers: BlockManager SingleBlockManager
pandas.core.indexes.base: Index _new_Index
pandas.core.indexes.range: RangeIndex
torch: Size device Tensor float16 bfloat16 float32 float64 int8 int16 int32 int64 uint8 bool
torch: BFloat16Storage BoolStorage ByteStorage CharStorage DoubleStorage FloatStorage HalfStorage IntStorage LongStorage
torch: ShortStorage ComplexFloatStorage ComplexDoubleStorage
torch._tensor: _rebuild_from_type_v2
torch._utils: _rebuild_tensor_v2 _rebuild_parameter _rebuild_parameter_with_state
torch.nn.parameter: Parameter
torch.storage: UntypedStorage TypedStorage
"""
# What older releases called them.
_RENAMED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
    "sklearn.externals.joblib.numpy_pickle": "joblib.numpy_pickle",
}
_KNOWN = frozenset(
    f"{module}.{name}"
    for line in _PLAIN.strip().splitlines()
    for module, _, names in [line.partition(": ")]
    for name in names.split()
)
_TOKENIZER = re.compile(r"(?:tensorflow\.python\.|tensorflow\.)?(?:tf_keras|keras)(?:[._]\w+)*\.text\.Tokenizer")
# Classes whose making sets attributes and no more. What lies under the excepted names opens files.
_ESTIMATOR = re.compile(
    r"sklearn(?:\.\w+)*\.(?:_?[A-Z]\w*|__pyx_unpickle_\w+|newObj)|torch\.nn\.modules(?:\.\w+)*\.[A-Z]\w*"
    r"|scipy\.sparse\._?\w+\.(?:csr|csc|coo|bsr|dia|dok|lil)_(?:matrix|array)"
)
_EXCEPTED = re.compile(r"\.(?:externals|datasets|tests?|_testing|utils\._testing)\.")

_VOCABULARIES = ("word_counts", "word_docs", "index_docs", "index_word", "word_index")
_OPTIONS = ("num_words", "filters", "lower", "split", "char_level", "oov_token", "document_count")


def check(contents: Contents, limits: Limits) -> Iterator[Problem]:
    """What the pickles of a file are, and those inside it."""
    told = [*contents.details.get("pickles", ()), *(facts_of_member(member, limits) for member in contents.pickles)]
    of_torch = contents.form == "torch"
    for facts in told:
        yield from judge(facts, of_torch=of_torch)


def judge(facts: Mapping[str, Any], *, of_torch: bool) -> Iterator[Problem]:
    """What is wrong with pickles of which ``formats.pickles.facts`` told; ``of_torch`` resolves ids to storages."""
    place = facts["place"]
    for name, calls in facts["globals"].items():
        if not is_known(name):
            yield Problem("pickle-call", f"{name}{f', called {calls} times' if calls > 1 else ''}", place)
    for why in facts["unresolved"]:
        yield Problem("pickle-unresolved", why, place)
    # PyTorch's own reader resolves ids to storages; of other programs nobody knows.
    if facts["persistent"] and not (of_torch or "torch._utils._rebuild_tensor_v2" in facts["globals"]):
        yield Problem("pickle-unresolved", f"{facts['persistent']} persistent ids", place)
    if facts["broken"]:
        yield Problem("pickle-broken", facts["broken"], place)
    if facts["trailing"]:
        yield Problem("pickle-trailing", "bytes behind the last pickle", place)
    yield Problem("pickle", f"protocol {facts['protocol']}, {facts['opcodes']:,} opcodes", place)


def is_known(name: str) -> bool:
    """Whether a class or function is one of those that only build plain values, arrays, tokenizers, estimators."""
    module, _, last = name.rpartition(".")
    name = f"{_RENAMED.get(module, module)}.{last}"
    if name in _KNOWN or _TOKENIZER.fullmatch(name):
        return True
    return _ESTIMATOR.fullmatch(name) is not None and not _EXCEPTED.search(name)


# --- tokenizers


def tokenizer_from_pickle(path: Path, limits: Limits = DEFAULT) -> dict[str, Any]:
    """A pickled Keras ``Tokenizer`` as ``{"class_name": "Tokenizer", "config": …}``, Keras' own JSON form.

    The opcodes are read as data; nothing is imported or called, whatever the file names. Of any Keras and any
    protocol, compressed or not. Raises UnsafeContent where the pickle calls anything else, UsageError where it
    holds something else, LimitExceeded.
    """
    with opened(path) as (stream, _):
        followed = follow(Source(stream, max(limits.expansion_floor, limits.file)), limits)
    odd = [str(name) for name in followed.globals if not is_known(str(name))] + followed.unresolved
    if odd or followed.broken or followed.persistent:
        raise UnsafeContent(f"{path.name} is no honest tokenizer", found=", ".join(odd) or followed.broken)
    state = _tokenizer_state(followed.value)
    if state is None or not {"word_index", *_OPTIONS[:-1]} <= state.keys():
        raise UsageError(f"{path.name} holds no Keras Tokenizer", found=_kind(followed.value))
    if state.get("analyzer") is not None:
        raise UnsafeContent(
            f"{path.name}: its tokenizer has an analyzer, which is code", found=_kind(state["analyzer"])
        )
    config: dict[str, Any] = {name: _plain(state.get(name, 0)) for name in _OPTIONS}
    config |= {name: json.dumps(_plain(state.get(name, {}))) for name in _VOCABULARIES}
    return {"class_name": "Tokenizer", "config": config}


def _tokenizer_state(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, Made) or not isinstance(value.state, dict):
        return None
    of = value.of
    if isinstance(of, Global) and of.name == "_reconstructor" and isinstance(value.arguments, tuple):
        of = value.arguments[0]
    return value.state if isinstance(of, Global) and _TOKENIZER.fullmatch(str(of)) else None


def _plain(value: Any) -> Any:
    """The counters and dicts of a tokenizer as plain ones; ``OrderedDict`` may bring its items as pairs."""
    if isinstance(value, Made):
        pairs = value.arguments[0] if isinstance(value.arguments, tuple) and value.arguments else ()
        return {**(dict(pairs) if isinstance(pairs, list | dict) else {}), **value.items}
    return value


def _kind(value: Any) -> str:
    return str(value.of) if isinstance(value, Made) else type(value).__name__
