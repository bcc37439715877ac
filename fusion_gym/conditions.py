"""Deployment conditions: what a student will meet where it is used, and so what its score is made of.

Nothing here needs torch.
"""

from __future__ import annotations

CLEAN = "clean"
HARDENINGS = ("blur", "noise", "illumination", "contrast")  # that samples are hardened by, and that a probe has
CONDITIONS = (CLEAN, *HARDENINGS)


def _mostly(damage: str) -> dict[str, float]:
    return {**dict.fromkeys(CONDITIONS, 0.0), CLEAN: 0.4, damage: 0.6}


# Share of each condition by deployment: weights of the score, which sum to 1.
DEPLOYMENTS: dict[str, dict[str, float]] = {
    "mixed": {CLEAN: 0.5, **dict.fromkeys(HARDENINGS, 0.125)},
    "fair": {CLEAN: 1.0, **dict.fromkeys(HARDENINGS, 0.0)},
    **{damage: _mostly(damage) for damage in HARDENINGS},
}
