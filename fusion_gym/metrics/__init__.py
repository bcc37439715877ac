"""Metrics of fused images: pure batched tensor functions, one definition each.

`Sources` keeps what depends on the sources alone; `evaluate` and `evaluate_per_source` score fused images against
them; `METRICS` says what there is, `invented_structure` is the one that people see first.
``python -m fusion_gym.metrics`` scores folders of images.
"""

from fusion_gym.metrics.batch import Sources
from fusion_gym.metrics.evaluation import (
    CONVENTIONS,
    amplified_excess,
    available,
    evaluate,
    evaluate_per_source,
    invented_excess,
    invented_structure,
)
from fusion_gym.metrics.table import METRICS, Metric
from fusion_gym.reported import AMPLIFIED, ARTEFACTS, INVENTED, REPORTED

__all__ = [
    "AMPLIFIED",
    "ARTEFACTS",
    "CONVENTIONS",
    "INVENTED",
    "METRICS",
    "REPORTED",
    "Metric",
    "Sources",
    "amplified_excess",
    "available",
    "evaluate",
    "evaluate_per_source",
    "invented_excess",
    "invented_structure",
]
