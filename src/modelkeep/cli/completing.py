"""What the shell offers while a ref is being typed: read from the store's listing, silent whatever goes wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from modelkeep.keep import Keep

Offer = Callable[["Keep", click.Context, str], Iterable[str]]
ShellComplete = Callable[[click.Context, click.Parameter, str], list[str]]


def _silent(offer: Offer) -> ShellComplete:
    @functools.wraps(offer)
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        import modelkeep

        try:
            keep = modelkeep.open(ctx.params.get("store"))
            return [text for text in offer(keep, ctx, incomplete) if text.startswith(incomplete)]
        except Exception:  # noqa: BLE001 - a message in the middle of somebody's command line helps nobody
            return []

    return complete


@_silent
def models(keep: Keep, ctx: click.Context, incomplete: str) -> Iterable[str]:
    """Names of models."""
    return (model.name for model in keep.models())


@_silent
def refs(keep: Keep, ctx: click.Context, incomplete: str) -> Iterable[str]:
    """Models; behind a whole name also its versions and aliases; runs and their checkpoints."""
    models = keep.models()
    yield from (model.name for model in models)
    name = incomplete.replace("@", ":").partition(":")[0]
    for model in models:
        if model.name == name:
            yield from (version.ref for version in reversed(keep.versions(name)))
            yield from (f"{name}@{alias}" for alias in model.aliases or ())
    yield from _checkpoints(keep, incomplete)


@_silent
def runs(keep: Keep, ctx: click.Context, incomplete: str) -> Iterable[str]:
    """Names of training runs."""
    return (run.name for run in keep.runs())


@_silent
def checkpoints(keep: Keep, ctx: click.Context, incomplete: str) -> Iterable[str]:
    """Training runs; behind a whole name and ``@`` also its checkpoints, newest first."""
    return _checkpoints(keep, incomplete)


@_silent
def aliased(keep: Keep, ctx: click.Context, incomplete: str) -> Iterable[str]:
    """``model@alias`` for every alias of the model typed so far, or of every model."""
    return (f"{model.name}@{alias}" for model in keep.models() for alias in model.aliases or ())


@_silent
def aliases(keep: Keep, ctx: click.Context, incomplete: str) -> Iterable[str]:
    """Aliases that the model of the ref already typed has, and the usual ones."""
    name = ctx.params["ref"].replace("@", ":").partition(":")[0]
    return dict.fromkeys((*_aliases(keep, name), "production", "staging"))


@_silent
def shares(keep: Keep, ctx: click.Context, incomplete: str) -> Iterable[str]:
    """``version=`` for every version of the model whose alias is split."""
    name = ctx.params["alias"].partition("@")[0]
    return (f"{version.version}=" for version in reversed(keep.versions(name)))


def _aliases(keep: Keep, name: str) -> Iterable[str]:
    return next((model.aliases or () for model in keep.models() if model.name == name), ())


def _checkpoints(keep: Keep, incomplete: str) -> Iterator[str]:
    for run in keep.runs():
        yield run.name
        if incomplete.startswith(f"{run.name}@"):
            yield from (f"{run.name}@best", f"{run.name}@last")
            yield from (checkpoint.ref for checkpoint in reversed(run.checkpoints))
