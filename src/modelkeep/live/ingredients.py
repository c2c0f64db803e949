"""What an average is made of: versions, checkpoints and files, each as tensors that can be read where they lie."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import msgspec

from modelkeep.errors import CannotLoad, UsageError
from modelkeep.live import custom_objects as customs
from modelkeep.live import golden, opening, shards
from modelkeep.live.capture import CONFIG, LAYER_ASSETS, TORCH_RNG, capture
from modelkeep.live.loading import Assets
from modelkeep.live.restore import restore
from modelkeep.live.stored import Stored, put_aside
from modelkeep.live.tensors import array
from modelkeep.manifest import Manifest, Tensor
from modelkeep.pipeline import Pipeline
from modelkeep.report import Finding, Severity
from modelkeep.storage.blobs import Blobs
from modelkeep.storage.local import LocalStore

_OF_TRAINING = ("state/compiled/", TORCH_RNG)


@dataclass(frozen=True)
class Ingredient:
    """One of the models that are averaged: where its parts and tensors lie.

    ``name`` is what a lineage calls it, with a digest; ``label`` what people do.
    """

    name: str
    label: str
    manifest: Manifest
    blobs: Blobs
    objects: Mapping[str, object] = field(default_factory=dict)  # custom ones, by the names its config uses

    @cached_property
    def stored(self) -> Stored:
        """Its parts and tensors."""
        return Stored(self.manifest, self.blobs)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Those of the network, by name. Raises CannotLoad for a checkpoint that is kept in parts."""
        if any(part.name == shards.PART for part in self.manifest.parts):
            raise CannotLoad(
                f"{self.label} is kept in parts, as it lay on several devices",
                hint="make a version of it, which is whole, and average that: keep.publish",
            )
        return {
            tensor.name: tensor
            for tensor in self.manifest.tensors
            if tensor.name.startswith(("weights/", "state/")) and not tensor.name.startswith(_OF_TRAINING)
        }

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """What Keras' own files hold of the network."""
        return {name: tensor for name, tensor in self.tensors.items() if name.startswith("weights/")}

    def views(self) -> dict[str, memoryview]:
        """Every tensor's bytes, verified: private memory, mapped anew at each call."""
        return self.blobs.map(list(self.tensors.values())).views

    def network(self, views: Mapping[str, memoryview]) -> keras.Model:
        """A new model with these values, by tensor; compiled as it was, with an optimizer that has not begun.

        Raises what :func:`modelkeep.live.restore.restore` raises.
        """
        return restore(self.manifest, self.stored.part, views, objects=self.objects, fresh_optimizer=True)

    def config(self) -> Any:
        """Its architecture. Raises IntegrityError where it is not kept."""
        return json.loads(self.stored.part(CONFIG))

    @property
    def layer_assets(self) -> dict[str, str]:
        """The digests of the files that layers keep, by name."""
        return {part.name: part.digest for part in self.manifest.parts if part.name.startswith(LAYER_ASSETS)}

    @property
    def surroundings(self) -> dict[str, tuple[str, ...]]:
        """Assets and pipeline by name, each as the digests of what it is made of."""
        digests = {part.name: part.digest for part in self.manifest.parts}
        digests |= {tensor.name: tensor.digest for tensor in self.manifest.tensors}
        held = {
            asset.name: (asset.kind, *(digests[name] for name in (*asset.parts, *asset.tensors)))
            for asset in self.manifest.assets
        }
        pipeline = self.manifest.pipeline
        return held if pipeline is None else held | {pipeline: (digests[pipeline],)}


