"""From a config of any Keras to one that Keras 3 reads: the walk that asks every rule at its place.

What comes out is in the form that Keras 3 itself writes: every object names its module, every call in a
functional model has its arguments by position and by name. Nothing is looked up or imported: what is not Keras'
own keeps its name.
"""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from modelkeep.legacy import compiling, functions, graphs, keras1, layers, names, objects
from modelkeep.legacy.places import is_foreign, is_graph, is_object, kind_of, module_of
from modelkeep.legacy.rules import JSON, Node, Note, Rule, Version

RULES: tuple[Rule, ...] = (*keras1.RULES, *layers.RULES, *objects.RULES, *compiling.RULES)
"""Every rule about an object, in the order in which they are asked: one may give another class's name."""


@dataclass(frozen=True, slots=True)
class Upgraded:
    """A config that Keras 3 reads, and what was done to it.

    ``refusals`` are what no rule can carry over: where there are any, the config cannot be built. ``renamed``
    has the names that layers of the outermost model have in the file, by the names they have now.
    """

    config: Any
    notes: tuple[Note, ...] = ()
    refusals: tuple[Note, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)


def upgrade(config: Any, keras_version: str | None, *, custom: Collection[str] = ()) -> Upgraded:
    """Make the config of a model, or of a part of one, new. The config given is left as it was.

    ``keras_version`` is what the file says wrote it; None where it does not say, and the config itself tells.
    ``custom`` are names of classes that the caller gives, which the rules for Keras' own leave alone.
    """
    version = Version.of(keras_version) if keras_version else Version.told_by(config)
    walk = _Walk(version, frozenset(custom))
    return walk.upgraded(walk.visit(deepcopy(config), "model", ""))


def upgrade_compile(config: Any, keras_version: str | None, *, custom: Collection[str] = ()) -> Upgraded:
    """Make the arguments of ``compile`` new: those that a file has, whatever it calls them."""
    walk = _Walk(Version.of(keras_version), frozenset(custom))
    arguments = compiling.arguments(deepcopy(config))
    return walk.upgraded({name: walk.argument(name, value) for name, value in arguments.items()})


@dataclass
class _Walk:
    version: Version
    custom: frozenset[str]
    notes: list[Note] = field(default_factory=list)
    refusals: list[Note] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)

    def upgraded(self, config: Any) -> Upgraded:
        return Upgraded(config, tuple(self.notes), tuple(self.refusals), self.renamed)

    def visit(self, value: Any, argument: str, place: str) -> Any:
        """A value made new, by the name of the argument that holds it."""
        if isinstance(value, list):
            return [self.visit(inner, argument, place) for inner in value]
        if is_object(value):
            return self.object(value, argument, place)
        if isinstance(value, dict):
            return {key: self.visit(inner, key, place) for key, inner in value.items()}
        return self.text(value, argument, place) if isinstance(value, str) else value

    def argument(self, name: str, value: Any) -> Any:
        """An argument of ``compile``: whatever its nesting by outputs, all in it is of one kind."""
        if isinstance(value, dict) and not is_object(value) and name != "loss_weights":
            # By the names of outputs, which have no slashes now.
            return {key.replace("/", "_"): self.argument(name, inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.argument(name, inner) for inner in value]
        return self.visit(value, name, COMPILE)

    def text(self, value: str, argument: str, place: str) -> Any:
        """What a text means; most are what they are."""
        if place == COMPILE and argument in _MEASURES:
            return compiling.measure(value, argument, place, self.notes)
        if not self.version.is_legacy:
            return value
        return functions.named(value, argument, place, self.notes)

    def object(self, raw: JSON, argument: str, place: str) -> JSON:
        if raw["class_name"] == "function" and self.version.is_legacy and isinstance(raw["config"], str):
            # As a text it goes through the same rules.
            new = self.text(raw["config"], argument, place)
            return raw if new in (raw["config"], functions.function(raw["config"])) else new
        kind = kind_of(argument, raw)
        if kind is None or not isinstance(raw["config"], dict | list | None):
            return {**raw, "config": self.visit(raw["config"], "config", place)}
        if kind == "optimizer" and raw["class_name"] not in self.custom:
            raw = compiling.without_package(raw)
        node = Node(kind, raw["class_name"], raw["config"], self.version, place)
        if isinstance(node.config, list):  # of a Sequential, before Keras 2.2.3
            node.config = {"name": raw.get("name", "sequential"), "layers": node.config}
        node.config = dict(node.config or {})
        if kind == "layer" and argument != "model":
            node.place = place = _joined(place, raw.get("name") or node.config.get("name"))
        is_custom = self.is_custom(raw)
        if self.version.major == 1:
            node.config = keras1.named_objects(node.config)
        if self.version.is_legacy and not is_custom:
            self.apply(node)
        if "layers" in node.config and self.version.is_legacy:
            self.rename(node.config, place, outermost=argument == "model")
        inner = {key: self.visit(value, key, place) for key, value in node.config.items() if key != "layers"}
        if "layers" in node.config:
            inner["layers"] = [self.layer(layer, place) for layer in node.config["layers"]]
        node.config = inner
        if is_graph(node.config) and self.version.is_legacy:
            self.refusals.extend(graphs.upgrade(node.config, place, self.notes))
        return _named(raw, node, is_custom)

    def layer(self, raw: Any, place: str) -> Any:
        """One of a model's layers, with its calls as they were."""
        new = self.visit(raw, "layers", place)
        return {**new, **{key: raw[key] for key in ("name", "inbound_nodes") if key in raw}}

    def rename(self, config: JSON, place: str, *, outermost: bool) -> None:
        renamed = names.rename(config)
        for new, old in renamed.items():
            self.notes.append(Note("slash-in-name", _joined(place, new), f"was called {old}"))
        if outermost:
            self.renamed = renamed

    def is_custom(self, raw: JSON) -> bool:
        name = raw["class_name"]
        return name in self.custom or is_foreign(raw.get("module")) or ">" in str(raw.get("registered_name") or name)

    def apply(self, node: Node) -> None:
        for each in RULES:
            if each.concerns(node):
                message = each.apply(node)
                if message is not None:
                    self.notes.append(Note(each.id, node.place, message))
                self.refusals += [Note(each.id, node.place, why) for why in node.refusals]
                node.refusals.clear()


COMPILE = "compile"
_MEASURES = ("loss", "metrics", "weighted_metrics")
KEPT = "modelkeep.live.legacy_objects"  # where live code keeps what Keras 3 dropped


def _joined(place: str, name: Any) -> str:
    return f"{place}/{name}" if place and name else str(name or place)


def _named(raw: JSON, node: Node, is_custom: bool) -> JSON:
    """An object as Keras 3 writes it."""
    if not node.version.is_legacy and isinstance(raw.get("module"), str):
        return {**raw, "config": node.config}  # it was Keras 3 that wrote it
    new: JSON = {"module": module_of(node.class_name, node.kind), "class_name": node.class_name, "config": node.config}
    if node.kept:
        new["module"], new["registered_name"] = KEPT, f"modelkeep>{node.class_name}"
    if is_custom:
        registered = str(raw.get("registered_name") or node.class_name)
        new["module"] = raw.get("module") if is_foreign(raw.get("module")) else None
        new["class_name"] = registered.rpartition(">")[2] if registered == node.class_name else node.class_name
        new["registered_name"] = registered
    if node.kind == "layer" and "shared_object_id" in raw:
        new["shared_object_id"] = raw["shared_object_id"]
    return new
