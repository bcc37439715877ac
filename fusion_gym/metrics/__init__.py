"""Metrics of fused images: pure batched tensor functions, one definition each.

`Sources` keeps what depends on the sources alone; `evaluate` and `evaluate_per_source` score fused images against
them; `METRICS` says what there is.
"""

from fusion_gym.metrics.batch import Sources
from fusion_gym.metrics.table import CONVENTIONS, METRICS, Metric, evaluate, evaluate_per_source

__all__ = ["CONVENTIONS", "METRICS", "Metric", "Sources", "evaluate", "evaluate_per_source"]
