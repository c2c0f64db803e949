"""From a version in the store to a model in memory, with everything that travels with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from modelkeep import assets as codecs
from modelkeep.engines.engine import Engine
from modelkeep.errors import CannotLoad
from modelkeep.live import custom_objects as customs
from modelkeep.live import golden, servable
from modelkeep.live.restore import restore, restore_into
from modelkeep.live.servable import by_name
from modelkeep.live.stored import Stored
from modelkeep.live.tensors import array
from modelkeep.manifest import Manifest, Tensor
from modelkeep.pipeline import Pipeline
from modelkeep.report import Finding, Report, Severity
from modelkeep.storage.blobs import Blobs, Mapped, Verify
from modelkeep.storage.protocol import Progress

if TYPE_CHECKING:
    import keras


class Assets(Mapping[str, Any]):
    """A version's assets by name, each read and checked when first asked for."""

    def __init__(self, manifest: Manifest, stored: Stored, trust: Sequence[str]) -> None:
        self._assets = {asset.name: asset for asset in manifest.assets}
        self._stored = stored
        self._trust = trust
        self._values: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            asset = self._assets[name]
            self._values[name] = codecs.unpack(asset, self._stored.part, self._stored.tensor, trust=self._trust)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._assets)

    def __len__(self) -> int:
        return len(self._assets)


@dataclass(frozen=True)
class Loaded:
    """A version brought to life.

    ``findings`` tell what was noticed on the way (a custom class edited since the save); nothing in them
    stopped the load.
    """

    manifest: Manifest
    network: keras.Model | None
    assets: Assets
    findings: tuple[Finding, ...]
    _mapped: Mapped
    _stored: Stored
    engine: Engine | None = None  # what answers in a servable version, which holds no Keras model

    @property
    def model(self) -> keras.Model:
        """The Keras model, compiled if it was.

        With ``verify="lazy"`` raises IntegrityError once damage is known; CannotLoad for a servable version.
        """
        self._mapped.raise_if_damaged()
        if self.network is None:
            raise CannotLoad(
                f"{self.manifest.model}:{self.manifest.version} holds no Keras model, only a form that serves",
                hint="it answers all the same: use .predict",
            )
        return self.network

    @cached_property
    def pipeline(self) -> Pipeline | None:
        """The declared steps around the network, or None."""
        if self.manifest.pipeline is None:
            return None
        return Pipeline.from_json(self._stored.part(self.manifest.pipeline))

    def wait(self) -> None:
        """With ``verify="lazy"``: return when every tensor has been verified; raises IntegrityError on a mismatch."""
        self._mapped.wait()

    def predict(self, raw: Any) -> Any:
        """From raw input to the answer, through the pipeline where there is one.

        Without a pipeline: arrays in the network's own shapes and dtypes, to arrays. Raises
        UsageError where an input does not fit the first step.
        """
        return _through(self.pipeline, self.assets, raw, self._network_answer)

    @property
    def examples(self) -> Any:
        """The golden inputs as the network itself takes them, nested arrays; None where none were kept."""
        recorded = self.manifest.golden
        if recorded is None:
            return None
        inputs = golden.inputs_of(recorded, self._golden_arrays, self._stored.part)
        if self.pipeline is None or recorded.probe:
            return inputs
        return self.pipeline.prepare(inputs, self.assets)

    @cached_property
    def _golden_arrays(self) -> dict[str, Any]:
        return {
            tensor.name: array(tensor, self._stored.tensor(tensor.name)[1])
            for tensor in self.manifest.tensors
            if tensor.name.startswith("golden/")
        }

    def replay(self, *, same_backend: bool) -> Report:
        """Give the golden inputs to this model and compare its answers with those recorded at the save."""
        if self.manifest.golden is None:
            note = Finding("golden", Severity.NOTE, "no golden examples were kept")
            return Report(f"golden examples of {self.manifest.model}:{self.manifest.version}", (note,))
        predict = self._network_answer if self.manifest.golden.probe else self.predict
        return golden.replay(
            predict,
            self.manifest.golden,
            self._golden_arrays,
            self._stored.part,
            same_backend=same_backend,
            computed_in=() if self.network is None else golden.computed_in(self.network),
        )

    def _network_answer(self, inputs: Any) -> Any:
        if self.engine is not None:
            return self.engine.run(by_name(self.engine.signature, inputs))
        return golden.outputs_of(self.model, inputs)


def answer(model: keras.Model, pipeline: Pipeline | None, assets: Mapping[str, Any], raw: Any) -> Any:
    """What the whole of a version answers to raw input."""
    return _through(pipeline, assets, raw, lambda inputs: golden.outputs_of(model, inputs))


def _through(pipeline: Pipeline | None, assets: Mapping[str, Any], raw: Any, network: Callable[[Any], Any]) -> Any:
    return network(raw) if pipeline is None else pipeline.finish(network(pipeline.prepare(raw, assets)), assets)


def load(
    manifest: Manifest,
    blobs: Blobs,
    *,
    custom_objects: Any = None,
    trust: Sequence[str] = (),
    objects: Mapping[str, object] | None = None,
    compile: bool = True,
    verify: Verify = "eager",
    progress: Progress | None = None,
) -> Loaded:
    """Bring the version that ``manifest`` describes to life.

    ``objects`` are custom objects found already, by the names its config uses. Raises CannotLoad for a version
    kept weights-only, MissingCustomObjects, UnsafeContent, CannotRebuild, NotFaithful, IntegrityError.
    """
    if manifest.kind == "servable":
        return _load_servable(manifest, blobs, trust)
    findings: tuple[Finding, ...] = ()
    if objects is None:
        objects, findings = customs.resolve(manifest.custom_objects, custom_objects=custom_objects, trust=trust)
    stored = Stored(manifest, blobs)
    mapped = blobs.map(network_tensors(manifest, optimizer=compile), verify=verify, progress=progress)
    model = restore(manifest, stored.part, mapped.views, objects=objects, compile=compile)
    loaded = Loaded(manifest, model, Assets(manifest, stored, trust), findings, mapped, stored)
    if loaded.pipeline is not None:
        loaded.pipeline.check_steps(trust)
    return loaded


def _load_servable(manifest: Manifest, blobs: Blobs, trust: Sequence[str]) -> Loaded:
    stored = Stored(manifest, blobs)
    engine = servable.open_parts(manifest, blobs)
    return Loaded(manifest, None, Assets(manifest, stored, trust), (), blobs.map(()), stored, engine)


def load_into(
    model: keras.Model, manifest: Manifest, blobs: Blobs, *, verify: Verify = "eager", progress: Progress | None = None
) -> Loaded:
    """Give a model that the caller built a version's weights and state, and its optimizer's if it is compiled.

    Raises NotFaithful where names, shapes or dtypes differ.
    """
    stored = Stored(manifest, blobs)
    tensors = network_tensors(manifest, optimizer=bool(getattr(model, "compiled", False)))
    mapped = blobs.map(tensors, verify=verify, progress=progress)
    restore_into(model, manifest, stored.part, mapped.views)
    return Loaded(manifest, model, Assets(manifest, stored, ()), (), mapped, stored)


def network_tensors(manifest: Manifest, *, optimizer: bool = True) -> list[Tensor]:
    """The tensors a model is made of: not the golden examples', not the assets'."""
    wanted = ("weights/", "state/", "optimizer/") if optimizer else ("weights/", "state/")
    return [tensor for tensor in manifest.tensors if tensor.name.startswith(wanted)]
