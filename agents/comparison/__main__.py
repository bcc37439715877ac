"""``python -m agents.comparison``; see `agents.comparison.command`."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
