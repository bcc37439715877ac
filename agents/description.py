"""What the zip of a trained agent says about itself, in an entry of its own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fusion_gym.cli import UserError

from .schema import Settings

SIDECAR = "fusion_gym.json"


@dataclass(frozen=True, kw_only=True)
class Description(Settings):
    """How to build an agent's policy again, and what it was trained in.

    Attributes:
        algo: Its algorithm.
        policy: Name of its policy's class.
        policy_kwargs: Arguments of that class.
        actions: Components that it sets.
        features: Features that it observes.
        fixed: Physical values of the other components.
        hidden: Features that always read 0.
        decisions: Length of an episode.
        env: Id of the environment.
        env_kwargs: Its arguments.
        seed: Seed of the training.
        version: The package's.
        run: The training's configuration, as far as a training that goes on must have it too.
    """

    algo: str
    policy: str
    policy_kwargs: Mapping[str, Any]
    actions: tuple[str, ...]
    features: tuple[str, ...]
    fixed: Mapping[str, float] = dataclasses.field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    decisions: int | None = None
    env: str | None = None
    env_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int | None = None
    version: str | None = None
    run: Mapping[str, Any] | None = None

    @classmethod
    def parse(cls, text: bytes, where: str) -> Description:
        """Reads the entry; what later versions add to it is left out.

        Args:
            text: JSON, UTF-8.
            where: The file, for messages.

        Raises:
            UserError: If it is no JSON, or a value is missing or of a wrong type.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where} is damaged: its {SIDECAR} is not JSON.") from error
        if not isinstance(content, dict):
            raise UserError(f"{where} is damaged: its {SIDECAR} is not a mapping.")
        fields = {field.name: field for field in dataclasses.fields(cls)}
        facts = cls.check({name: value for name, value in content.items() if name in fields}, f"{where}, {SIDECAR}")
        for name, field in fields.items():
            if name not in facts and field.default is field.default_factory is dataclasses.MISSING:
                raise UserError(f"{where} is damaged: its {SIDECAR} lacks {name!r}.")
        return cls(**facts)
