"""``python -m modelkeep`` is the ``modelkeep`` command."""

import sys

from modelkeep.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
