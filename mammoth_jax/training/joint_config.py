"""What a configuration file says of training the model: its backbone alone, or backbone and diffusion together."""

import dataclasses
from typing import Literal

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.example import DRAWING, Task
from mammoth_jax.data.packing.geometry import Forms
from mammoth_jax.data.packing.loader import JointDataConfig
from mammoth_jax.data.task_source import TaskSource
from mammoth_jax.layers.remat import Remat
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.objectives.joint_config import JointObjectiveConfig
from mammoth_jax.training.lora import LoRA
from mammoth_jax.training.optimizer import AdamWConfig
from mammoth_jax.training.parameter_groups import needed_parts, with_group_patterns
from mammoth_jax.training.work import RunConfig

_TASKS: dict[str, tuple[Task, ...]] = {"text": ("text",), "understanding": ("text", "it2t")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenFiles:
    """Where the parts are that joint training uses and never trains; by default the folder of ``--init``.

    ``mammothtok`` and ``vae`` are model folders, folders of their own, or runs that trained them; ``words`` is a folder
    with the tokenizer's files (without any, words are bytes).
    """

    mammothtok: str | None = None
    vae: str | None = None
    words: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RematConfig:
    """What each part's layers keep for the backward pass (``layers/remat.py``); null keeps everything."""

    decoder: Remat | None = None
    vision: Remat | None = None
    dit: Remat | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Pictures drawn after each evaluation: ``prompts`` at the model's own square size, in ``steps`` of diffusion."""

    prompts: tuple[str, ...]
    steps: int = 50
    guidance: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.prompts or self.steps < 1:
            raise InputError(
                f"samples: {len(self.prompts)} prompts, {self.steps} steps: expected 1 or more of both"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointTraining:
    """A stage: ``text`` and ``understanding`` train the backbone alone, ``joint`` whatever its groups name.

    The data's tasks and the objective decide which parts of the model run.  Optimiser groups named ``understanding``,
    ``generation`` and ``dit`` need no patterns (``parameter_groups.py``); parameters of no group are frozen.  Pictures
    are at most as large as a square of ``max_side`` pixels in every form: drawn, as visual tokens, as latents, in the
    vision tower.  None is sampling's own: ``model.picture_size``, and in the tower what the release's processor allows
    (16,384 tokens; samples that are too long are dropped).  ``references`` are the forms in which reference pictures
    are seen.  With ``lora`` adapters of the groups' kernels are trained, and nothing else.
    ``evaluation_batches`` of the held-out data are looked at each time; with ``evaluation_controls`` again with the
    words, or the latents to denoise, of other samples (``mismatch.py``).
    """

    task: Literal["text", "understanding", "joint"]
    model: MammothConfig
    data: JointDataConfig
    evaluation: JointDataConfig | None = None
    evaluation_batches: int = 8
    evaluation_controls: tuple[Literal["words", "targets"], ...] = ()
    samples: SampleConfig | None = None
    objective: JointObjectiveConfig = JointObjectiveConfig()
    optimizer: AdamWConfig
    lora: LoRA | None = None
    frozen: FrozenFiles = FrozenFiles()
    max_side: int | None = None
    references: Forms = Forms()
    remat: RematConfig = RematConfig()
    ema_decay: float | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    run: RunConfig

    def __post_init__(self) -> None:
        object.__setattr__(self, "optimizer", with_group_patterns(self.optimizer))
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise InputError(f"ema_decay {self.ema_decay}: expected a number between 0 and 1, or null")
        if self.objective.alignment and "refiner" not in self.parts(self.data):
            raise InputError(
                f"objective.alignment {self.objective.alignment}: nothing here runs the alignment module; it needs "
                "drawing, objective.flow above 0 and model.condition.mode text_image or image"
            )
        for name, data in (("data", self.data), ("evaluation", self.evaluation)):
            tasks = () if data is None else tasks_of(data)
            wrong = [t for t in tasks if t not in _TASKS.get(self.task, (*DRAWING, "text", "it2t"))]
            if wrong:
                raise InputError(
                    f"{name}: samples of {', '.join(wrong)} in a stage of task {self.task}; use task: joint"
                )
        if self.task == "joint" and not self.draws:
            raise InputError(
                f"data: a joint stage draws, but there is no source of {', '.join(DRAWING)}; use task: understanding"
            )
        self._check_evaluation()

    def _check_evaluation(self) -> None:
        """Refuses to look at what the stage does not have."""
        if self.evaluation_batches < 1:
            raise InputError(f"evaluation_batches {self.evaluation_batches}: expected 1 or more")
        if self.run.evaluation_pictures != RunConfig.evaluation_pictures:
            raise InputError(
                f"run.evaluation_pictures {self.run.evaluation_pictures}: only tokenizers are judged by so many "
                "pictures; leave it out, and say evaluation_batches"
            )
        own = self.parts(self.data)
        lacking = frozenset() if self.evaluation is None else self.parts(self.evaluation) - own
        if lacking:
            raise InputError(
                f"evaluation: its samples need {', '.join(sorted(lacking))}, which no sample of data runs; leave "
                "such samples out of evaluation, or train on some"
            )
        if self.samples is not None and "dit" not in own:
            raise InputError(
                f"samples: {len(self.samples.prompts)} prompts are to be drawn by diffusion, which this stage does not "
                "run; leave them out, or give it drawing and objective.flow above 0"
            )

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks of the training data."""
        return tasks_of(self.data)

    @property
    def draws(self) -> bool:
        """Whether pictures are drawn in training."""
        return any(task in DRAWING for task in self.tasks)

    @property
    def sources(self) -> tuple[TaskSource, ...]:
        """All sources, those of the evaluation last."""
        pools = (*self.data.pools, *(() if self.evaluation is None else self.evaluation.pools))
        return tuple(source for pool in pools for source in pool.sources)

    def parts(self, data: JointDataConfig) -> frozenset[str]:
        """The parts of the model that run on this data; the diffusion transformer unless ``objective.flow`` is 0."""
        return needed_parts(tasks_of(data), self.model.condition.mode, diffusion=self.objective.flow > 0)


def tasks_of(data: JointDataConfig) -> tuple[Task, ...]:
    """The tasks of all sources, each once."""
    return tuple(dict.fromkeys(source.task for pool in data.pools for source in pool.sources))
