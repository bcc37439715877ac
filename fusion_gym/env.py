"""FusionDistill-v0: the distillation of a light fusion network as a Markov decision process."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsFloat, TypeVar, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from fusion_gym import arguments
from fusion_gym.actions import ACTIONS, array_of, decode
from fusion_gym.conditions import DEPLOYMENTS
from fusion_gym.distiller import LEAST_PATCH, SELF_LOSSES, Distiller, GuideLoss, Stats
from fusion_gym.docstrings import filled, numbered
from fusion_gym.episode import Episode
from fusion_gym.features import load_guide
from fusion_gym.hints import TEACHER, Hints, load_hints
from fusion_gym.info import Instance
from fusion_gym.losses import by_pixels
from fusion_gym.memory import keep_freed_memory
from fusion_gym.models import own
from fusion_gym.models.own import OwnStudent
from fusion_gym.models.student import NEW, STAGES, STUDENTS, TRAINED, begin
from fusion_gym.modes import settled
from fusion_gym.observations import HIGH, LOW, OBSERVATIONS, observe
from fusion_gym.sources import check_range
from fusion_gym.task import Task, load_task
from fusion_gym.tensors import resolve_device
from fusion_gym.text import say

if TYPE_CHECKING:
    from fusion_gym.window import Window

GUIDES = ("pixels", "features")
POINTS = 100.0  # rewards are in hundredths of the score, so that learners with their usual settings see them
DIVERGENCE_PENALTY = 1.0  # of the score
_T = TypeVar("_T")


def _there(part: _T | None) -> _T:
    if part is None:
        raise gym.error.ResetNeeded("There is no student yet: call reset() first.")
    return part


@filled(
    actions=numbered((a.name, f"{a.low:g}", f"{a.default:g}", f"{a.high:g}", a.unit, a.doc) for a in ACTIONS.values()),
    features=numbered((f.name, f"{f.low:g}", f"{f.high:g}", f.doc) for f in OBSERVATIONS),
    stages=", ".join(f'"{stage}"' for stage in STAGES),
    action_count=len(ACTIONS),
    feature_count=len(OBSERVATIONS),
    points=POINTS,
    penalty=POINTS * DIVERGENCE_PENALTY,
    deployments=numbered((name, *(f"{share:g}" for share in shares.values())) for name, shares in DEPLOYMENTS.items()),
)
class FusionDistillEnv(gym.Env[np.ndarray, np.ndarray]):
    """The training of a light infrared-visible fusion network, as an environment.

    ## Description
        One episode trains one student, from its initial weights, for ``episode_steps`` decisions of
        ``updates_per_step`` optimiser updates each. The loss of an update is

            guidance · L_guide(s(H(x)), t(x)) + (1 − guidance) · L_self(s(H(x)), x)

        where x is a batch of source pairs, t the teacher, s the student and H the hardening that the action asks for,
        which leaves a share of the batch clean (`fusion_gym.losses`, `fusion_gym.hardening`). After AgentFuse,
        arXiv:2509.02424.

    ## Action Space
        ``Box(-1, 1, ({action_count},), float32)``, or fewer components by ``actions``. Each is decoded linearly from -1
        to 0 and from 0 to 1; values outside are clipped. 0 is the default constant schedule.

        | Num | Action | At -1 | At 0 | At 1 | Unit | Meaning |
        | --- | --- | --- | --- | --- | --- | --- |
        {actions}

    ## Observation Space
        ``Box`` of {feature_count} float32 features.

        | Num | Observation | Min | Max | Meaning |
        | --- | --- | --- | --- | --- |
        {features}

    ## Rewards
        The gain of the fusion score over the step, in hundredths ({points:g} · gain); the starting value is measured at
        reset, so the undiscounted return is {points:g} · (final − initial score); a student that is left as it is earns
        nothing. The probe has every pair clean and under each damage; the score weighs these conditions as the
        student will meet them, and each is a weighted mean of what fused images are worth beside a reference fusion
        (`fusion_gym.score`), in [0, 1.1]. A student that diverges (a loss or an output is not finite, or all outputs
        are the same) loses what it gained and {penalty:g} more. So rewards lie in [−210, 110].

        | Num | Deployment | clean | blur | noise | illumination | contrast |
        | --- | --- | --- | --- | --- | --- | --- |
        {deployments}

    ## Starting State
        A new student, or one that was trained before and is to be trained further. Its initial weights, the order of
        its batches, the subset of patches, and, where a list is given, the data, the teacher, the student's width, its
        start, the learning rate and the deployment are drawn from the seed.

    ## Episode Termination
        ``terminated`` after ``episode_steps`` decisions: the task is finite and its progress is observed; or when the
        student diverges (``info["diverged"]`` is 1). ``truncated`` is never set; it is for limits from outside.

    ## Arguments
        * ``data``: "synthetic", "synthetic-small", a folder of pairs, several joined by commas, or a list to draw from.
        * ``ir_range``: the counts of 16-bit infrared images that become black and white, for raw counts; None takes the
          full range of 16 bit.
        * ``teacher``: name, file, ``module:Class`` or folder (`fusion_gym.teachers`), or a list of them to draw from.
        * ``reference``: the same; whose metric values the score is relative to.
        * ``student``: "tiny", "small" or "base", a student of the family that is shipped; None for the plain shape;
          "agentfuse", a published shape; or ``module:Class``, a network of your own (`fusion_gym.models.own`).
        * ``student_width``, of the plain shape, and ``learning_rate``: one value, or a list to draw from.
        * ``deployment``: name of the conditions that the student will meet (above), or a list to draw from.
        * ``start``: "new", "trained" (weights that come with the package, for widths 8, 12, 16 and 24 and the family),
          a stage of a long training of "tiny" ({stages}), a weights file, or a list to draw from; None takes
          all of these for "tiny", "new" for others.
        * ``self_loss``: "simple" (intensity, gradient, SSIM), or "metrics", which trains by the fusion metrics
          themselves (`fusion_gym.objective`) and takes several times as long.
        * ``guide``: "pixels" (intensity and edges), or "features", by which a student follows its teacher in what
          ``features`` sees: torchvision's weights of VGG-19, a TorchScript file, or ``module:Class``
          (`fusion_gym.features`); or "teacher", where both are ``module:Class`` with a method ``features(ir, vi)``,
          and the student's follow the teacher's (`fusion_gym.hints`).
        * ``episode_steps``, ``updates_per_step``, ``batch_size``: the budget of an episode.
        * ``patch_size``: side of the patches in pixels. Students of the family see further than the default: give a
          long training 128, for small patches teach what borders look like.
        * ``patches``: size of the subset of patches that an episode learns from; None takes all.
        * ``actions``: the components that the agent sets; ``fixed``: physical values of the others.
        * ``hidden``: features of the observation that always read 0; ``sparse_reward``: pays the whole gain at the end
          of the episode, 0 before. Both are for ablations.
        * ``probe_pairs``, ``probe_size``: crops that the student is scored on, taken from the validation pairs of
          ``probe_data``, or of ``data`` where that is None: a student may be judged where it did not learn.
        * ``render_mode``: "rgb_array", or "human" for a window that follows the training; closing it does not end that.
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

    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 4}  # noqa: RUF012  (an instance variable of gym.Env)
    observation_space: spaces.Box

    @settled()
    def __init__(
        self,
        data: str | Sequence[str] = "synthetic",
        teacher: str | Sequence[str] = ("builtin", "builtin", "rule:max", "rule:mean", "rule:poor"),
        reference: str = "builtin",
        student_width: int | Sequence[int] = 16,
        student: str | None = "tiny",
        start: str | Sequence[str] | None = None,
        deployment: str | Sequence[str] = tuple(DEPLOYMENTS),
        learning_rate: float | Sequence[float] = (1e-3, 2e-3),
        self_loss: str = "metrics",
        guide: str = "pixels",
        features: str | None = None,
        episode_steps: int = 16,
        updates_per_step: int = 20,
        batch_size: int = 8,
        patch_size: int = 64,
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
        ir_range: Sequence[int] | None = None,
        probe_data: str | None = None,
    ) -> None:
        self.render_mode = arguments.one_of("render_mode", render_mode, (None, *self.metadata["render_modes"]))
        self.data = arguments.choices("data", data, str)
        self.ir_range = None if ir_range is None else check_range(ir_range)
        self.reference = reference
        self.teachers = arguments.choices("teacher", teacher, str)
        self.student_widths = arguments.choices("student_width", student_width, int)
        mine = isinstance(student, str) and own.is_own(student)
        self.student = (
            student if mine else arguments.one_of("student", student, (None, *STUDENTS, *own.SHAPES, "module:Class"))
        )
        if start is None:
            start = (NEW, *STAGES, TRAINED) if student == "tiny" else NEW
        self.deployments = arguments.choices("deployment", deployment, str)
        for each in self.deployments:
            arguments.one_of("deployment", each, DEPLOYMENTS)
        self.learning_rates = arguments.learning_rates(learning_rate)
        self.self_loss = arguments.one_of("self_loss", self_loss, SELF_LOSSES)
        if (arguments.one_of("guide", guide, GUIDES) == "features") != (features is not None):
            raise ValueError(f"guide={guide!r} and features={features!r} do not go together; give both, or neither.")
        self.episode_steps = arguments.whole("episode_steps", episode_steps, 1)
        self.updates_per_step = arguments.whole("updates_per_step", updates_per_step, 1)
        self.batch_size = arguments.whole("batch_size", batch_size, 1, arguments.MOST_IMAGES)
        patch_size = arguments.whole("patch_size", patch_size, LEAST_PATCH[self.self_loss])
        self.guides: dict[str, GuideLoss | Hints] = dict.fromkeys(self.teachers, by_pixels)  # by teacher
        if features == TEACHER:
            self.guides = {name: load_hints(name, patch_size, device) for name in self.teachers}
        elif features is not None:
            self.guides = dict.fromkeys(self.teachers, load_guide(features, device))
        self.starts = arguments.choices("start", start, str)
        for each in dict.fromkeys(self.starts):  # a start may be named again, to be drawn more often
            for width in self.student_widths:
                begun = begin(each, width, self.student, torch.Generator())  # a mistake shows here
                if isinstance(begun, OwnStudent):
                    own.check(begun, min(self.batch_size, 2), patch_size, each == NEW)
                for hints in self.guides.values():
                    if isinstance(hints, Hints):
                        hints.check(begun, student)
        self.patches = None if patches is None else arguments.whole("patches", patches, 1)
        self.action_names, self.fixed = arguments.components(actions, fixed or {})
        self.hidden, self.sparse_reward = arguments.features(hidden), bool(sparse_reward)
        self.device = resolve_device(device)
        if threads is not None:
            torch.set_num_threads(arguments.whole("threads", threads, 1, arguments.MOST_THREADS))
        keep_freed_memory()
        shared = (
            patch_size,
            arguments.whole("probe_pairs", probe_pairs, 1, arguments.MOST_IMAGES),
            arguments.whole("probe_size", probe_size, 48),
            self.device,
            self.ir_range,
            probe_data,
        )
        self._tasks: dict[tuple[str, str], Task] = {
            (source, name): load_task(source, name, reference, *shared)
            for source in self.data
            for name in self.teachers
        }
        self.observation_space = spaces.Box(LOW, HIGH, dtype=np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (len(self.action_names),), dtype=np.float32)
        self._window = self._open_window() if self.render_mode == "human" else None
        self._instance: Instance | None = None
        self._episode: Episode | None = None
        self._distiller: Distiller | None = None
        self.ahead: tuple[np.ndarray, Stats] | None = None  # an action whose training a population has done already

    @settled()
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
        self._instance = {
            "data": str(self.np_random.choice(self.data)),
            "teacher": str(self.np_random.choice(self.teachers)),
            "student_width": int(self.np_random.choice(self.student_widths)),
            "start": str(self.np_random.choice(self.starts)),
            "learning_rate": float(self.np_random.choice(self.learning_rates)),
            "deployment": str(self.np_random.choice(self.deployments)),
            "seed": int(self.np_random.integers(2**62)),
        }
        self._build()
        settings, probe = dict(self.fixed), self.task.probe
        stats, reading = self.distiller.measure(settings), probe.read(self.distiller.student)
        deployment = DEPLOYMENTS[self.instance["deployment"]]
        self._episode = Episode.begin(self.episode_steps, probe.teacher_score, deployment, settings, stats, reading)
        self._show()
        return self.observation(), self._info()

    @settled()
    def step(self, action: np.ndarray) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        """Trains the student for one decision and scores it.

        Args:
            action: Values in [-1, 1], one per selected component; others are clipped.

        Returns:
            Observation, reward (gain of the score, in hundredths), terminated, truncated (always false) and info.

        Raises:
            ValueError: If the action has a wrong shape or holds NaN, or is not that of a training done ahead.
            gymnasium.error.ResetNeeded: If there is no episode under way.
        """
        if self.ahead is None:
            return self.conclude(self.distiller.advance(self.decide(action), self.updates_per_step))
        taken, stats = self.ahead
        if not np.array_equal(taken, array_of(action)):
            raise ValueError(f"The student was trained ahead under the action {taken}, not {action}; step with that.")
        self.ahead = None
        return self.conclude(stats)

    def decide(self, action: np.ndarray) -> dict[str, float]:
        """The first half of `step`: takes an action and gives the settings to train under.

        Args:
            action: As in `step`.

        Returns:
            Physical value of every setting by name.

        Raises:
            ValueError: If the action has a wrong shape or holds NaN, or the training of one was done ahead and has
                not been concluded; nothing has changed then.
            gymnasium.error.ResetNeeded: If there is no episode under way.
        """
        if self._distiller is None or self.episode.over:
            raise gym.error.ResetNeeded("The episode is over (or none began): call reset() before step().")
        if self.ahead is not None:
            raise ValueError(f"The student was trained ahead under the action {self.ahead[0]}: step with that first.")
        self.episode.settings = {**self.fixed, **decode(action, self.action_names)}
        clipped = np.clip(array_of(action), -1.0, 1.0).astype(np.float32)
        self.episode.last_action.update(zip(self.action_names, clipped.tolist(), strict=True))
        return self.episode.settings

    @settled()
    def conclude(self, stats: Stats) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        """The second half of `step`: scores the student after the training that `decide` asked for.

        Args:
            stats: What `Distiller.advance` gave.

        Returns:
            As `step`.
        """
        episode = self.episode
        reading = self.task.probe.read(self.distiller.student) if stats.finite else None
        if reading is not None and reading.alive:
            episode.conclude(stats, reading)
        else:
            episode.diverge(DIVERGENCE_PENALTY)
        self._show()
        reward = 0.0 if self.sparse_reward and not episode.over else float(POINTS * episode.pay())
        return self.observation(), reward, episode.over, False, self._info()

    def observation(self) -> np.ndarray:
        """The observation as it is now, which `reset` or the last `step` gave.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        return observe(self.episode, self.hidden)

    def _info(self) -> dict[str, Any]:
        return cast(dict[str, Any], self.episode.info(self.distiller.updates))

    @property
    def task(self) -> Task:
        """The data and the teacher of this episode.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        return self._tasks[self.instance["data"], self.instance["teacher"]]

    @property
    def instance(self) -> Instance:
        """What the last reset has drawn.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        return _there(self._instance)

    @property
    def episode(self) -> Episode:
        """What has happened since the last reset.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        return _there(self._episode)

    @property
    def distiller(self) -> Distiller:
        """The training under way.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        return _there(self._distiller)

    def _build(self) -> None:
        """Makes the student and its training from the instance alone."""
        generator = torch.Generator().manual_seed(self.instance["seed"])
        student = begin(self.instance["start"], self.instance["student_width"], self.student, generator)
        bank = self.task.bank
        if self.patches is not None and self.patches < len(bank):
            bank = bank[torch.randperm(len(bank), generator=generator)[: self.patches].numpy()]
        self._distiller = Distiller(
            bank,
            student.to(self.device),
            self.instance["learning_rate"],
            self.batch_size,
            self.episode_steps * self.updates_per_step,
            generator,
            self.self_loss,
            self.guides[self.instance["teacher"]],
        )
        self.ahead = None

    @settled()
    def save_state(self) -> dict[str, Any]:
        """A snapshot of the whole episode, as plain containers and tensors (loads with ``weights_only=True``).

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        return {
            "distiller": self.distiller.state_dict(),
            "instance": {**self.instance},
            "np_random": self.np_random.bit_generator.state,
            "episode": self.episode.as_dict(),
            "ahead": None if self.ahead is None else (self.ahead[0].tolist(), self.ahead[1].as_tuple()),
        }

    @settled()
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores what `save_state` gave, in an environment made with the same arguments.

        Raises:
            ValueError: If the state is of an instance that this environment cannot have.
        """
        known = {"data": self.data, "teacher": self.teachers, "start": self.starts, "deployment": self.deployments}
        for name, allowed in known.items():
            if state["instance"][name] not in allowed:
                raise ValueError(f"The state's {name} {state['instance'][name]!r} is not among {allowed}.")
        self._instance = state["instance"].copy()
        self._build()
        self.distiller.load_state_dict(state["distiller"])
        self.np_random.bit_generator.state = state["np_random"]
        self._episode = Episode.from_dict(copy.deepcopy(state["episode"]))
        if state["ahead"] is not None:
            action, stats = state["ahead"]
            self.ahead = np.array(action), Stats(*stats)

    @settled()
    def fork(self) -> FusionDistillEnv:
        """An independent environment in the same state; the data and the teacher are shared."""
        return copy.deepcopy(self)

    @settled()
    def render(self) -> np.ndarray | None:
        """One frame: sources, hardened sources, teacher, student, and the curves so far.

        Returns:
            uint8 (H, W, 3) RGB, of the same shape throughout an episode; None without ``render_mode``, and in the mode
            "human", whose window follows `reset` and `step` by itself.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        if self.render_mode is None:
            gym.logger.warn("render() does nothing: give render_mode='rgb_array' to gymnasium.make().")
            return None
        frame = self._frame()
        return frame if self.render_mode == "rgb_array" else None

    def _frame(self) -> np.ndarray:
        from fusion_gym.rendering import render_episode  # matplotlib is loaded only where a picture is wanted

        student = self.distiller.student
        return render_episode(self.episode, self.task.probe, student)

    def _open_window(self) -> Window | None:
        """A window; where there can be none a sentence on standard error, for a training needs no looking at."""
        from fusion_gym.window import NoWindow, Window  # OpenCV is loaded only where a window is wanted

        try:
            return Window(self.metadata["render_fps"])
        except NoWindow as error:
            say(error, error=True)
            return None

    def _show(self) -> None:
        if self._window is not None and self._window.wanted:
            self._window.show(self._frame())

    def close(self) -> None:
        """Closes the window, where there is one."""
        if self._window is not None:
            self._window.close()
