"""The ``modelkeep`` command: its sub-commands, each imported when it is run, and the way in."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

import click

from modelkeep import __version__
from modelkeep.cli import failures

SECTIONS = {
    "Put in and take out": ("add", "export"),
    "Train": ("checkpoints", "watch", "publish", "average", "transfer"),
    "Any model file": ("scan", "inspect", "convert"),
    "Ask": ("list", "versions", "show", "history", "search", "diff", "verify"),
    "Vouch": ("sign", "policy", "sbom"),
    "Move names": ("promote", "split", "rollback", "unalias"),
    "Mark and remove": ("annotate", "yank", "delete"),
    "Look after": ("gc", "fsck", "completion"),
}
COMPLETING = "_MODELKEEP_COMPLETE"  # set by the script of `modelkeep completion`
COMMANDS = tuple(name for names in SECTIONS.values() for name in names)


def load(name: str) -> click.Command:
    """Import ``run`` of ``modelkeep.cli.<name>``."""
    command: click.Command = import_module(f"modelkeep.cli.{name}").run
    return command


class Commands(click.Group):
    """The sub-commands by section, each imported only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order of the help text."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One command, or None."""
        return load(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands under the headings of ``SECTIONS``."""
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, load(name).get_short_help_str(70)) for name in names])


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\n" + failures.EXIT_CODES + "\n\n\b\nExample:\n  modelkeep add sentiment.keras sentiment",
)
@click.version_option(__version__, prog_name="modelkeep", message="%(prog)s %(version)s")
def modelkeep() -> None:
    """Keep every trained Keras model: saved whole, checked, versioned, and ready to run anywhere.

    REF names one version: sentiment (the newest), sentiment:1 (the newest 1.x.y), sentiment:1.2.0,
    sentiment@production (an alias), sentiment@blake3:9f2c41d0 (a digest); or a checkpoint of a
    training run: sentiment-run@1200, sentiment-run@best.

    Every command but completion takes --json, and those about versions take --store (default
    $MODELKEEP_STORE, else ./models).
    """


def main(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code, whatever happens."""
    arguments = list(sys.argv[1:] if args is None else args)
    in_json = failures.wants_json(arguments)
    _calm_surroundings(in_json=in_json)
    try:
        if COMPLETING in os.environ:
            import_module("modelkeep.cli.completion")
            modelkeep.main(prog_name="modelkeep")
        # Not click's own main(): it would turn a closed pipe into exit code 1.
        with modelkeep.make_context("modelkeep", arguments or ["--help"]) as context:
            code: int | None = modelkeep.invoke(context)
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - whatever it is, the user gets words and an exit code
        return failures.report(error, in_json=in_json)
    return code or 0


def _calm_surroundings(*, in_json: bool) -> None:
    """Keep other libraries' chatter off the screen, and no encoding of a terminal from being able to fail us."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.showwarning = lambda message, *_, **__: failures.warn(str(message), in_json=in_json)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
