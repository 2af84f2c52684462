"""Weights and choices of the joint objective; plain values, as a configuration file gives them."""

import dataclasses

from mammoth_jax.core.errors import InputError
from mammoth_jax.flow.schedules import ExponentialShift, NoShift, ResolutionShift
from mammoth_jax.flow.time_sampling import LogisticNormal, StratifiedUniform, Uniform
from mammoth_jax.objectives.noise import RegionNoise, SimilarityNoise


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointObjectiveConfig:
    """What is learned, and how it is drawn; the defaults are the release's transport and the paper's weights.

    Attributes:
      ntp: weight of the next-token loss, a mean over the counted tokens of the whole batch.
      flow: weight of the flow-matching loss, a mean over drawn samples of their own means; at 0 the diffusion
        transformer is not run, and pictures are visual tokens alone.
      alignment: weight of the loss that gives every query of the alignment module a visual token of its own
        (``alignment.py``), a mean over samples; not the paper's, for models that start from nothing.
      time_law: of the training times.
      time_shift: moves them by the number of a picture's patch tokens.
      condition_gradients: whether the flow loss teaches the backbone through its condition features.
      noise: on the visual tokens that the decoder reads; null in stages that do not train both losses (section 3.1.4).
    """

    ntp: float = 1.0
    flow: float = 1.0
    alignment: float = 0.0
    time_law: LogisticNormal | Uniform | StratifiedUniform = LogisticNormal()
    time_shift: ExponentialShift | ResolutionShift | NoShift = ExponentialShift()
    condition_gradients: bool = True
    noise: SimilarityNoise | RegionNoise | None = None

    def __post_init__(self) -> None:
        if min(self.ntp, self.flow, self.alignment) < 0 or self.ntp == self.flow == 0:
            raise InputError(
                f"objective: ntp {self.ntp}, flow {self.flow} and alignment {self.alignment} must be 0 or more, and "
                "one of the first two positive"
            )
        if self.noise is not None and self.flow == 0:
            raise InputError(
                f"objective.noise {self.noise}: without objective.flow nothing is noised; write noise: null, or a flow "
                "above 0"
            )
