"""What a version says of itself: one canonical JSON document that names every byte it is made of.

A manifest is itself a blob; its digest is the version's identity (``sentiment@blake3:…``).
Canonical means: keys in the order of the fields below, inner mappings sorted by key, no spaces,
UTF-8, non-finite numbers refused. The same value therefore always gives the same bytes.

Format number
-------------
``FORMAT`` changes when a reader of the old number would misread the new bytes. To bump it:

1. Add the new number to ``READABLE`` and keep every older one there: stores stay readable for ever.
2. Give new fields defaults, or convert an older document in :func:`decode` before validating it.
3. Write a small store with the last release, commit it under ``tests/stores/<format>/``; the test
   that opens every store there must pass.
4. Say in CHANGELOG what an older modelkeep will answer (:class:`~modelkeep.errors.FormatTooNew`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from modelkeep.errors import FormatTooNew, IntegrityError, UsageError

FORMAT = 1
READABLE = frozenset({1})
MAX_DEPTH = 64  # of metrics and metadata: whoever reads them may stand deep in calls already
MAX_MANIFEST = 256 * 2**20  # bytes; 2,000 tensors take about 0.5 MB
ALIGNMENT = 64  # bytes; TensorFlow aborts the process on a tensor at a lesser address

# Names of parts.
CONFIG = "config.json"  # the architecture, as Keras writes it
COMPILE = "compile.json"
LAYER_ASSETS = "layer_assets/"  # and the files that layers keep beside their weights, such as vocabularies


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of everything in a manifest: immutable, strict about unknown fields, defaults left out."""

    # Neither msgspec nor mypy hands these options down, so each record says them again.


class Piece(_Record, frozen=True, kw_only=True):
    """``size`` bytes at ``offset`` of a blob."""

    blob: str
    offset: int = 0
    size: int


class Tensor(_Record, frozen=True, kw_only=True):
    """One array: raw little-endian bytes in C order, the concatenation of ``pieces``.

    ``digest`` is of the tensor's own bytes, wherever they lie. ``dtype`` is Keras' word for it
    (``float32``, ``bfloat16``, ``int4`` packed as Keras packs it, …). ``variable`` is the Keras
    path of the variable it was, for people.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    digest: str
    pieces: tuple[Piece, ...]
    variable: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the array itself, without padding."""
        return sum(piece.size for piece in self.pieces)


class Part(_Record, frozen=True, kw_only=True):
    """A named run of bytes that is not a tensor (a config, a vocabulary, a source text)."""

    name: str
    digest: str
    size: int
    media: str = "application/octet-stream"


class TensorSpec(_Record, frozen=True, kw_only=True):
    """Name, shape (``None`` for any length) and dtype of one input or output."""

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str


