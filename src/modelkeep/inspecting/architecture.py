"""The network that a config describes, of Keras 1, 2 or 3, read as data.

Shapes come from where they are known best: from the tensors that a functional config records, from the
shapes layers were built for, and else from :mod:`modelkeep.inspecting.shapes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modelkeep.inspecting.facts import Architecture, CompileFacts, CustomFacts, LayerFacts
from modelkeep.inspecting.shapes import Shape, output_shape
from modelkeep.manifest import TensorSpec
from modelkeep.safety.configs import is_known

_DEEPEST = 16  # models within models; what lies deeper is not told
_MODELS = frozenset({"Sequential", "Functional", "Model"})
# Arguments that tell what a layer does; the rest are mostly defaults.
_TELLING = (
    "units", "filters", "kernel_size", "strides", "pool_size", "padding", "dilation_rate", "depth_multiplier", "groups",
    "input_dim", "output_dim", "num_heads", "key_dim", "max_tokens", "output_sequence_length", "output_mode",
    "activation", "recurrent_activation", "return_sequences", "return_state", "bidirectional", "merge_mode", "stateful",
    "rate", "dropout", "axis", "target_shape", "dims", "n", "size", "height", "width", "scale", "offset",
    "mask_zero", "use_bias", "function", "quantization_mode",
)  # fmt: skip
_SILENT = {
    "padding": "valid",
    "dilation_rate": (1, 1),
    "groups": 1,
    "use_bias": True,
    "activation": "linear",
    "scale": True,
    "axis": -1,
}

Config = Mapping[str, Any]
History = tuple[str, int, int]  # layer, node, tensor


def read(config: Any, weights: Mapping[str, int]) -> Architecture | None:
    """The network of a model config; ``weights`` are the counts of parameters by the layer's path, where known.

    None where the config is no model's.
    """
    if not isinstance(config, Mapping) or not isinstance(config.get("class_name"), str):
        return None
    inner = config.get("config")
    if isinstance(inner, list):  # Sequential before Keras 2.3
        inner = {"layers": inner}
    if not isinstance(inner, Mapping):
        inner = {}
    graph = _Graph(config["class_name"], inner, weights, "", 0)
    return Architecture(
        name=str(inner.get("name") or config["class_name"].lower()),
        kind=config["class_name"],
        layers=graph.layers(),
        inputs=graph.ends("input_layers"),
        outputs=graph.ends("output_layers"),
        custom_objects=tuple(_custom_objects(config)),
    )


class _Graph:
    """One model's layers, and what flows between them."""

    def __init__(self, kind: str, config: Config, weights: Mapping[str, int], path: str, depth: int) -> None:
        self._config = config
        self._weights = weights
        self._path = path
        self._depth = depth
        listed = config.get("layers")
        self._listed = [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
        self._is_sequential = kind == "Sequential" or not any("inbound_nodes" in one for one in self._listed)
        self._shapes: dict[History, Shape] = {}
        self._dtypes: dict[str, str] = {}
        for layer in self._listed:
            self._shapes.update(_recorded_shapes(layer))
        self._facts = self._sequential() if self._is_sequential else self._functional()

    def layers(self) -> tuple[LayerFacts, ...]:
        return tuple(self._facts.values())

    @property
    def output(self) -> Shape | None:
        """The shape of the only or first output."""
        ends = self.ends("output_layers")
        return ends[0].shape if ends else None

    def _sequential(self) -> dict[str, LayerFacts]:
        facts: dict[str, LayerFacts] = {}
        shape, before = _input_shape(self._config), None
        for layer in self._listed:
            config = _inner(layer)
            shape = _input_shape(config) or _built_shape(layer) or shape
            one = self._layer(layer, () if before is None else (before,), () if shape is None else (shape,))
            facts[one.name] = one
            shape, before = one.output_shape, one.name
        return facts

    def _functional(self) -> dict[str, LayerFacts]:
        facts: dict[str, LayerFacts] = {}
        # Layers may stand in any order; each pass settles those whose inputs are settled.
        waiting = list(self._listed)
        while waiting:
            ready = [one for one in waiting if all(name in facts or name == _name(one) for name in _feeding(one))]
            for layer in ready or waiting[:1]:
                histories = _histories(layer)
                shapes = [shape for at in histories if (shape := self._shapes.get(at) or _shape_of(facts.get(at[0])))]
                given = _input_shape(_inner(layer))
                one = self._layer(layer, _feeding(layer), shapes or ([given] if given else []))
                facts[one.name] = one
                waiting.remove(layer)
        return {_name(layer): facts[_name(layer)] for layer in self._listed}

    def _layer(self, layer: Config, feeding: Sequence[str], shapes: Sequence[Shape]) -> LayerFacts:
        config, name, class_name = _inner(layer), _name(layer), str(layer.get("class_name"))
        path = f"{self._path}{name}"
        inner = self._within(class_name, config, path)
        shape = self._shapes.get((name, 0, 0)) or output_shape(class_name, config, shapes)
        if shape is None and inner is not None:
            shape = inner.output
        if shape is None and class_name == "InputLayer":
            shape = _input_shape(config)
        return LayerFacts(
            name=name,
            class_name=class_name,
            custom=not is_known(layer),
            inputs=tuple(dict.fromkeys(feeding)),
            output_shape=shape,
            dtype=_dtype(config),
            parameters=self._parameters(path, inner),
            trainable=config.get("trainable", True) is not False,
            settings=_settings(config),
            layers=inner.layers() if inner is not None else self._wrapped(config, path),
        )

    def _within(self, class_name: str, config: Config, path: str) -> _Graph | None:
        if not isinstance(config.get("layers"), list) or self._depth >= _DEEPEST:
            return None
        return _Graph(class_name, config, self._weights, f"{path}/", self._depth + 1)

    def _wrapped(self, config: Config, path: str) -> tuple[LayerFacts, ...]:
        """The layer within a wrapper, the cells of an RNN."""
        cells = config.get("cells") if isinstance(config.get("cells"), list) else []
        inner = [config.get("layer"), config.get("cell"), *(cells or [])]
        if self._depth >= _DEEPEST:
            return ()
        wrapped = [one for one in inner if isinstance(one, Mapping) and isinstance(one.get("class_name"), str)]
        graph = _Graph("Sequential", {}, self._weights, f"{path}/", self._depth + 1)
        return tuple(graph._layer(one, (), ()) for one in wrapped)

    def _parameters(self, path: str, inner: _Graph | None) -> int | None:
        if inner is not None:
            counts = [layer.parameters or 0 for layer in inner.layers()]
            return sum(counts) or self._weights.get(path)
        return self._weights.get(path, 0 if self._weights else None)

    def ends(self, key: str) -> tuple[TensorSpec, ...]:
        """The inputs or outputs of the model, by the names of the layers they come from."""
        named = list(_ends(self._config.get(key)))
        if self._is_sequential:
            layers = self.layers()
            if not layers:
                return ()
            first = layers[0]
            shape = _input_shape(self._config) or _input_shape(_inner(self._listed[0])) or _built_shape(self._listed[0])
            if key == "input_layers":
                return (TensorSpec(name=first.name, shape=shape, dtype=first.dtype or "float32"),) if shape else ()
            return (
                TensorSpec(name=layers[-1].name, shape=layers[-1].output_shape, dtype=layers[-1].dtype or "float32"),
            )
        specs = []
        for at in named:
            layer = self._facts.get(at[0])
            if layer is not None:
                shape = self._shapes.get(at) or layer.output_shape
                specs.append(TensorSpec(name=layer.name, shape=shape, dtype=layer.dtype or "float32"))
        return tuple(specs)


def compiled(config: Any) -> CompileFacts | None:
    """What ``compile`` was given, of Keras 2's ``training_config`` or Keras 3's ``compile_config``."""
    if not isinstance(config, Mapping):
        return None
    optimizer = config.get("optimizer", config.get("optimizer_config"))
    settings = _inner(optimizer) if isinstance(optimizer, Mapping) else {}
    plain = {key: value for key, value in settings.items() if isinstance(value, str | int | float) and key != "name"}
    return CompileFacts(
        optimizer=_title(optimizer),
        optimizer_settings=plain,
        loss=_plainly(config.get("loss")),
        metrics=_plainly(config.get("metrics")),
    )


# --- what a layer's config tells


def _inner(layer: Any) -> Config:
    config = layer.get("config") if isinstance(layer, Mapping) else None
    return config if isinstance(config, Mapping) else {}


def _name(layer: Config) -> str:
    return str(layer.get("name") or _inner(layer).get("name") or layer.get("class_name"))


def _dtype(config: Config) -> str | None:
    dtype = config.get("dtype")
    if isinstance(dtype, Mapping):
        dtype = _inner(dtype).get("name")
    return dtype if isinstance(dtype, str) else None


def _shape(value: Any) -> Shape | None:
    if isinstance(value, Mapping):  # TensorShape, as tf.keras wrote it
        value = value.get("items") or value.get("config")
    if not isinstance(value, list | tuple) or not all(isinstance(one, int | None) for one in value):
        return None
    return tuple(value)


def _input_shape(config: Config) -> Shape | None:
    shape = _shape(config.get("batch_shape")) or _shape(config.get("batch_input_shape"))
    if shape is not None:
        return shape
    build = config.get("build_input_shape")
    return _shape(build)


def _built_shape(layer: Config) -> Shape | None:
    build = layer.get("build_config")
    return _shape(build.get("input_shape")) if isinstance(build, Mapping) else None


def _shape_of(layer: LayerFacts | None) -> Shape | None:
    return None if layer is None else layer.output_shape


def _settings(config: Config) -> dict[str, Any]:
    told = {key: _plainly(config[key]) for key in _TELLING if config.get(key) not in (None, False)}
    return {key: value for key, value in told.items() if value not in (_SILENT.get(key), *_one_of(key))}


def _one_of(key: str) -> tuple[Any, ...]:
    """Lengths of 1 say nothing, however many of them."""
    return ([1], [1, 1], [1, 1, 1], 1) if key in ("dilation_rate", "strides") else ()


def _title(value: Any) -> str | None:
    if isinstance(value, Mapping):
        inner = value.get("config")
        named = inner if isinstance(inner, str) else None
        return named or str(value.get("registered_name") or value.get("class_name") or "?").rpartition(">")[2]
    return value if isinstance(value, str) else None


def _plainly(value: Any, depth: int = 0) -> Any:
    """A value as people say it: an object by its class, a function by its name."""
    if isinstance(value, Mapping):
        if "class_name" in value:
            return _title(value)
        return {str(key): _plainly(one, depth + 1) for key, one in value.items()} if depth < _DEEPEST else "…"
    if isinstance(value, list | tuple):
        return [_plainly(one, depth + 1) for one in value] if depth < _DEEPEST else "…"
    return value


# --- what flows where


def _recorded_shapes(layer: Config) -> Iterator[tuple[History, Shape]]:
    """The shapes that a Keras 3 config writes beside each tensor a layer takes."""
    for tensor in _keras_tensors(layer.get("inbound_nodes")):
        history, shape = _history(tensor.get("keras_history")), _shape(tensor.get("shape"))
        if history is not None and shape is not None:
            yield history, shape


def _keras_tensors(value: Any) -> Iterator[Config]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            if one.get("class_name") == "__keras_tensor__":
                yield _inner(one)
            else:
                waiting.extend(reversed(list(one.values())))
        elif isinstance(one, list):
            waiting.extend(reversed(one))


def _histories(layer: Config) -> list[History]:
    """The tensors that the first call of a layer takes, in order."""
    nodes = layer.get("inbound_nodes")
    first = nodes[0] if isinstance(nodes, list) and nodes else None
    if isinstance(first, Mapping):  # Keras 3
        return [at for tensor in _keras_tensors(first) if (at := _history(tensor.get("keras_history"))) is not None]
    return list(_old_histories(first))


def _old_histories(value: Any) -> Iterator[History]:
    """Keras 1 and 2 write ``[layer, node, tensor, kwargs]``, nested as the call's argument was."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list) and (history := _history(one)) is not None:
            yield history
            waiting.extend(inner for inner in one[3:] if isinstance(inner, Mapping))
        elif isinstance(one, list | tuple):
            waiting.extend(reversed(one))
        elif isinstance(one, Mapping):
            waiting.extend(reversed(list(one.values())))


def _history(value: Any) -> History | None:
    if isinstance(value, list) and len(value) >= 3:
        layer, node, tensor = value[:3]
        if isinstance(layer, str) and isinstance(node, int) and isinstance(tensor, int):
            return layer, node, tensor
    return None


def _feeding(layer: Config) -> list[str]:
    return [history[0] for history in _histories(layer)]


def _ends(value: Any) -> Iterator[History]:
    waiting = [value]
    while waiting:
        one = waiting.pop(0)
        if (history := _history(one)) is not None:
            yield history
        elif isinstance(one, list):
            waiting = [*one, *waiting]
        elif isinstance(one, Mapping):
            waiting = [*one.values(), *waiting]


# --- what is not Keras' own


def _custom_objects(config: Any) -> Iterator[CustomFacts]:
    users: dict[tuple[str, str | None], list[str]] = {}
    waiting: list[tuple[Any, str]] = [(config, "")]
    while waiting:
        value, user = waiting.pop()
        if isinstance(value, Mapping):
            if isinstance(value.get("class_name"), str) and "config" in value:
                inner = _inner(value)
                user = str(inner.get("name") or user) if "name" in inner else user
                if not is_known(value):
                    module = value.get("module")
                    key = (_title(value) or "?", module if isinstance(module, str) else None)
                    users.setdefault(key, []).append(user)
            waiting.extend((one, user) for one in reversed(list(value.values())))
        elif isinstance(value, list):
            waiting.extend((one, user) for one in reversed(value))
    for (name, module), used_by in users.items():
        yield CustomFacts(name=name, module=module, used_by=tuple(dict.fromkeys(filter(None, used_by))))
