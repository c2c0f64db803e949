"""Models of one architecture averaged, weight by weight: uniformly, weighted, over a training, or as a greedy soup.

Every tensor is read where it lies mapped, in pieces, and summed in float64 (complex128), so no more than the average
itself is held in memory. Numbers that are no measure of anything, such as counts and seeds, are not averaged but taken
from the first model; so is what an RNN was left in. An optimizer's slots belong to one training and are left behind.

The greedy soup is that of Wortsman et al., Model soups (https://arxiv.org/abs/2203.05482), recipe 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

import keras
import numpy as np

from modelkeep.diff import architecture
from modelkeep.errors import CannotLoad, NotFaithful, UsageError
from modelkeep.live import origins
from modelkeep.live.capture import CONFIG
from modelkeep.live.ingredients import Ingredient, surroundings
from modelkeep.live.recalibration import measured, recalibrate
from modelkeep.live.tensors import Array, array, numpy_dtype
from modelkeep.manifest import Tensor
from modelkeep.pipeline import Pipeline
from modelkeep.report import Finding, Report, Severity, several
from modelkeep.storage.syscalls import private_memory

if TYPE_CHECKING:
    from modelkeep.version import Version

Metric: TypeAlias = Callable[[keras.Model], float]
"""How good a model is; more is better."""

_CHUNK = 2**16  # numbers summed at once, so few that they stay in the cache
_OF_BEGINNINGS = re.compile(r"\.(?:seed|\w+_initializer)\b")  # in a config: nothing that a trained network computes by
_QUANTIZED = re.compile(rb'"class_name": ?"\w*(?:Quantized|Int\d|GPTQ|AWQ)\w*DTypePolicy"')


@dataclass(frozen=True)
class Averaged:
    """A new model, and how it came to be.

    ``parents`` are those it is an average of, by the names that its lineage tells; ``weights`` add up to 1. Assets,
    pipeline and golden inputs are the first version's that has any. ``version`` is the one that was published, if any.
    """

    model: keras.Model
    report: Report
    parents: tuple[str, ...]
    weights: tuple[float, ...]
    assets: Mapping[str, Any] = field(default_factory=dict)
    pipeline: Pipeline | None = None
    golden: Any = None
    version: Version | None = None


def average(
    ingredients: Sequence[Ingredient],
    weights: Sequence[float] | None = None,
    *,
    ema: float | None = None,
    soup: Metric | None = None,
    batches: Iterable[Any] | None = None,
    trust: Sequence[str] = (),
) -> Averaged:
    """The average of the models: compiled as the first one was, with an optimizer that has not begun.

    ``weights`` are shares, one a model, of which only the proportions count. ``ema`` is the decay (0 to 1) of an
    exponential moving average over the models in their order, the last being the latest: each moves the average by
    ``1 - ema``. ``soup`` is a metric, more being better: by it the models are tried from the best down, each into the
    average so far, and stay in it where it gets no worse. Without any of these all count alike. ``batches``
    of data are what the statistics of BatchNormalization layers are computed from anew, for every average.

    Raises NotFaithful, with a finding for each tensor, where names, shapes or dtypes differ; UsageError for
    quantized models, and weights that are none; CannotLoad where no model has kept its architecture.
    """
    shares = _shares(len(ingredients), weights, ema, soup)
    base = next((each for each in ingredients if each.manifest.kind == "whole"), None)
    if base is None:
        raise CannotLoad("none of these has kept its architecture", hint="average with one that has, at a weight of 0")
    _refuse_quantized(base)
    _refuse_others(ingredients)
    if hasattr(batches, "shape"):
        raise UsageError("recalibrate is one array where batches are expected", hint="write recalibrate=[x]")
    mixer = _Mixer(base, batches)
    chosen = dict(zip(range(len(ingredients)), shares, strict=True))
    decisions: tuple[Finding, ...] = ()
    if soup is not None:
        names, decisions = _greedy(mixer, ingredients, soup)
        chosen = dict.fromkeys(names, 1.0)
    used = [(ingredients[index], share) for index, share in chosen.items() if share > 0]
    model = mixer.mix(used)
    parents = tuple(each.name for each, _ in used)
    origins.note(model, origins.Average(parents))
    total = math.fsum(share for _, share in used)
    given = surroundings([each for each, _ in used], trust)
    findings = (*_summary(mixer, used), *decisions, *_doubts(mixer, used, model), *given.findings)
    return Averaged(
        model,
        Report(f"average of {several([each.label for each, _ in used])}", findings, NotFaithful),
        parents,
        tuple(share / total for _, share in used),
        assets=given.assets,
        pipeline=given.pipeline,
        golden=given.golden,
    )


# --- who counts how much


def _shares(count: int, weights: Sequence[float] | None, ema: float | None, soup: Metric | None) -> list[float]:
    if count < 2:
        raise UsageError("an average is of two models or more", found=count)
    if [weights is not None, ema is not None, soup is not None].count(True) > 1:
        raise UsageError("weights, ema and soup each say how much a model counts", hint="give one of them")
    if ema is not None:
        if not 0 <= ema < 1:
            raise UsageError("ema is the share of the average that stays at each model", found=ema, expected="0 to 1")
        return [ema ** (count - 1), *((1 - ema) * ema ** (count - 1 - index) for index in range(1, count))]
    if weights is None:
        return [1.0] * count
    shares = [float(weight) for weight in weights]
    if len(shares) != count or not all(math.isfinite(each) and each >= 0 for each in shares) or not sum(shares):
        raise UsageError(f"{count} models need as many weights", found=shares, expected="numbers from 0 on, not all 0")
    return shares


def _greedy(mixer: _Mixer, ingredients: Sequence[Ingredient], metric: Metric) -> tuple[list[int], tuple[Finding, ...]]:
    """Which stay in the soup, best first, and every decision with its scores."""
    alone = [_score(metric, mixer.mix([(each, 1.0)]), each.label) for each in ingredients]
    order = sorted(range(len(ingredients)), key=lambda index: alone[index], reverse=True)
    kept, best = order[:1], alone[order[0]]
    findings = [_decision(ingredients[order[0]], alone[order[0]], best, best, stays=True)]
    for index in order[1:]:
        together = [(ingredients[each], 1.0) for each in (*kept, index)]
        score = _score(metric, mixer.mix(together), f"the average with {ingredients[index].label}")
        stays = score >= best
        findings.append(_decision(ingredients[index], alone[index], score, best, stays=stays))
        if stays:
            kept, best = [*kept, index], score
    return kept, tuple(findings)


def _score(metric: Metric, model: keras.Model, name: str) -> float:
    """NaN, as of a model that diverged, is the worst there is."""
    score: Any = metric(model)
    try:
        number = float(score)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the metric gave no number for {name}", found=repr(score)[:200]) from error
    return -math.inf if math.isnan(number) else number


def _decision(one: Ingredient, alone: float, score: float, best: float, *, stays: bool) -> Finding:
    severity, outcome = (Severity.OK, "stays") if stays else (Severity.NOTE, "left out")
    text = f"scores {alone:.6g} alone, the average with it {score:.6g} (so far {best:.6g}): {outcome}"
    return Finding(
        "soup", severity, text, one.label, {"alone": alone, "average": score, "before": best, "stays": stays}
    )


# --- what can be averaged


def _refuse_quantized(base: Ingredient) -> None:
    if _QUANTIZED.search(base.stored.part(CONFIG)):
        raise UsageError(
            f"{base.label} is quantized: its numbers mean nothing without their scales, so they have no average",
            hint="average the models before they are quantized",
        )


def _refuse_others(ingredients: Sequence[Ingredient]) -> None:
    """Raise NotFaithful with every tensor that is not the same in name, shape and dtype everywhere."""
    first, findings = ingredients[0], []
    for other in ingredients[1:]:
        for name in dict.fromkeys((*first.weights, *other.weights)):
            forms = _form(first.weights.get(name)), _form(other.weights.get(name))
            if forms[0] != forms[1]:
                tensor = first.weights.get(name) or other.weights[name]
                text = f"{forms[0]} in {first.label}, {forms[1]} in {other.label}"
                findings.append(Finding("average", Severity.FAILURE, text, tensor.variable or name))
    Report("models of different weights have no average", tuple(findings), NotFaithful).raise_for_failures()


def _form(tensor: Tensor | None) -> str:
    return "none" if tensor is None else f"{tensor.dtype}{list(tensor.shape)}"


# --- the average itself

_Used: TypeAlias = Sequence[tuple[Ingredient, float]]


@dataclass(frozen=True)
class _Mixer:
    """Makes models of averages: each a new one, since a metric may do with a model what it likes."""

    base: Ingredient
    batches: Iterable[Any] | None

    def mix(self, used: _Used) -> keras.Model:
        maps = {id(each): each.views() for each in (self.base, *(each for each, _ in used))}
        views = dict(maps[id(self.base)])  # states, and integers among the weights
        for name in filter(self.is_averaged, self.base.weights):
            lying = [maps[id(each)][name] for each, _ in used]
            alike = len({each.tensors[name].digest for each, _ in used}) == 1
            tensor = self.base.weights[name]
            views[name] = (
                lying[0] if alike else _mean([array(tensor, view) for view in lying], [share for _, share in used])
            )
        model = self.base.network(views)
        if self.batches is not None and len(used) > 1:
            recalibrate(model, self.batches)
        return model

    def is_averaged(self, name: str) -> bool:
        # The kinds that NumPy knows from ml_dtypes are V.
        return numpy_dtype(self.base.weights[name].dtype).kind in "fcV"


def _mean(arrays: Sequence[Array], shares: Sequence[float]) -> memoryview:
    """The weighted mean as bytes in memory of its own, in the dtype of the arrays."""
    memory = private_memory(arrays[0].nbytes)
    mean = np.frombuffer(memory, arrays[0].dtype)
    wide: Any = np.complex128 if arrays[0].dtype.kind == "c" else np.float64
    total = math.fsum(shares)
    flat = [each.reshape(-1) for each in arrays]
    with np.errstate(invalid="ignore"):  # of a model that diverged: NaN, which no save lets pass
        for start in range(0, mean.size, _CHUNK):
            piece = slice(start, start + _CHUNK)
            summed = np.zeros(mean[piece].shape, wide)
            for share, each in zip(shares, flat, strict=True):
                summed += share * each[piece].astype(wide)
            mean[piece] = (summed / total).astype(mean.dtype)
    return memory


# --- what is said of it


def _summary(mixer: _Mixer, used: _Used) -> Iterator[Finding]:
    """How much each model counts, and what of them was averaged."""
    total = math.fsum(share for _, share in used)
    for each, share in used:
        yield Finding("average", Severity.OK, f"counts {share / total:.4g}", each.label, {"weight": share / total})
    differing = [name for name in mixer.base.weights if len({each.tensors[name].digest for each, _ in used}) > 1]
    averaged = [mixer.base.weights[name] for name in differing if mixer.is_averaged(name)]
    parameters = sum(prod(tensor.shape) for tensor in averaged)
    counts = {"averaged": len(averaged), "equal": len(mixer.base.weights) - len(differing), "parameters": parameters}
    text = f"{counts['averaged']} tensors ({parameters:,} parameters) averaged, {counts['equal']} the same in all"
    yield Finding("average", Severity.OK, text, details=counts)


def _doubts(mixer: _Mixer, used: _Used, model: keras.Model) -> Iterator[Finding]:
    """What is not the mean of all, or means less than it seems."""
    base = mixer.base
    taken = [name for name, tensor in base.tensors.items() if _is_taken(mixer, used, name, tensor)]
    if taken:
        names = several([base.tensors[name].variable or name for name in taken])
        text = f"whole numbers and states that differ are those of {base.label}: {names}"
        yield Finding("average-taken", Severity.NOTE, text, details={"tensors": taken})
    if getattr(model, "compiled", False):
        yield Finding("average-optimizer", Severity.NOTE, "compiled anew: an optimizer's slots have no average")
    layers = measured(model)
    if layers and mixer.batches is None and len(used) > 1:
        text = f"the moving statistics of {len(layers)} BatchNormalization layers are averages, too, which is not what "
        text += "the averaged network would measure; give recalibrate=batches of training data"
        yield Finding("average-statistics", Severity.WARNING, text, several([layer.name for layer in layers]))
    for each, _ in used:
        yield from _otherwise(base, each)


def _is_taken(mixer: _Mixer, used: _Used, name: str, tensor: Tensor) -> bool:
    if name in mixer.base.weights and mixer.is_averaged(name):
        return False
    others = (each.tensors.get(name) for each, _ in used)
    return any(other is not None and other.digest != tensor.digest for other in others)


def _otherwise(base: Ingredient, other: Ingredient) -> Iterator[Finding]:
    """In what the network of ``other`` is another one, though its weights have the same shapes."""
    if other is base or other.manifest.kind != "whole":
        return
    section = architecture.compare(base.config(), other.config()).section
    changes = [f"{change.subject}: {change}" for change in section if not _OF_BEGINNINGS.search(change.subject)]
    if base.layer_assets != other.layer_assets:
        changes.append("files of its layers, such as vocabularies")
    if changes:
        text = f"has another architecture than {base.label}, which the average has: {several(changes)}"
        yield Finding("average-architecture", Severity.WARNING, text, other.label)
