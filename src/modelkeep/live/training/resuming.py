"""A checkpoint read back: its variables into a model, and the rest of what training needs to go on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras

from modelkeep.checkpoint import Checkpoint
from modelkeep.curves import Curves
from modelkeep.errors import IntegrityError, NotFaithful
from modelkeep.live import environment, internals, origins
from modelkeep.live.loading import network_tensors
from modelkeep.live.restore import restore_into
from modelkeep.live.stored import Stored
from modelkeep.live.tensors import array
from modelkeep.live.training import processes, state
from modelkeep.live.training.keeping import CURVES, OTHERS, STATE, TRAINING, Optimizers, Standing, nodes_of
from modelkeep.live.variables import assign, inventory
from modelkeep.manifest import Environment, Manifest
from modelkeep.report import Finding, Severity
from modelkeep.runs import Runs
from modelkeep.storage.blobs import Blobs


@dataclass(frozen=True)
class Resumption:
    """A checkpoint that training goes on from; every byte of it is checked when it is read."""

    checkpoint: Checkpoint
    manifest: Manifest
    blobs: Blobs

    @classmethod
    def of(cls, runs: Runs, blobs: Blobs, checkpoint: Checkpoint) -> Resumption:
        """Raises IntegrityError, BlobMissing, FormatTooNew."""
        return cls(checkpoint, runs.manifest(checkpoint), blobs)

    @property
    def standing(self) -> Standing:
        """Where training stood."""
        return Standing(self.checkpoint.step, self.checkpoint.epoch, self.checkpoint.step_in_epoch)

    def is_over(self, epochs: int) -> bool:
        """Whether of so many epochs none is left: a callback that stops training within one lets it end first."""
        stopped = self.value["stop_training"] and not self.standing.step_in_epoch
        return bool(self.standing.epoch >= epochs or stopped)

    @property
    def value(self) -> Mapping[str, Any]:
        """All that was kept beside the variables; of several processes, for this one."""
        return self._kept[0]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is otherwise than when it was kept."""
        return self._kept[1]

    @cached_property
    def _kept(self) -> tuple[dict[str, Any], tuple[Finding, ...]]:
        tensors = [tensor for tensor in self.manifest.tensors if tensor.name.startswith(TRAINING)]
        views = self.blobs.map(tensors).views
        arrays = {tensor.name.removeprefix(TRAINING): array(tensor, views[tensor.name]) for tensor in tensors}
        value = state.unpack(self._stored.part(STATE), arrays)
        if not isinstance(value, dict):
            raise IntegrityError(f"{STATE} holds no mapping", found=type(value).__name__, hint="run: modelkeep fsck")
        return processes.here().own(value)

    @property
    def counted(self) -> int:
        """How many variables the metrics of ``compile`` had."""
        return sum(tensor.name.startswith("state/compiled/") for tensor in self.manifest.tensors)

    @cached_property
    def curves(self) -> Curves:
        """What the run had logged."""
        return Curves.from_json(self._stored.part(CURVES))

    def elsewhere(self) -> Iterator[Finding]:
        """Another backend, or release of it or of Keras, than it was kept with: they decide over the last bits."""
        was, now = _numerics(self.manifest.environment), _numerics(environment.here())
        if other := sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name)):
            kept = ", ".join(f"{name} {was[name]}" for name in other if name in was)
            here = ", ".join(f"{name} {now[name]}" for name in other if name in now)
            message = f"kept with {kept}, and here is {here}: what follows is not, to the bit, what it would have been"
            yield Finding("environment-changed", Severity.WARNING, message, self.checkpoint.ref)

    def put_back(self, model: keras.Model) -> None:
        """Give a model its variables, those of its optimizer and metrics among them.

        Raises NotFaithful where layers, optimizers, names, shapes or dtypes differ.
        """
        mapped = self.blobs.map(network_tensors(self.manifest, optimizer=bool(getattr(model, "compiled", False))))
        restore_into(model, self.manifest, self._stored.part, mapped.views)
        if shares := self.value.get("shares"):
            variables = inventory(internals.walk(model)).variables
            for name in shares.keys() & variables.keys():
                internals.set_shares(variables[name], shares[name])
        origins.adopt(model, self.manifest.lineage, self.checkpoint.ref)

    def check_optimizers(self, optimizers: Optimizers) -> None:
        """Raise NotFaithful where these are not the optimizers that were kept beside the model's own."""
        kept = {path.removeprefix(f"{OTHERS}/") for path in self.value["optimizers"] if path.startswith(f"{OTHERS}/")}
        if kept != optimizers.keys():
            raise NotFaithful(
                "these are not the optimizers that were kept",
                found=", ".join(sorted(optimizers)) or "none",
                expected=", ".join(sorted(kept)) or "none",
                hint="give the same ones to save and restore: optimizers={'name': optimizer}",
            )

    def put_back_optimizers(self, model: keras.Model, optimizers: Optimizers) -> None:
        """Give optimizers that the model was not compiled with their state. Raises NotFaithful where they differ."""
        targets = self.value["optimizers"]
        for name, optimizer in optimizers.items():
            path = f"{OTHERS}/{name}"
            if not optimizer.built and targets[path] is not None:
                weights = inventory(internals.walk(model)).variables
                optimizer.build([weights[target] for target in targets[path]])
        found = inventory(nodes_of(model, optimizers))
        wanted = {name: v for name, v in found.variables.items() if name.startswith(f"optimizer/{OTHERS}/")}
        stored = {tensor.name: tensor for tensor in self.manifest.tensors if tensor.name in wanted}
        if wanted.keys() != stored.keys():
            missing = ", ".join(sorted(wanted.keys() - stored.keys())[:5])
            raise NotFaithful("the optimizer has other variables than were kept", found=f"also {missing}")
        views = self.blobs.map(list(stored.values())).views
        for name, variable in wanted.items():
            assign(variable, array(stored[name], views[name]))

    def compare(self, compiled: Any) -> Iterator[Finding]:
        """What ``compile`` was told otherwise than when the run began."""
        for name, was, now in _differences(self.value["compiled"], compiled):
            message = f"compile was told {was} when the run began, and is told {now}"
            if name.startswith("optimizer"):
                message += "; the optimizer's variables, the learning rate among them, are the checkpoint's"
            yield Finding("compile-changed", Severity.WARNING, message, name)

    @property
    def _stored(self) -> Stored:
        return Stored(self.manifest, self.blobs)


def _numerics(environment: Environment | None) -> dict[str, str]:
    """The releases of Keras and of its backend."""
    if environment is None:
        return {}
    names = ("keras", environment.backend)
    return {name: environment.packages[name] for name in names if name in environment.packages}


def _differences(was: Any, now: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str, str]]:
    """The innermost places where two configs differ, and their values there."""
    if isinstance(was, dict) and isinstance(now, dict):
        for name in sorted((was.keys() | now.keys()) - {"name"}):  # names may be automatic, and decide nothing
            yield from _differences(was.get(name), now.get(name), (*path, name))
    elif was != now:
        yield ".".join(part for part in path if part != "config"), json.dumps(was), json.dumps(now)
