"""How many tokens a picture takes in each program, counted before anything is drawn."""

import dataclasses
from collections.abc import Hashable

import numpy as np

from mammoth_jax.models.config import MammothConfig
from mammoth_jax.pipelines.batching import PictureRequest
from mammoth_jax.pipelines.loading import LoadedModel
from mammoth_jax.pipelines.options import TextToImageOptions
from mammoth_jax.processing.prompts import PromptIds, drawing_prompt, negative_prompt


@dataclasses.dataclass(frozen=True)
class PictureLengths:
    """What a picture takes, in tokens.

    Attributes:
        prompt: ids of its prompt, references included.
        visual: visual tokens to draw, line ends and the image-end included.
        text: text that conditions the diffusion transformer.
        references: patches of each reference there.
        target: patches of the picture there.
        seen: tokens of the vision tower in its prompt.
        reads: the prompts that are read for it, its own first; equal ones are read once a launch.
        negative: length of the negative prompt among them, 0 without one.
        shows: whether its prompt holds references.
    """

    prompt: int
    visual: int
    text: int
    references: tuple[int, ...]
    target: int
    seen: int
    reads: tuple[Hashable, ...]
    negative: int
    shows: bool

    @property
    def decoded(self) -> int:
        """Its sequence in the backbone."""
        return self.prompt + self.visual

    @property
    def diffused(self) -> int:
        """Its sequence in the diffusion transformer, without the alignment module's queries, which all have."""
        return self.text + sum(self.references) + self.target


def picture_lengths(
    loaded: LoadedModel, request: PictureRequest, options: TextToImageOptions
) -> PictureLengths:
    """Counts what a request takes; what the options' mode leaves out is 0."""
    config, tokenizer = loaded.config, loaded.tokenizer
    merge, patch = config.backbone.vision.spatial_merge_size, config.dit.patch_size
    written = None if request.reasoning is None else request.reasoning.ids
    prompt = drawing_prompt(tokenizer, request.content(merge), *request.size.tokens, written)
    rows, cols = request.size.tokens
    shown, draws, paints = request.references, options.mode != "diffusion", options.mode != "ar"
    negative = 0
    reads: list[Hashable] = [("prompt", request.prompt, shown, request.size.tokens, written)]
    if draws and options.ar_guidance_scale > 1:
        reads.append(("opening", request.size.tokens))
    if paints and options.guidance_scale > 1:
        reads.append("negative")
        negative = len(negative_prompt(tokenizer, options.negative_prompt))
    return PictureLengths(
        prompt=len(prompt.ids),
        visual=rows * (cols + 1) + 1 if draws else 0,
        text=_num_text(config, prompt, with_answer=written is not None) if paints else 0,
        references=tuple(each.num_patches(patch) for each in shown if each.latents is not None)
        if paints
        else (),
        target=request.size.patches[0] * request.size.patches[1] if paints else 0,
        seen=sum(each.patches.grid.tokens(merge) for each in shown if each.patches is not None),
        reads=tuple(reads),
        negative=negative,
        shows=bool(shown),
    )


def _num_text(config: MammothConfig, prompt: PromptIds, *, with_answer: bool) -> int:
    """Ids that :func:`build_condition` takes for text."""
    ids = np.asarray(prompt.ids)
    text = (ids < config.backbone.decoder.gen_vocab_start_index) & ~np.isin(ids, config.backbone.vision_ids)
    whole = with_answer or config.condition.with_answer_text
    return int(text[: len(ids) if whole else prompt.answer_start].sum())