class Signature(_Record, frozen=True, kw_only=True):
    """What the network takes and gives. ``structure`` nests the names as the model nests tensors.

    A structure is a name, a list of structures, or a mapping to structures.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    input_structure: Any = None
    output_structure: Any = None


class CustomObject(_Record, frozen=True, kw_only=True):
    """A class or function that is not Keras' own and that the model needs to be rebuilt.

    ``source`` names the part that keeps its text for reading; it is never executed. ``implied``
    objects are made by the code of another one and need not be given; their source is watched too.
    """

    name: str
    kind: str  # layer, model, loss, metric, optimizer, initializer, regularizer, constraint, function, …
    module: str
    qualname: str
    registered: str | None = None
    source: str | None = None
    source_digest: str | None = None
    file: str | None = None
    line: int | None = None
    used_by: tuple[str, ...] = ()
    implied: bool = False


class Asset(_Record, frozen=True, kw_only=True):
    """A part of the version that is not the network; ``kind`` tells which codec reads it."""

    name: str
    kind: str
    parts: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    info: dict[str, Any] = {}


class Golden(_Record, frozen=True, kw_only=True):
    """Example inputs and the outputs the model gave when it was saved.

    ``inputs`` and ``outputs`` are structures (see :class:`Signature`) whose leaves name tensors, or
    parts where they end in ``.json``; with ``raw`` the inputs are the JSON part ``raw`` instead: what the
    pipeline takes.
    """

    count: int
    outputs: Any
    inputs: Any = None
    raw: str | None = None
    probe: bool = False  # made up by modelkeep from the signature, not given by the user


class Environment(_Record, frozen=True, kw_only=True):
    """Where the version was saved."""

    python: str
    platform: str
    machine: str
    cpu: str | None = None
    cpu_features: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()
    backend: str | None = None
    packages: dict[str, str] = {}


class Count(_Record, frozen=True, kw_only=True):
    """So many tensors, and the numbers they hold together."""

    tensors: int = 0
    parameters: int = 0


class Transfer(_Record, frozen=True, kw_only=True):
    """What one transfer of weights did to the network: every tensor on either side counts in one place."""

    source: str  # a version or checkpoint with its digest, or a file: its name, form, writer and digest
    digest: str | None = None  # of the source's manifest, or of the file
    copied: Count = Count()  # whole
    partial: Count = Count()  # sliced, padded, or row by row; counts what was copied
    mismatched: Count = Count()  # of another shape or dtype, left as they were
    missing: Count = Count()  # variables that the source has nothing for
    unused: Count = Count()  # tensors of the source that went nowhere
    options: dict[str, Any] = {}  # those that shaped it


class Lineage(_Record, frozen=True, kw_only=True):
    """Where the version came from. ``parent`` is ``model:version@blake3:…``."""

    parent: str | None = None
    data_digest: str | None = None
    git_commit: str | None = None
    git_dirty: bool | None = None
    source: str | None = None  # the foreign file it was added from: its name, form, writer and digest
    upgrades: tuple[str, ...] = ()  # what was made new in the config of an old file
    allowed: tuple[str, ...] = ()  # the rules of the scan that the file broke, and was let break by name
    parents: tuple[str, ...] = ()  # those it is an average of: ``model:version@blake3:…``, ``run@step@blake3:…``, files
    transfers: tuple[Transfer, ...] = ()  # in the order they were made
    run: str | None = None  # the training it comes from, and the step: ``sentiment-run@1200``


class GateResult(_Record, frozen=True, kw_only=True):
    """One gate as it was judged: its text, the values it compared, and whether it held."""

    gate: str
    passed: bool
    values: dict[str, Any] = {}


class Manifest(_Record, frozen=True, kw_only=True, omit_defaults=False):
    """Everything a version is.

    ``kind`` is ``whole``, ``weights`` (no architecture kept), or ``servable`` (files of a form that answers and holds
    no Keras model, as parts ``servable/…``).
    """

    format: int = FORMAT
    model: str
    version: str
    created: str  # RFC 3339, UTC
    writer: str  # "modelkeep 0.1.0"
    kind: str = "whole"
    parameters: int = 0
    trainable_parameters: int = 0
    metrics: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    tags: tuple[str, ...] = ()
    note: str | None = None
    environment: Environment | None = None
    lineage: Lineage = Lineage()
    gates: tuple[GateResult, ...] = ()
    signature: Signature | None = None
    golden: Golden | None = None
    assets: tuple[Asset, ...] = ()
    pipeline: str | None = None  # the part that declares it
    custom_objects: tuple[CustomObject, ...] = ()
    notices: tuple[str, ...] = ()  # what was found at save and let pass, by name
    parts: tuple[Part, ...] = ()
    tensors: tuple[Tensor, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all parts and tensors, each digest counted once."""
        sizes = {part.digest: part.size for part in self.parts}
        sizes.update((tensor.digest, tensor.nbytes) for tensor in self.tensors)
        return sum(sizes.values())

    def blobs(self) -> frozenset[str]:
        """The digest of every blob this version needs, its own manifest excepted."""
        return frozenset(part.digest for part in self.parts) | frozenset(
            piece.blob for tensor in self.tensors for piece in tensor.pieces
        )


_MEDIA = {".json": "application/json", ".py": "text/x-python", ".txt": "text/plain", ".msgpack": "application/msgpack"}


def media_of(name: str) -> str:
    """The media type of a part, by how its name ends."""
    return next((media for ending, media in _MEDIA.items() if name.endswith(ending)), "application/octet-stream")


