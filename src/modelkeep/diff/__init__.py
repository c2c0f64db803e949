"""What differs between two versions, from their manifests and configs alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from modelkeep.diff import architecture
from modelkeep.errors import IntegrityError
from modelkeep.manifest import COMPILE, CONFIG, LAYER_ASSETS, Golden, Manifest, Tensor, TensorSpec
from modelkeep.refs import short_digest
from modelkeep.report import Change, Diff, Section
from modelkeep.sizes import human_bytes

Read = Callable[[str], bytes]
"""Gives the bytes of a part by its digest. Raises IntegrityError."""

Distance = Callable[[Tensor, Tensor], float]
"""The relative L2 distance ‖new - old‖ / ‖old‖ of two tensors of equal shape."""


def diff(old: Manifest, new: Manifest, read: Read, *, distance: Distance | None = None) -> Diff:
    """Compare two versions, section by section; a section without changes says how much is the same.

    ``distance`` is asked for every weight that changed and kept its shape; without it, that a weight
    changed is all that is told. Raises what ``read`` raises, and IntegrityError for a config that is not JSON.
    """
    layers = architecture.compare(_json(old, CONFIG, read), _json(new, CONFIG, read))
    sections = (
        layers.section,
        _values("compile", _json(old, COMPILE, read), _json(new, COMPILE, read)),
        _weights(old, new, layers, distance),
        _state(old, new),
        _metrics(old, new),
        _values("metadata", old.metadata, new.metadata),
        Section("tags", tuple(_in_or_out(old.tags, new.tags))),
        _described("signature", _signature(old, layers.renamed), _signature(new, {})),
        _described("assets", _assets(old), _assets(new)),
        _values("pipeline", _pipeline(old, read), _pipeline(new, read)),
        _described("custom objects", _objects(old), _objects(new)),
        _described("files", _files(old), _files(new)),
        _golden(old, new),
        _values("environment", _builtins(old.environment), _builtins(new.environment)),
        _values("lineage", _builtins(old.lineage), _builtins(new.lineage)),
        _size(old, new),
    )
    return Diff(_name(old), _name(new), sections)


# --- what a manifest says, as mappings that can be compared


def _name(manifest: Manifest) -> str:
    return f"{manifest.model}:{manifest.version}"


def _json(manifest: Manifest, name: str | None, read: Read) -> Any:
    part = next((part for part in manifest.parts if part.name == name), None)
    if part is None:
        return {}
    try:
        value = msgspec.json.decode(read(part.digest))
        return value if isinstance(value, dict) else {name: value}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(
            f"{name} of {_name(manifest)} cannot be read ({error})", hint="run: modelkeep fsck"
        ) from error


def _pipeline(manifest: Manifest, read: Read) -> Any:
    return _json(manifest, manifest.pipeline, read)


def _builtins(value: Any) -> Any:
    return {} if value is None else msgspec.to_builtins(value)


def _signature(manifest: Manifest, renamed: Mapping[str, str]) -> dict[str, str]:
    """Inputs and outputs by their names, which come from layers: of the old model as the new one calls them."""
    signature = manifest.signature
    if signature is None:
        return {}
    sides = (("input", signature.inputs), ("output", signature.outputs))
    return {f"{side} {renamed.get(spec.name, spec.name)}": _spec(spec) for side, specs in sides for spec in specs}


def _spec(value: Tensor | TensorSpec) -> str:
    shape = (
        "any shape" if value.shape is None else f"({', '.join('any' if n is None else str(n) for n in value.shape)})"
    )
    return f"{value.dtype} {shape}"


def _digests(manifest: Manifest) -> dict[str, str]:
    """The digest of every part and tensor by its name."""
    return {part.name: part.digest for part in manifest.parts} | {
        tensor.name: tensor.digest for tensor in manifest.tensors
    }


def _assets(manifest: Manifest) -> dict[str, str]:
    digests = _digests(manifest)
    return {
        asset.name: " ".join(
            (asset.kind, *(short_digest(digests.get(name, "")) for name in (*asset.parts, *asset.tensors)))
        )
        for asset in manifest.assets
    }


def _objects(manifest: Manifest) -> dict[str, str]:
    return {
        f"{item.kind} {item.module}.{item.qualname}": f"source {short_digest(item.source_digest or 'unknown')}"
        for item in manifest.custom_objects
    }


def _files(manifest: Manifest) -> dict[str, str]:
    """The files that layers keep beside their weights, such as vocabularies."""
    return {
        part.name: f"{short_digest(part.digest)} {human_bytes(part.size)}"
        for part in manifest.parts
        if part.name.startswith(LAYER_ASSETS)
    }


# --- comparing


def _values(name: str, old: Any, new: Any) -> Section:
    """Every value at any depth that differs between two mappings; equal ones are counted at the top."""
    changes = tuple(_change(place, before, after) for place, before, after in architecture.differences(old, new))
    return Section(name, changes, sum(key in new and new[key] == value for key, value in old.items()))


def _described(name: str, old: Mapping[str, str], new: Mapping[str, str]) -> Section:
    """Things by their names, each as a short text."""
    names = dict.fromkeys((*new, *old))
    changes = tuple(_change(key, old.get(key), new.get(key)) for key in names if old.get(key) != new.get(key))
    return Section(name, changes, len(names) - len(changes))


def _change(subject: str, old: Any, new: Any, remark: str = "") -> Change:
    if old is None:
        return Change("added", subject, new=new, remark=remark)
    if new is None:
        return Change("removed", subject, old=old, remark=remark)
    return Change("changed", subject, old, new, remark)


def _in_or_out(old: Iterable[str], new: Iterable[str]) -> Iterator[Change]:
    yield from (Change("added", item) for item in sorted(set(new) - set(old)))
    yield from (Change("removed", item) for item in sorted(set(old) - set(new)))


def _metrics(old: Manifest, new: Manifest) -> Section:
    changes = []
    for place, before, after in architecture.differences(old.metrics, new.metrics):
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (before, after))
        changes.append(_change(place, before, after, f"{after - before:+.4g}" if numbers else ""))
    same = sum(new.metrics.get(key) == value for key, value in old.metrics.items())
    return Section("metrics", tuple(changes), same)


def _weights(old: Manifest, new: Manifest, layers: architecture.Compared, distance: Distance | None) -> Section:
    changes = []
    pairs = list(_paired_weights(old, new, layers))
    for path, before, after in pairs:
        if before and after and before.digest == after.digest and _spec(before) == _spec(after):
            continue
        if before and after and _spec(before) == _spec(after):
            remark = f"relative L2 {distance(before, after):.3g}" if distance else "values"
            changes.append(Change("changed", path, remark=f"{_spec(after)}, {remark}"))
        else:
            changes.append(_change(path, before and _spec(before), after and _spec(after)))
    return Section("weights", tuple(changes), len(pairs) - len(changes))


def _paired_weights(
    old: Manifest, new: Manifest, layers: architecture.Compared
) -> Iterator[tuple[str, Tensor | None, Tensor | None]]:
    """Path in the new model, with the old and new tensor there: by the layer they belong to, else by name."""
    before = {layers.old_variable(tensor.variable or tensor.name): tensor for tensor in _under("weights/", old)}
    after = {layers.new_variable(tensor.variable or tensor.name): tensor for tensor in _under("weights/", new)}
    left = {tensor.name: path for path, tensor in before.items() if path not in after}
    for path, tensor in after.items():
        origin = path if path in before else left.pop(tensor.name, None)
        yield path, before.get(origin) if origin else None, tensor
    yield from ((path, before[path], None) for path in left.values())


def _under(root: str, manifest: Manifest) -> list[Tensor]:
    return [tensor for tensor in manifest.tensors if tensor.name.startswith(root)]


def _state(old: Manifest, new: Manifest) -> Section:
    """What a resumed fit goes on from, in numbers: each step of training changes nearly all of it."""
    changes = []
    for kind, root in (("optimizer", "optimizer/"), ("seeds, metrics and other state", "state/")):
        before = {tensor.name: tensor.digest for tensor in _under(root, old)}
        after = {tensor.name: tensor.digest for tensor in _under(root, new)}
        counts = (
            (len(after.keys() - before.keys()), "added"),
            (len(before.keys() - after.keys()), "removed"),
            (sum(before[name] != after[name] for name in before.keys() & after.keys()), "changed"),
        )
        if told := [f"{count} {what}" for count, what in counts if count]:
            changes.append(Change("changed", kind, remark=f"{', '.join(told)} of {len(before | after)} tensors"))
    return Section("training state", tuple(changes))


def _golden(old: Manifest, new: Manifest) -> Section:
    before, after = old.golden, new.golden
    if before is None or after is None:
        changes = [] if before is after else [_change("examples", before and before.count, after and after.count)]
        return Section("golden", tuple(changes))
    sides = [
        (_inputs(golden, manifest), _leaves(golden.outputs, _digests(manifest)))
        for golden, manifest in ((before, old), (after, new))
    ]
    if sides[0][0] != sides[1][0]:
        change = Change("changed", "inputs", remark="other examples, so their outputs are not compared")
        return Section("golden", (change,))
    if sides[0][1] != sides[1][1]:
        change = Change("changed", "outputs", remark=f"other answers to the same {after.count} examples")
        return Section("golden", (change,))
    return Section("golden", (), after.count)


def _inputs(golden: Golden, manifest: Manifest) -> Any:
    return _leaves(golden.inputs if golden.raw is None else golden.raw, _digests(manifest))


def _leaves(structure: Any, digests: Mapping[str, str]) -> Any:
    """A structure with the digests of the tensors or part that it names in the place of their names."""
    match structure:
        case str():
            return digests.get(structure)
        case Mapping():
            return {key: _leaves(value, digests) for key, value in structure.items()}
        case list() | tuple():
            return [_leaves(value, digests) for value in structure]
    return structure


def _size(old: Manifest, new: Manifest) -> Section:
    counts = {
        "size": (old.size, new.size),
        "parameters": (old.parameters, new.parameters),
        "trainable parameters": (old.trainable_parameters, new.trainable_parameters),
    }
    grown = f"{'+' if new.size > old.size else '-'}{human_bytes(abs(new.size - old.size))}"
    remarks = {"size": f"{grown}, {human_bytes(_shared(old, new))} shared"}
    changes = [
        Change("changed", name, before, after, remarks.get(name, f"{after - before:+}"))
        for name, (before, after) in counts.items()
        if before != after
    ]
    return Section("size", tuple(changes), len(counts) - len(changes))


def _shared(old: Manifest, new: Manifest) -> int:
    """Bytes of the parts and tensors that both have."""
    sizes = {part.digest: part.size for part in new.parts} | {tensor.digest: tensor.nbytes for tensor in new.tensors}
    return sum(sizes[digest] for digest in set(_digests(old).values()) & sizes.keys())
