"""How to draw, and what comes out."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from mammoth_jax.core.compat import NO_FAULTS, ReleaseFaults
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Float, Int
from mammoth_jax.flow.guidance import guided_steps
from mammoth_jax.flow.solvers import SOLVERS
from mammoth_jax.models.backbone.cache import CacheFormat
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.pipelines.batching import PictureRequest
from mammoth_jax.pipelines.step_formats import WeightFormat, check_formats
from mammoth_jax.processing.prompts import DEFAULT_NEGATIVE_PROMPT

Mode = Literal["ar+diffusion", "diffusion", "ar"]
NEEDED_PARTS: Mapping[str, tuple[str, ...]] = {
    "ar+diffusion": ("text_decoder", "generation_experts", "dit", "refiner", "vae"),
    "diffusion": ("text_decoder", "dit", "vae"),
    "ar": ("text_decoder", "generation_experts", "mammothtok_codebook", "mammothtok_decoder"),
}


def require_mode(model: Mammoth, doing: str, mode: Mode) -> None:
    """Raises an :class:`InputError` unless the model has what ``doing`` in this mode needs."""
    model.require(f"{doing} (mode {mode})", *NEEDED_PARTS[mode])
    if mode == "diffusion" and model.config.condition.mode == "image":
        raise InputError(
            f"{doing}: mode 'diffusion' paints from the prompt's text alone, and this model's diffusion transformer "
            "was trained on visual tokens alone (condition.mode image); use 'ar+diffusion' or 'ar'"
        )


@dataclasses.dataclass(frozen=True)
class TextToImageOptions:
    """How to draw; see :meth:`TextToImagePipeline.__call__`.  ``None`` takes the checkpoint's generation settings.

    ``decode_weights`` and ``cache`` say how the loop of visual tokens holds the decoder's weights and its keys and
    values; ``int8`` is smaller and inexact.
    """

    num_inference_steps: int = 50
    guidance_scale: float = 9.0
    image_guidance_scale: float = 2.0
    ar_guidance_scale: float = 7.0
    negative_prompt: str = DEFAULT_NEGATIVE_PROMPT
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    cfg_range: tuple[float, float] = (0.0, 1.0)
    solver: str = "euler"
    step_cache: float = 0.0
    decode_weights: WeightFormat = "model"
    cache: CacheFormat = "model"
    mode: Mode = "ar+diffusion"
    faults: ReleaseFaults = NO_FAULTS

    def __post_init__(self) -> None:
        if self.num_inference_steps < 1:
            raise InputError(f"num_inference_steps {self.num_inference_steps}: at least 1 is needed")
        if self.solver not in SOLVERS:
            raise InputError(f"solver {self.solver!r}: expected one of {sorted(SOLVERS)}")
        if self.mode not in NEEDED_PARTS:
            raise InputError(f"mode {self.mode!r}: expected one of {sorted(NEEDED_PARTS)}")
        if self.temperature is not None and self.temperature < 0:
            raise InputError(f"temperature {self.temperature}: expected 0 (greedy) or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p {self.top_p}: expected more than 0 and at most 1")
        if self.top_k is not None and self.top_k < 0:
            raise InputError(f"top_k {self.top_k}: expected 0 (off) or more")
        if self.repetition_penalty is not None and self.repetition_penalty <= 0:
            raise InputError(f"repetition_penalty {self.repetition_penalty}: expected more than 0 (1 is off)")
        if not self.step_cache >= 0:
            raise InputError(
                f"step_cache {self.step_cache}: expected 0 (off, exact) or a threshold such as 0.1"
            )
        check_formats(self.decode_weights, self.cache)
        guided_steps(self.num_inference_steps, self.cfg_range, self.faults)


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture: its request, uint8 pixels, its visual tokens' codes ``[rows, cols]`` and its latents, if drawn."""

    request: PictureRequest
    pixels: np.ndarray
    codes: Int[np.ndarray, "rows cols"] | None
    latents: Float[np.ndarray, "rows cols c"] | None


def parse_options(values: Mapping[str, Any], own: Mapping[str, Any] = {}) -> TextToImageOptions:
    """Options by name; of those that are not given a checkpoint's ``own`` (``GenerationSettings.drawing``).

    Raises:
      InputError: an unknown name, or a value out of range.
    """
    known = {field.name for field in dataclasses.fields(TextToImageOptions)}
    for name in values:
        if name not in known:
            raise InputError(f"unknown option {name!r}; known: {', '.join(sorted(known))}")
    return TextToImageOptions(**{**own, **values})
