"""The Keras model that a SavedModel was made of, where it tells enough of it.

===========================  =======================================================================================
written by                   how the model comes back
===========================  =======================================================================================
modelkeep                    from the whole ``.keras`` file inside, compared with the variables beside it
Keras 2, ``model.save``      its config made new, its weights from ``variables/`` by the order that each layer lists
Keras 3, ``model.export``    not at all: it serves; a model given as ``into`` takes its variables, by name
TensorFlow 1 and 2           likewise
===========================  =======================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from modelkeep.errors import CannotLoad, NotFaithful
from modelkeep.formats import keras_archive as keras_file
from modelkeep.formats.contents import Contents, ForeignTensor
from modelkeep.formats.forms import look
from modelkeep.formats.limits import DEFAULT
from modelkeep.formats.saved_model import OWN, VARIABLES
from modelkeep.live import building
from modelkeep.live.reading import Read, checkpoint, h5, keras_archive, weights
from modelkeep.report import Finding, Severity, several
from modelkeep.storage.hashing import digest_of

_SEED = "seed_generator_state"


def read(
    contents: Contents,
    *,
    into: keras.Model | None = None,
    custom_objects: Any = None,
    trust: Sequence[str] = (),
    compile: bool = True,
    skip: Sequence[str] = (),
) -> Read:
    """The Keras model of a SavedModel, compiled if it was and ``compile`` is true.

    With ``into`` that model takes the variables. ``skip`` names what may be left out
    (:func:`modelkeep.live.matching.assign`). Raises CannotLoad where the folder holds no Keras model,
    MissingCustomObjects, UnsafeContent, NotFaithful with its report.
    """
    terms: dict[str, Any] = {"custom_objects": custom_objects, "trust": trust, "compile": compile, "skip": skip}
    if any(member.name == OWN for member in contents.members):
        with keras_file.read(look(contents.path / OWN), DEFAULT, False) as inside:
            found = keras_archive.read(inside, into=into, **terms)
            return Read(found.model, (*found.findings, _compared(inside, contents)))
    if any(layer["weights"] for layer in contents.details.get("layers", ())):
        return h5.read(by_layer(contents), into=into, **terms)
    if contents.config is not None or (into is not None and "keras_class" in contents.details):
        return _by_object(contents, into, **terms)
    if into is not None:
        return weights.read(_by_name(contents, into), into=into, **terms)
    raise CannotLoad(
        f"{contents.path.name} is a SavedModel that serves, and tells no Keras model",
        found=contents.details.get("keras_class") or "functions alone",
        expected="one that Keras 2 or modelkeep saved, of a sequential or functional model",
        hint="it answers all the same through its engine; or give the model that takes its variables: into=model",
    )


def _by_object(
    contents: Contents, into: keras.Model | None, *, custom_objects: Any, trust: Sequence[str], compile: bool, skip: Any
) -> Read:
    """As a checkpoint is read: where nothing was traced, layers list no weights."""
    prefix, order = contents.path / VARIABLES, [layer["layer"] for layer in contents.details.get("layers", ())]
    if into is not None:
        return Read(into, checkpoint.fill(into, contents, prefix, skip=skip, compile=compile))
    version, wanted = contents.writer.get("keras"), contents.compile if compile else None
    built = building.build(
        contents.config,
        keras_version=version,
        compile_config=wanted,
        custom_objects=custom_objects,
        trust=trust,
        file=contents.path.name,
    )
    findings = built.findings
    if wanted is not None:
        findings += building.compile_model(built.model, wanted, keras_version=version, objects=built.objects)
    now = {old: new for new, old in built.renamed.items()}
    order = [now.get(name, name) for name in order]
    return Read(built.model, (*findings, *checkpoint.fill(built.model, contents, prefix, order=order, skip=skip)))


def by_layer(contents: Contents) -> Contents:
    """The same weights as Keras 2 lays them in HDF5: by layer, and under the names that optimizers know them by."""
    names = contents.details.get("variables", {})
    whose = {weight: layer["layer"] for layer in contents.details["layers"] for weight in layer["weights"]}
    new = {weight: f"{layer}/{names.get(weight, weight)}" for weight, layer in whose.items()}
    if len(set(new.values())) < len(new):  # what two weights are called tells neither
        new = {}
    layers = [
        {"layer": layer["layer"], "weights": [new.get(weight, weight) for weight in layer["weights"]]}
        for layer in contents.details["layers"]
    ]
    tensors = tuple(replace(tensor, name=new.get(tensor.name, tensor.name)) for tensor in contents.tensors)
    details = {**contents.details, "layers": layers}
    return replace(contents, tensors=tensors, optimizer=checkpoint.optimizer_of(contents), details=details)


def _by_name(contents: Contents, model: keras.Model) -> Contents:
    """The variables of an export under names by which the model knows them, as a file of named tensors has them."""
    names = contents.details.get("variables", {})
    named = [replace(tensor, name=names.get(tensor.name, tensor.name)) for tensor in contents.tensors]
    if len({tensor.name for tensor in named}) < len(named):
        # From JAX there are only the last parts of names, and an order.
        weights = [tensor for tensor in sorted(contents.tensors, key=_place) if names.get(tensor.name) != _SEED]
        trained_first = [*model.trainable_weights, *model.non_trainable_weights]
        if [names.get(tensor.name) for tensor in weights] == [variable.name for variable in trained_first]:
            pairs = zip(weights, trained_first, strict=True)
            named = [replace(tensor, name=variable.path) for tensor, variable in pairs]
    return replace(contents, form="safetensors", tensors=tuple(named))


def _place(tensor: ForeignTensor) -> tuple[int, str]:
    return len(tensor.name), tensor.name


def _compared(inside: Contents, contents: Contents) -> Finding:
    """That the graph answers with the weights of the model inside. Raises NotFaithful where it has others."""
    if not contents.tensors:
        return Finding("graph-compared", Severity.NOTE, "the graph has no variables to compare the weights with")
    there = {_value(tensor) for tensor in contents.tensors}
    # The state of random generators is no weight, and goes on while an export is made.
    ours = [tensor for tensor in inside.tensors if tensor.dtype != "uint32"]
    lacking = [tensor.name for tensor in ours if _value(tensor) not in there]
    if lacking:
        raise NotFaithful(
            f"the Keras model inside {contents.path.name} is not the one that its graph serves",
            found=f"{len(lacking)} weights that the graph has not: {several(lacking)}",
            hint="export it again; somebody changed one of the two",
        )
    return Finding("graph-compared", Severity.OK, f"the graph serves the same {len(ours)} weights")


def _value(tensor: ForeignTensor) -> tuple[str, tuple[int, ...], str]:
    values = np.ascontiguousarray(tensor.read())
    data = b"\0".join(values.ravel().tolist()) if values.dtype == object else values.reshape(-1).view(np.uint8).data
    return tensor.dtype, tensor.shape, digest_of(data)
