"""Draw the README's picture from a real run: ``python demo/picture.py docs/images/demo.svg``."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

COLUMNS = 120
# Fonts from elsewhere are blocked where pictures are shown, and a monospaced one is at hand everywhere.
FOREIGN_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def main(target: Path) -> None:
    """Run the demo in a new folder, so that the picture begins where every reader begins."""
    target = target.resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["MODELKEEP_STORE"] = "models"
        from rich.console import Console

        import demo

        demo.COMMAND = ".venv/bin/modelkeep"
        demo.console = Console(record=True, width=COLUMNS, force_terminal=True, highlight=False)
        demo.console.print("$ make demo")
        demo.main()
        svg = demo.console.export_svg(title="make demo", unique_id="demo")
        os.chdir(target.parent)
    target.write_text(FOREIGN_FONT.sub("", svg), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