class _FormatOnly(msgspec.Struct):
    format: int


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Manifest)
_format_decoder: msgspec.json.Decoder[_FormatOnly] = msgspec.json.Decoder(_FormatOnly)


def encode(manifest: Manifest) -> bytes:
    """The canonical bytes of a manifest, from which :func:`decode` reads it again.

    Raises UsageError where a value has no JSON form, is not finite, or is not of its field's type.
    """
    data = canonical_json(manifest)
    try:
        _decoder.decode(data)
    except msgspec.ValidationError as error:
        raise UsageError(f"not what a manifest can hold: {error}") from error
    return data


def decode(data: bytes) -> Manifest:
    """Read a manifest.

    Raises FormatTooNew for a later format, IntegrityError for anything else that does not fit.
    """
    try:
        number = _format_decoder.decode(data).format
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(f"a manifest cannot be read ({error})", hint="run: modelkeep fsck") from None
    if number not in READABLE:
        raise FormatTooNew.of("this version", found=number, newest=FORMAT)
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(f"a manifest does not fit its format ({error})", hint="run: modelkeep fsck") from None


def canonical_json(value: Any) -> bytes:
    """JSON with sorted mappings and no spaces, the same bytes for the same value.

    Raises UsageError for values without a JSON form: other types, NaN, infinities, cycles.
    """
    try:
        _refuse_non_finite(msgspec.to_builtins(value, order="deterministic"))
        return _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UsageError(
            f"not a JSON value: {error}", hint="give text, numbers, booleans, None, lists or mappings"
        ) from None


def json_value(value: Any, name: str, *, depth: int = 0) -> Any:
    """A value as JSON holds it: text, numbers, booleans, None, and lists and mappings of these.

    A scalar of NumPy, JAX, PyTorch or TensorFlow becomes the plain number it is; a tuple becomes a list.
    Raises UsageError for everything else, by its place below ``name``, such as ``metrics.loss``.
    """
    kind = type(value)
    if depth > MAX_DEPTH:
        raise UsageError(f"{name[:80]} … nests more than {MAX_DEPTH} deep")
    match _plain_scalar(value):
        case None | bool() as plain:
            return plain
        case int() as plain:
            return int(plain)
        case float() as plain if math.isfinite(plain):
            return float(plain)
        case float() as plain:
            raise UsageError(f"{name} is {plain}: JSON has no such number", hint="leave it out, or give it as text")
        case str() as plain:
            return str.__str__(plain)
        case Mapping() as plain:
            _check_keys(plain, name)
            return {str.__str__(k): json_value(inner, f"{name}.{k}", depth=depth + 1) for k, inner in plain.items()}
        case list() | tuple() as plain:
            return [json_value(inner, f"{name}[{i}]", depth=depth + 1) for i, inner in enumerate(plain)]
    raise UsageError(
        f"{name} has no JSON form",
        found=f"a {kind.__module__}.{kind.__qualname__}".replace("builtins.", ""),
        expected="text, numbers, booleans, None, lists or mappings",
        hint="keep arrays as assets, or write .tolist(); write times as text: .isoformat()",
    )


def _check_keys(mapping: Mapping[Any, Any], name: str) -> None:
    for key in mapping:
        if not isinstance(key, str):
            raise UsageError(f"a key of {name} is not text, so it has no JSON form", found=repr(key))


def _plain_scalar(value: Any) -> Any:
    """What an array library's number is to Python. Known by its shape alone: no such library is imported."""
    if getattr(value, "shape", None) != ():
        return value
    try:
        number = value.item() if hasattr(value, "item") else value.numpy().item()
    except Exception:  # noqa: BLE001 - a symbolic tensor, or no array at all: then it has no JSON form
        return value
    return number if isinstance(number, bool | int | float | str) else value


def _refuse_non_finite(value: Any, path: str = "$") -> None:
    # msgspec writes NaN and infinities as null: a metric would change without a word.
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"{value} at {path}")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _refuse_non_finite(inner, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _refuse_non_finite(inner, f"{path}[{index}]")
