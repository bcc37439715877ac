"""FusionDistill-v0: the distillation of a light fusion network as a Markov decision process."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from fusion_gym.actions import ACTIONS, decode
from fusion_gym.distiller import SELF_LOSSES, Distiller, Stats
from fusion_gym.memory import keep_freed_memory
from fusion_gym.models.student import STUDENTS, Student, grown, read_start
from fusion_gym.observations import OBSERVATIONS
from fusion_gym.probe import Reading
from fusion_gym.task import Task, load_task

MOST_THREADS, MOST_IMAGES = 256, 4096  # of a process; of a batch and of the probe
NEW, TRAINED = "new", "trained"
POINTS = 100.0  # rewards are in hundredths of the score, so that learners with their usual settings see them
DIVERGENCE_PENALTY = 1.0  # of the score
PATCH, WIDE_PATCH = 64, 128  # pixels; the wide ones are for students that see further than their own cells


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("    | " + " | ".join(row) + " |" for row in rows)


def _choices(name: str, value: Any, kind: type) -> tuple[Any, ...]:
    """A scalar or a sequence of equally likely values, as a tuple."""
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not values or not all(isinstance(v, kind) and not isinstance(v, bool) for v in values):
        raise ValueError(f"{name}={value!r} is not allowed; give one {kind.__name__} or a list of them.")
    return values


def _positive(name: str, value: Any, least: int, most: int | None = None) -> int:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        raise ValueError(
            f"{name}={value!r} is not allowed; give a whole number from {least} {f'to {most}' if most else 'on'}."
        )
    return int(value)


def _device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=torch.device(str(device))).item()
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"device={device!r} is not available here; give 'auto', 'cpu' or 'cuda'.") from error
    return device


class FusionDistillEnv(gym.Env[np.ndarray, np.ndarray]):  # noqa: D101  (its docstring is made of tables, below)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012  (an instance variable of gym.Env)
    observation_space: spaces.Box

    def __init__(
        self,
        data: str | Sequence[str] = "synthetic",
        teacher: str | Sequence[str] = ("builtin", "builtin", "rule:max", "rule:mean", "rule:poor"),
        reference: str = "builtin",
        student_width: int | Sequence[int] = (8, 12, 16),
        student: str | None = None,
        start: str | Sequence[str] = (NEW, TRAINED, TRAINED),
        learning_rate: float | Sequence[float] = (3e-3, 1e-2),
        self_loss: str = "simple",
        episode_steps: int = 16,
        updates_per_step: int = 20,
        batch_size: int = 8,
        patch_size: int | None = None,
        patches: int | None = 256,
        actions: Sequence[str] = tuple(ACTIONS),
        fixed: Mapping[str, float] | None = None,
        hidden: Sequence[str] = (),
        sparse_reward: bool = False,
        probe_pairs: int = 8,
        probe_size: int = 96,
        device: str = "auto",
        threads: int | None = 1,
        render_mode: str | None = None,
    ) -> None:
        self.render_mode = render_mode
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode={render_mode!r} is not allowed; give 'rgb_array' or None.")
        self.data = _choices("data", data, str)
        self.reference = reference
        self.teachers = _choices("teacher", teacher, str)
        self.student_widths = _choices("student_width", student_width, int)
        if student is not None and student not in STUDENTS:
            raise ValueError(f"student={student!r} is not allowed; give one of {', '.join(STUDENTS)}, or None.")
        self.student = student
        self.starts = _choices("start", start, str)
        for each in dict.fromkeys(self.starts):  # a start may be named again, to be drawn more often
            for width in self.student_widths:
                self._new_student(each, width, torch.Generator())  # a mistake shows here
        self.learning_rates = _choices("learning_rate", learning_rate, float)
        if not all(np.isfinite(rate) and 0 < rate <= 1 for rate in self.learning_rates):
            raise ValueError(f"learning_rate={learning_rate!r} is not allowed; give values in (0, 1].")
        if self_loss not in SELF_LOSSES:
            raise ValueError(f"self_loss={self_loss!r} is not allowed; give one of {', '.join(SELF_LOSSES)}.")
        self.self_loss = self_loss
        self.episode_steps = _positive("episode_steps", episode_steps, 1)
        self.updates_per_step = _positive("updates_per_step", updates_per_step, 1)
        self.batch_size = _positive("batch_size", batch_size, 1, MOST_IMAGES)
        self.patches = None if patches is None else _positive("patches", patches, 1)
        self.action_names = tuple(actions)
        unknown = [name for name in (*self.action_names, *(fixed or {})) if name not in ACTIONS]
        if unknown or not self.action_names or len(set(self.action_names)) < len(self.action_names):
            named = unknown[0] if unknown else self.action_names
            raise ValueError(f"actions or fixed name {named!r}; give each of these at most once: {', '.join(ACTIONS)}.")
        self.fixed = {name: component.default for name, component in ACTIONS.items()}
        for name, value in (fixed or {}).items():
            component = ACTIONS[name]
            if not component.low <= value <= component.high:
                raise ValueError(f"fixed {name}={value} is outside [{component.low:g}, {component.high:g}].")
            self.fixed[name] = float(value)
        self.hidden, self.sparse_reward = tuple(hidden), bool(sparse_reward)
        nowhere = set(self.hidden) - {feature.name for feature in OBSERVATIONS}
        if nowhere:
            raise ValueError(f"hidden names {min(map(str, nowhere))!r}, which is no feature of the observation.")
        self._hidden = [position for position, feature in enumerate(OBSERVATIONS) if feature.name in self.hidden]
        self.device = device = _device(device)
        if threads is not None:
            torch.set_num_threads(_positive("threads", threads, 1, MOST_THREADS))
        keep_freed_memory()
        if patch_size is None:
            patch_size = PATCH if student is None else WIDE_PATCH
        sizes = _positive("patch_size", patch_size, 16), _positive("probe_pairs", probe_pairs, 1, MOST_IMAGES)
        shared = (*sizes, _positive("probe_size", probe_size, 48), device)
        self._tasks: dict[tuple[str, str], Task] = {
            (source, name): load_task(source, name, reference, *shared)
            for source in self.data
            for name in self.teachers
        }

        low = np.array([feature.low for feature in OBSERVATIONS], dtype=np.float32)
        high = np.array([feature.high for feature in OBSERVATIONS], dtype=np.float32)
        self.observation_space = spaces.Box(low, high, dtype=np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (len(self.action_names),), dtype=np.float32)
        self._distiller: Distiller | None = None
        self.ahead: Stats | None = None  # from a population that has done the training of the next step already

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts a new student.

        Args:
            seed: Seed of the environment's generator, as in Gymnasium.
            options: Nothing is read from it.

        Returns:
            The first observation and the info.
        """
        super().reset(seed=seed)
        self.instance: dict[str, Any] = {
            "data": str(self.np_random.choice(self.data)),
            "teacher": str(self.np_random.choice(self.teachers)),
            "student_width": int(self.np_random.choice(self.student_widths)),
            "start": str(self.np_random.choice(self.starts)),
            "learning_rate": float(self.np_random.choice(self.learning_rates)),
            "seed": int(self.np_random.integers(2**62)),
        }
        self._build()
        self._step = 0
        self._history: dict[str, list[float]] = {"total": [], "clean": [], "hardened": []}
        self._actions: dict[str, list[float]] = {name: [] for name in ACTIONS}
        self._last_action = dict.fromkeys(ACTIONS, 0.0)
        self._settings = dict(self.fixed)
        self._stats = self.distiller.measure(self._settings)
        self._previous_stats = self._stats
        self._reading = self.task.probe.read(self.distiller.student)
        self._initial_score = self._score = self._paid = self._reading.score
        self._record()
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        """Trains the student for one decision and scores it.

        Args:
            action: Values in [-1, 1], one per selected component; others are clipped.

        Returns:
            Observation, reward (gain of the score, in hundredths), terminated, truncated (always false) and info.

        Raises:
            ValueError: If the action has a wrong shape or holds NaN.
            gymnasium.error.ResetNeeded: If there is no episode under way.
        """
        stats, self.ahead = self.ahead, None
        if stats is None:
            stats = self.distiller.advance(self.decide(action), self.updates_per_step)
        return self.conclude(stats)

    def decide(self, action: np.ndarray) -> dict[str, float]:
        """The first half of `step`: takes an action and gives the settings to train under.

        Args:
            action: As in `step`.

        Returns:
            Physical value of every setting by name.

        Raises:
            ValueError: If the action has a wrong shape or holds NaN; nothing has changed then.
            gymnasium.error.ResetNeeded: If there is no episode under way.
        """
        if self._distiller is None or self._step >= self.episode_steps:
            raise gym.error.ResetNeeded("The episode is over (or none began): call reset() before step().")
        self._settings = {**self.fixed, **decode(action, self.action_names)}
        clipped = np.clip(np.asarray(action), -1.0, 1.0).astype(np.float32)
        self._last_action.update(zip(self.action_names, clipped.tolist(), strict=True))
        return self._settings

    def conclude(self, stats: Stats) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        """The second half of `step`: scores the student after the training that `decide` asked for.

        Args:
            stats: What `Distiller.advance` gave.

        Returns:
            As `step`.
        """
        self._previous_stats, self._stats = self._stats, stats
        self._step += 1
        reading = self.task.probe.read(self.distiller.student) if stats.finite else None
        if reading is None or not reading.alive:
            self._score = self._initial_score - DIVERGENCE_PENALTY
            self._stats, self._step = self._previous_stats, self.episode_steps
            return self._observation(), self._pay(), True, False, self._info(diverged=True)
        self._reading = reading
        self._score = reading.score
        self._record()
        return self._observation(), self._pay(), self._step >= self.episode_steps, False, self._info()

    def _pay(self) -> float:
        """The reward: what the score has gained since the last one."""
        if self.sparse_reward and self._step < self.episode_steps:
            return 0.0
        reward = POINTS * (self._score - self._paid)
        self._paid = self._score
        return float(reward)

    @property
    def task(self) -> Task:
        """The data and the teacher of this episode."""
        return self._tasks[self.instance["data"], self.instance["teacher"]]

    @property
    def distiller(self) -> Distiller:
        """The training under way.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        if self._distiller is None:
            raise gym.error.ResetNeeded("There is no student yet: call reset() first.")
        return self._distiller

    def _build(self) -> None:
        """Makes the student and its training from the instance alone."""
        generator = torch.Generator().manual_seed(self.instance["seed"])
        student = self._new_student(self.instance["start"], self.instance["student_width"], generator).to(self.device)
        bank = self.task.bank
        if self.patches is not None and self.patches < len(bank):
            bank = bank[torch.randperm(len(bank), generator=generator)[: self.patches].numpy()]
        self._distiller = Distiller(
            bank,
            student,
            self.instance["learning_rate"],
            self.batch_size,
            self.episode_steps * self.updates_per_step,
            generator,
            self.self_loss,
        )
        self.ahead = None

    def _new_student(self, start: str, width: int, generator: torch.Generator) -> Student:
        shape = STUDENTS[self.student] if self.student else {"width": width}
        if start == NEW:
            return Student(**shape, generator=generator)
        trained = read_start((self.student or str(width)) if start == TRAINED else start)
        if self.student:
            return grown(trained, shape, generator)
        return copy.deepcopy(trained).train().requires_grad_(True)

    def _record(self) -> None:
        for name, value in zip(
            self._history,
            (self._reading.score, self._reading.score_clean, self._reading.score_hardened),
            strict=True,
        ):
            self._history[name].append(value)
        for name, value in self._settings.items():
            self._actions[name].append(value)

    def _observation(self) -> np.ndarray:
        reading, stats, before = self._reading, self._stats, self._previous_stats
        values = {
            "progress": self._step / self.episode_steps,
            "loss_guide": _log10(stats.loss_guide),
            "loss_self": _log10(stats.loss_self),
            "trend_guide": 4 * (_log10(stats.loss_guide) - _log10(before.loss_guide)),
            "trend_self": 4 * (_log10(stats.loss_self) - _log10(before.loss_self)),
            "grad_norm": _log10(stats.grad_norm) / 2,
            "gap_intensity": 10 * reading.gaps["intensity"],
            "gap_gradient": 10 * reading.gaps["gradient"],
            "gap_structure": reading.gaps["structure"],
            "teacher_score": self.task.probe.teacher_score,
            "lead": 5 * (self.task.probe.teacher_score - reading.score_clean),
            "score_clean": reading.score_clean,
            "score_hardened": reading.score_hardened,
            **{f"ratio_{name}": value for name, value in reading.ratios.items()},
            **{f"last_{name}": value for name, value in self._last_action.items()},
        }
        vector = np.array([values[feature.name] for feature in OBSERVATIONS], dtype=np.float32)
        vector = np.clip(vector, self.observation_space.low, self.observation_space.high)
        vector[self._hidden] = 0
        return vector

    def _info(self, diverged: bool = False) -> dict[str, Any]:
        reading = self._reading
        return {
            "score": float(self._score),
            "score_clean": reading.score_clean,
            "score_hardened": reading.score_hardened,
            "gain": float(self._score - self._initial_score),
            "is_success": bool(self._score > self._initial_score),
            "diverged": float(diverged),
            "student/updates": float(self.distiller.updates),
            "student/loss_guide": self._stats.loss_guide,
            "student/loss_self": self._stats.loss_self,
            **{f"fusion/{name}": value for name, value in reading.metrics.items()},
            **{f"ratio/{name}": value for name, value in reading.ratios.items()},
            **{f"gap/{name}": value for name, value in reading.gaps.items()},
            **{f"action/{name}": float(value) for name, value in self._settings.items()},
        }

    def save_state(self) -> dict[str, Any]:
        """A snapshot of the whole episode, as plain containers and tensors (loads with ``weights_only=True``).

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        return {
            "distiller": self.distiller.state_dict(),
            "instance": dict(self.instance),
            "np_random": self.np_random.bit_generator.state,
            "step": self._step,
            "history": copy.deepcopy(self._history),
            "actions": copy.deepcopy(self._actions),
            "last_action": dict(self._last_action),
            "settings": dict(self._settings),
            "stats": (self._stats.as_tuple(), self._previous_stats.as_tuple()),
            "reading": self._reading.as_dict(),
            "scores": (self._initial_score, self._score, self._paid),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores what `save_state` gave, in an environment made with the same arguments.

        Raises:
            ValueError: If the state is of an instance that this environment cannot have.
        """
        for name, allowed in (("data", self.data), ("teacher", self.teachers), ("start", self.starts)):
            if state["instance"][name] not in allowed:
                raise ValueError(f"The state's {name} {state['instance'][name]!r} is not among {allowed}.")
        self.instance = dict(state["instance"])
        self._build()
        self.distiller.load_state_dict(state["distiller"])
        self.np_random.bit_generator.state = state["np_random"]
        self._step = state["step"]
        self._history, self._actions = copy.deepcopy(state["history"]), copy.deepcopy(state["actions"])
        self._last_action, self._settings = dict(state["last_action"]), dict(state["settings"])
        self._stats, self._previous_stats = (Stats(*values) for values in state["stats"])
        self._reading = Reading(**state["reading"])
        self._initial_score, self._score, self._paid = state["scores"]

    def fork(self) -> FusionDistillEnv:
        """An independent environment in the same state; the data and the teacher are shared."""
        return copy.deepcopy(self)

    def render(self) -> np.ndarray | None:
        """One frame: sources, hardened sources, teacher, student, and the curves so far.

        Returns:
            uint8 (H, W, 3) RGB, of the same shape throughout an episode; None without ``render_mode``.
        """
        if self.render_mode is None:
            gym.logger.warn("render() does nothing: give render_mode='rgb_array' to gymnasium.make().")
            return None
        from fusion_gym import rendering  # matplotlib is loaded only where a picture is wanted

        probe = self.task.probe
        shown = probe.telling
        one = slice(shown, shown + 1)
        with torch.no_grad():
            fused = self.distiller.student(probe.ir[one], probe.vi[one])
        pictures = {
            "infrared": probe.ir[one],
            "visible": probe.vi[one],
            "infrared, hardened": probe.hard_ir[one],
            "visible, hardened": probe.hard_vi[one],
            "teacher": probe.teacher[one],
            "student": fused,
        }
        title = f"decision {self._step}/{self.episode_steps}   score {self._score:.3f}"
        return rendering.render_frame(
            {name: image[0, 0].cpu().numpy() for name, image in pictures.items()},
            self._history,
            self._actions,
            title,
        )


def _log10(value: float) -> float:
    return float(np.log10(max(value, 1e-12)))


FusionDistillEnv.__doc__ = f"""The training of a light infrared-visible fusion network, as an environment.

## Description
    One episode trains one student, from its initial weights, for ``episode_steps`` decisions of
    ``updates_per_step`` optimiser updates each. The loss of an update is

        guidance · (L_guide(s(x), t(x)) + L_guide(s(H(x)), t(x))) / 2 + (1 − guidance) · L_self(s(H(x)), x)

    where x is a batch of source pairs, t the teacher, s the student and H the hardening that the action asks for
    (`fusion_gym.losses`, `fusion_gym.hardening`). After AgentFuse, arXiv:2509.02424.

## Action Space
    ``Box(-1, 1, ({len(ACTIONS)},), float32)``, or fewer components by ``actions``. Each is decoded linearly from -1 to
    0 and from 0 to 1; values outside are clipped. 0 is the default constant schedule.

    | Num | Action | At -1 | At 0 | At 1 | Unit | Meaning |
    | --- | --- | --- | --- | --- | --- | --- |
{
    _table(
        [
            (str(i), c.name, f"{c.low:g}", f"{c.default:g}", f"{c.high:g}", c.unit, c.doc)
            for i, c in enumerate(ACTIONS.values())
        ]
    )
}

## Observation Space
    ``Box`` of {len(OBSERVATIONS)} float32 features.

    | Num | Observation | Min | Max | Meaning |
    | --- | --- | --- | --- | --- |
{_table([(str(i), f.name, f"{f.low:g}", f"{f.high:g}", f.doc) for i, f in enumerate(OBSERVATIONS)])}

## Rewards
    The gain of the fusion score over the step, in hundredths ({POINTS:g} · gain); the starting value is measured at
    reset, so the undiscounted return is {POINTS:g} · (final − initial score). The score is the mean of a clean and
    a hardened probe's, each a weighted mean of metric ratios to a reference fusion's values, capped
    (`fusion_gym.score`), in [0, 1.1]. A student that diverges (a loss or an output is not finite, or all outputs are
    the same) loses what it gained and {POINTS * DIVERGENCE_PENALTY:g} more. So rewards lie in [−210, 110].

## Starting State
    A new student, or one that was trained before and is to be trained further. Its initial weights, the order of its
    batches, the subset of patches, and, where a list is given, the data, the teacher, the student's width, its start
    and the learning rate are drawn from the seed.

## Episode Termination
    ``terminated`` after ``episode_steps`` decisions: the task is finite and its progress is observed; or when the
    student diverges (``info["diverged"]`` is 1). ``truncated`` is never set; it is for limits from outside.

## Arguments
    * ``data``: "synthetic", "synthetic-small", a folder of pairs, several joined by commas, or a list to draw from.
    * ``teacher``: name, file, ``module:Class`` or folder (`fusion_gym.teachers`), or a list of them to draw from.
    * ``reference``: the same; whose metric values the score is relative to.
    * ``student_width``, ``learning_rate``: one value, or a list to draw from.
    * ``student``: "tiny", "small" or "base" trains a student of the family that is shipped, whatever the width.
    * ``start``: "new", "trained" (weights that come with the package, for widths 8, 12, 16 and 24 and the family), a
      weights file, or a list to draw from.
    * ``self_loss``: "simple" (intensity, gradient, SSIM), or "metrics", which trains by the fusion metrics themselves
      (`fusion_gym.objective`) and takes several times as long.
    * ``episode_steps``, ``updates_per_step``, ``batch_size``: the budget of an episode.
    * ``patch_size``: side of the patches in pixels; if not given, {PATCH}, or {WIDE_PATCH} for a student of the
      family: it sees further, and small patches would teach it what borders look like.
    * ``patches``: size of the subset of patches that an episode learns from; None takes all.
    * ``actions``: the components that the agent sets; ``fixed``: physical values of the others.
    * ``hidden``: features of the observation that always read 0; ``sparse_reward``: pays the whole gain at the end of
      the episode, 0 before. Both are for ablations.
    * ``probe_pairs``, ``probe_size``: crops that the student is scored on, taken from the validation pairs.
    * ``device``: "auto", "cpu", "cuda"; ``threads``: torch's threads in this process, None leaves them.

    ```python
    >>> import gymnasium as gym
    >>> import fusion_gym
    >>> gym.make("FusionDistillFast-v0")
    <OrderEnforcing<PassiveEnvChecker<FusionDistillEnv<FusionDistillFast-v0>>>>

    ```

## Version History
    * v0: first version.
"""
