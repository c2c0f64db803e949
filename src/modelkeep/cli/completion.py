"""``modelkeep completion``: the script that makes a shell complete commands, options, models, versions and aliases."""

from __future__ import annotations

import os
import re

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)


@add_completion_class
class Bash(BashComplete):
    """Bash breaks words at ``:``, ``@`` and ``=``; refs have these inside.

    So the script hands over the line as typed, and each offer is cut back to what follows the last break.
    """

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' type value
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value"); [[ $value == *[:@=] ]] && compopt -o nospace ;;
        esac
    done < <(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_BREAKS="$COMP_WORDBREAKS" \
%(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def source(self) -> str:
        """The script; bash itself is not run to look at its version."""
        return self.source_template % self.source_vars()

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one at the cursor, and that one as far as it is typed."""
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)[1:]
        incomplete = words.pop() if words and not line[-1].isspace() else ""
        breaks = re.escape("".join(set(":@=") & set(os.environ.get("COMP_BREAKS", ""))))
        self._typed = len(re.match(f".*[{breaks}]|", incomplete, re.DOTALL)[0]) if breaks else 0  # type: ignore[index]
        return words, incomplete

    def format_completion(self, item: CompletionItem[str]) -> str:
        """``type,value`` as the script reads it."""
        return f"{item.type},{item.value[self._typed :]}"


@click.command(
    "completion",
    epilog="\b\nExample:\n  modelkeep completion bash >> ~/.bashrc",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def run(shell: str) -> None:
    """Print the script that makes a shell complete refs.

    Commands, options, models, versions and aliases are completed.

    \b
    bash: eval "$(modelkeep completion bash)" in ~/.bashrc
    zsh:  eval "$(modelkeep completion zsh)" in ~/.zshrc
    fish: modelkeep completion fish | source in ~/.config/fish/config.fish
    """
    from modelkeep.cli.main import COMPLETING, modelkeep

    script = get_completion_class(shell)(modelkeep, {}, "modelkeep", COMPLETING)  # type: ignore[misc]
    click.echo(script.source())