@contextmanager
def gathered(
    refs: Sequence[str | os.PathLike[str]],
    kept: Callable[[str], tuple[str, Manifest]],
    blobs: Blobs,
    custom_objects: Any = None,
    trust: Sequence[str] = (),
) -> Iterator[list[Ingredient]]:
    """The models that are named, versions and checkpoints as ``kept`` finds them, in their order.

    A text is a file where there is one of that name. Raises what finding and opening them raises.
    """
    found: dict[int, Ingredient] = {}
    files = {place: Path(ref) for place, ref in enumerate(refs) if not isinstance(ref, str) or Path(ref).exists()}
    with TemporaryDirectory(prefix="modelkeep-") as folder:
        for place, ref in enumerate(refs):
            if place not in files:
                found[place] = of_version(*kept(str(ref)), blobs, custom_objects=custom_objects, trust=trust)
        for place, path in files.items():  # last: weights alone need the architecture of one that has kept it
            like = next((each for each in found.values() if each.manifest.kind == "whole"), None)
            own = Path(folder, str(place))
            found[place] = of_file(path, own, like=like, custom_objects=custom_objects, trust=trust)
        yield [found[place] for place in sorted(found)]


def of_version(
    name: str, manifest: Manifest, blobs: Blobs, *, custom_objects: Any = None, trust: Sequence[str] = ()
) -> Ingredient:
    """A version, or a checkpoint, as it lies in its store. Raises MissingCustomObjects, UsageError."""
    if manifest.kind == "servable":
        raise UsageError(f"{name} holds no Keras model, so it has no weights to average", found="kind servable")
    objects, _ = customs.resolve(manifest.custom_objects, custom_objects=custom_objects, trust=trust)
    return Ingredient(name, name.rpartition("@")[0], manifest, blobs, objects)


def of_file(
    path: Path, folder: Path, *, like: Ingredient | None, custom_objects: Any = None, trust: Sequence[str] = ()
) -> Ingredient:
    """A model file, taken into a store of its own in ``folder`` so that it can be read tensor by tensor.

    ``like`` is whose network takes the weights where there is one. Raises what ``mk.load`` raises.
    """
    opened = opening.open_file(
        path,
        into=like and like.network(like.views()),
        compile=like is None,
        custom_objects=custom_objects,
        trust=trust,
    )
    captured = capture(opened.model)
    blobs = Blobs(LocalStore(folder))
    return Ingredient(opened.name, path.name, put_aside(captured, blobs), blobs, captured.objects)


# --- what goes with it


@dataclass(frozen=True)
class Surroundings:
    """What goes with a network; ``golden`` are the inputs as they were given, to the pipeline where there is one."""

    assets: Mapping[str, Any]
    pipeline: Pipeline | None
    golden: Any
    findings: tuple[Finding, ...] = ()


def surroundings(used: Sequence[Ingredient], trust: Sequence[str]) -> Surroundings:
    """Assets and pipeline of the first model that has any, unless others differ; golden inputs likewise."""
    owners = [each for each in used if each.manifest.assets or each.manifest.pipeline]
    examples = next((each for each in used if each.manifest.golden and not each.manifest.golden.probe), None)
    if not owners:
        return Surroundings({}, None, examples and _golden_inputs(examples))
    first = owners[0]
    mine = first.surroundings
    left = {name for name in mine if any(other.surroundings.get(name) != mine[name] for other in owners[1:])}
    findings = tuple(
        Finding(
            "average-left", Severity.WARNING, f"differs between the models, so it is left out of {first.label}'s", name
        )
        for name in sorted(left)
    )
    manifest = msgspec.structs.replace(
        first.manifest, assets=tuple(asset for asset in first.manifest.assets if asset.name not in left)
    )
    # What is raw to one pipeline is not to another one, or to the network alone.
    pipeline = None if left or manifest.pipeline is None else Pipeline.from_json(first.stored.part(manifest.pipeline))
    fits = examples is not None and (not left or first.manifest.pipeline is None)
    golden_inputs = _golden_inputs(examples) if fits and examples is not None else None
    return Surroundings(Assets(manifest, first.stored, trust), pipeline, golden_inputs, findings)


def _golden_inputs(one: Ingredient) -> Any:
    assert one.manifest.golden is not None
    arrays = {
        tensor.name: array(tensor, one.stored.tensor(tensor.name)[1])
        for tensor in one.manifest.tensors
        if tensor.name.startswith("golden/")
    }
    return golden.inputs_of(one.manifest.golden, arrays, one.stored.part)
