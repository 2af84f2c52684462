"""Guidance dropout: which samples train the negative branches, each exactly as sampling feeds it.

- Autoregressive: the unconditional row sees the answer opening alone, so the sequence is ``[opening ; visual tokens ;
  image end]`` from position 0 on, without prompt, references and reasoning.
- Diffusion: the condition is the negative prompt, a sequence of its own, every token of it and no queries.  Part of
  these samples lose their reference latents, too: guidance by text keeps the references in its negative branch,
  guidance by image does not (Brooks et al. 2023).

One number decides both, so that a sample seldom needs three sequences.
"""

import dataclasses

from mammoth_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class Dropped:
    """What a sample is trained without."""

    prompt: bool = False
    condition: bool = False
    references: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuidanceDropout:
    """How many samples train which negative branch.

    Attributes:
        ar: part of the drawn samples whose next-token loss is without prompt.
        text: part of them whose diffusion transformer gets the negative prompt.
        references: part of *those* that lose their reference latents, too.
    """

    ar: float = 0.1
    text: float = 0.1
    references: float = 0.5

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not 0 <= getattr(self, field.name) <= 1:
                raise InputError(
                    f"guidance dropout: {field.name} {getattr(self, field.name)} must be between 0 and 1"
                )

    def draw(self, which: float, references: float) -> Dropped:
        """What is dropped, from two numbers in [0, 1) of the sample's own."""
        condition = which < self.text
        return Dropped(which < self.ar, condition, condition and references < self.references)


NO_DROPOUT = GuidanceDropout(ar=0, text=0, references=0)
