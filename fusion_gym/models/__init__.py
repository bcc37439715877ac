"""Networks: the light student and the built-in teacher."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"  # of what comes with the package
