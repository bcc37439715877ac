"""The sheet of blind pairs: which answers count, and what agrees."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
blind = pytest.importorskip("blind_pairs", reason="benchmarks/ is absent")


def rows(scene, first, second):
    """A scene's two rows: "few" invents less and is A, then B."""
    key = {"scene": scene, "invented A": "0.0", "invented B": "0.01"}
    there = {"row": str(first), **key, "A": "few", "B": "much"}
    return [there, {"row": str(second), **key, "A": "much", "B": "few", "invented A": "0.01", "invented B": "0.0"}]


def test_only_what_was_chosen_in_both_orders_counts():
    key = [*rows("yes", 0, 4), *rows("no", 1, 5), *rows("side", 2, 6), *rows("equal", 3, 7)]
    answers = dict(enumerate(["A", "B", "A", "=", "B", "A", "A", "B"]))
    agrees = {line["scene"]: line["agrees"] for line in blind.judge(key, answers)}
    assert agrees == {"yes": "yes", "no": "no", "side": "–", "equal": "–"}
