"""FusionGym: the distillation of an infrared-visible fusion network as a Gymnasium environment.

Importing this package registers ``FusionDistill-v0`` and ``FusionDistillFast-v0``; it does not import torch.
"""

from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register, registry

from fusion_gym.info import Info, Instance
from fusion_gym.sample_pairs import samples
from fusion_gym.version import __version__

if TYPE_CHECKING:
    from fusion_gym.fuser import load_student

__all__ = ["Info", "Instance", "__version__", "load_student", "samples"]

_ENVIRONMENTS: dict[str, dict[str, object]] = {
    "FusionDistill-v0": {},
    "FusionDistillFast-v0": {
        "data": "synthetic-small",
        "episode_steps": 8,
        "updates_per_step": 4,
        "batch_size": 4,
        "patch_size": 32,
        "student": None,
        "student_width": 8,
        "start": "new",
        "learning_rate": 1e-2,
        "self_loss": "simple",
        "probe_pairs": 2,
        "probe_size": 64,
    },
}

for _id, _kwargs in _ENVIRONMENTS.items():
    if _id not in registry:
        register(
            id=_id,
            entry_point="fusion_gym.env:FusionDistillEnv",
            vector_entry_point="fusion_gym.population:FusionDistillVectorEnv",
            kwargs=_kwargs,
        )


def __getattr__(name: str) -> Any:
    if name == "load_student":  # loaded on first use, for it imports torch
        from fusion_gym.fuser import load_student

        return load_student
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
