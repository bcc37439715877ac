"""Types of what an environment says of itself: a step's info, and what a reset has drawn.

For type checkers: Gymnasium's own signature gives ``dict[str, Any]``, so say ``cast(fusion_gym.Info, info)``.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np

Info = TypedDict(
    "Info",
    {
        "score": np.float64,
        "score_clean": np.float64,
        "score_blur": np.float64,
        "score_noise": np.float64,
        "score_illumination": np.float64,
        "score_contrast": np.float64,
        "score_hardened": np.float64,
        "gain": np.float64,
        "is_success": np.bool_,
        "diverged": np.float64,
        "student/updates": np.float64,
        "student/loss_guide": np.float64,
        "student/loss_self": np.float64,
        "fusion/EN": np.float64,
        "fusion/SD": np.float64,
        "fusion/SF": np.float64,
        "fusion/AG": np.float64,
        "fusion/MI": np.float64,
        "fusion/SCD": np.float64,
        "fusion/VIF": np.float64,
        "fusion/Qabf": np.float64,
        "fusion/SSIM": np.float64,
        "fusion/invented": np.float64,
        "fusion/amplified": np.float64,
        "ratio/EN": np.float64,
        "ratio/SD": np.float64,
        "ratio/SF": np.float64,
        "ratio/AG": np.float64,
        "ratio/MI": np.float64,
        "ratio/SCD": np.float64,
        "ratio/VIF": np.float64,
        "ratio/Qabf": np.float64,
        "ratio/SSIM": np.float64,
        "gap/intensity": np.float64,
        "gap/gradient": np.float64,
        "gap/structure": np.float64,
        "action/guidance": np.float64,
        "action/blur": np.float64,
        "action/noise": np.float64,
        "action/illumination": np.float64,
        "action/contrast": np.float64,
        "action/clean": np.float64,
        "action/rate": np.float64,
    },
)
"""What `reset` and `step` report; what each key means stands in ``docs/environment.md``."""


class Instance(TypedDict):
    """What a reset has drawn, ``env.unwrapped.instance``; the names are those of the environment's arguments.

    ``seed`` is that of the student's weights, the order of its batches and the subset of patches.
    """

    data: str
    teacher: str
    student_width: int
    start: str
    learning_rate: float
    deployment: str
    seed: int
