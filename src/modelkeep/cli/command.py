"""What every command has in common: ``--store``, ``--json``, a help text that ends with a line to paste, an answer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from modelkeep.cli import completing
from modelkeep.cli.answer import Answer

if TYPE_CHECKING:
    from modelkeep.keep import Keep

P = ParamSpec("P")
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Command(click.Command):
    """A command that tells what its ``--json`` prints: ``shape``, or a list of it."""

    def __init__(self, name: str, *, example: str, shape: str, of_store: bool, **settings: Any) -> None:
        super().__init__(name, **settings, epilog=f"\b\nExample:\n  {example}")
        self.params += [_store(), _json()] if of_store else [_json()]
        self.example = example
        self.shape = shape


def command(name: str, *, example: str, shape: str) -> Callable[[Callable[Concatenate[Keep, P], Answer]], Command]:
    """Make a function of an opened Keep a command.

    ``example`` is the line to paste. ``shape`` names the class of :mod:`modelkeep.cli.shapes` that
    describes the JSON, with ``[]`` behind it for a list.
    """

    def decorate(function: Callable[Concatenate[Keep, P], Answer]) -> Command:
        @functools.wraps(function)
        def run(store: str | None, in_json: bool, *args: P.args, **kwargs: P.kwargs) -> int:
            import modelkeep
            from modelkeep.cli import hush, progress

            with hush.hushed(), progress.Bars() as bars:
                answer = function(modelkeep.open(store, progress=bars), *args, **kwargs)
            return _shown(answer, in_json=in_json)

        return click.command(name, cls=Command, example=example, shape=shape, of_store=True)(run)

    return decorate


def file_command(name: str, *, example: str, shape: str) -> Callable[[Callable[P, Answer]], Command]:
    """Make a function of files a command: it needs no store, and takes none. The rest as in :func:`command`."""

    def decorate(function: Callable[P, Answer]) -> Command:
        @functools.wraps(function)
        def run(in_json: bool, *args: P.args, **kwargs: P.kwargs) -> int:
            from modelkeep.cli import hush

            with hush.hushed():
                answer = function(*args, **kwargs)
            return _shown(answer, in_json=in_json)

        return click.command(name, cls=Command, example=example, shape=shape, of_store=False)(run)

    return decorate


def _shown(answer: Answer, *, in_json: bool) -> int:
    from modelkeep.cli import screen

    screen.show(answer, in_json=in_json)
    return answer.exit_code


def _store() -> click.Option:
    return click.Option(
        ["--store"],
        metavar="STORE",
        type=click.Path(file_okay=False),
        help="Folder or URL of the store.  [default: $MODELKEEP_STORE, else ./models]",
    )


def _json() -> click.Option:
    return click.Option(
        ["--json", "in_json"], is_flag=True, help="Print JSON: the answer on stdout, an error on stderr."
    )


ref_argument = click.argument("ref", shell_complete=completing.refs)
alias_argument = click.argument("alias", metavar="MODEL@ALIAS", shell_complete=completing.aliased)
reason_option = click.option("--reason", metavar="TEXT", help="Why: kept in the ledger.")
gates_option = click.option(
    "--gate",
    "gates",
    multiple=True,
    metavar="CONDITION",
    help="Refuse unless this holds, such as 'accuracy >= 0.85'. May be given again.",
)
trust_option = click.option(
    "--trust",
    multiple=True,
    metavar="PACKAGE",
    help="Import custom objects from this package, as the version names them. May be given again.",
)
allow_option = click.option(
    "--allow",
    multiple=True,
    metavar="RULE",
    help="Let the file break this rule of the scan; it is recorded. May be given again.",
)
skip_option = click.option(
    "--skip",
    multiple=True,
    metavar="TENSOR",
    help="Let this tensor or weight stay without a partner. May be given again.",
)
golden_option = click.option(
    "--golden",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Example inputs: .npy, .npz (by input name), or .json (raw input).",
)
form_option = click.option(
    "--format", "form", metavar="FORM", help="The form to write, where the name does not tell: saved_model, onnx, …"
)
of_option = click.option("--of", metavar="FORM", help="The form within an archive.  [default: keras]")
_custom_objects = click.option(
    "--custom-objects",
    "places",
    multiple=True,
    metavar="MODULE:NAME",
    help="A custom layer, loss, … or a list or dict of them, imported from your code. May be given again.",
)


def custom_objects_option(function: Decorated) -> Decorated:
    """``--custom-objects MODULE:NAME``, handed on as ``custom_objects={name: object}``."""

    @functools.wraps(function)
    def run(*args: Any, places: Sequence[str], **kwargs: Any) -> Any:
        return function(*args, custom_objects=_imported(places) if places else None, **kwargs)

    return _custom_objects(run)  # type: ignore[return-value]


_limits = click.option(
    "--limit",
    "raised",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a limit of what the file may ask for, such as memory=2GiB or seconds=60. May be given again.",
)


def limits_option(function: Decorated) -> Decorated:
    """``--limit NAME=VALUE``, handed on as ``limits=Limits(…)``."""

    @functools.wraps(function)
    def run(*args: Any, raised: Sequence[str], **kwargs: Any) -> Any:
        from modelkeep.formats.limits import Limits

        return function(*args, limits=Limits(**dict(map(_limit, raised))), **kwargs)

    return _limits(run)  # type: ignore[return-value]


def _limit(text: str) -> tuple[str, int]:
    from modelkeep.formats.limits import GIB, KIB, LIMITS, MIB

    name, value = _split(text, "VALUE")
    if name not in LIMITS:
        raise click.BadParameter(f"{name!r} is no limit; there are {', '.join(LIMITS)}", param_hint="--limit")
    for unit, size in (("KiB", KIB), ("MiB", MIB), ("GiB", GIB), ("", 1)):
        number = value.removesuffix(unit)
        if value.endswith(unit) and number.isdecimal():
            return name, int(number) * size
    raise click.BadParameter(f"{text!r}: the value is a number, or one with KiB, MiB or GiB", param_hint="--limit")


def _imported(places: Sequence[str]) -> dict[str, Any]:
    import importlib
    import sys

    # As with python -m: what lies in the current folder is the user's own code.
    sys.path.insert(0, str(Path.cwd()))
    found: dict[str, Any] = {}
    for place in places:
        module, colon, name = place.partition(":")
        if not (module and colon and name):
            raise click.BadParameter(
                f"{place!r} is not MODULE:NAME, such as mylayers:Scale", param_hint="--custom-objects"
            )
        try:
            value = functools.reduce(getattr, name.split("."), importlib.import_module(module))
        except (ImportError, AttributeError) as error:
            raise click.BadParameter(f"{place!r}: {error}", param_hint="--custom-objects") from error
        found.update(_by_name(value))
    return found


def _by_name(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    if isinstance(value, list | tuple | set):
        return {each.__name__: each for each in value}
    return {value.__name__: value}


def pair(text: str) -> tuple[str, Any]:
    """``NAME=VALUE``, split; the value is JSON where it reads as JSON, else text."""
    import json

    name, value = _split(text, "VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def pair_of_text(text: str) -> tuple[str, str]:
    """``NAME=TEXT``, split."""
    return _split(text, "TEXT")


def named_file(text: str) -> tuple[str, Path]:
    """``NAME=FILE``, split; the file is there."""
    name, file = _split(text, "FILE")
    if not Path(file).is_file():
        raise click.BadParameter(f"there is no file {file!r}")
    return name, Path(file)


def _split(text: str, value: str) -> tuple[str, str]:
    name, equals, rest = text.partition("=")
    if not (name and equals):
        raise click.BadParameter(f"{text!r} is not NAME={value}")
    return name, rest
