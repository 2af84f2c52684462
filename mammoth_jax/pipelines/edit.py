"""Editing: reference pictures and an instruction in, pictures out, by the programs of text to image."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Float
from mammoth_jax.models.vae.config import Tiling
from mammoth_jax.pipelines.batching import PictureRequest
from mammoth_jax.pipelines.launch import Progress
from mammoth_jax.pipelines.loading import Pipeline
from mammoth_jax.pipelines.options import parse_options, require_mode
from mammoth_jax.pipelines.output import OutputType, TextToImageOutput
from mammoth_jax.pipelines.references import Channels, read_reference
from mammoth_jax.pipelines.shape_plan import KnownShapes
from mammoth_jax.pipelines.text_to_image import StepCallback, TextToImagePipeline
from mammoth_jax.pipelines.think_then_draw import ThinkOptions, with_reasoning

Images = Image.Image | Sequence[Image.Image | Sequence[Image.Image]]
SizeFrom = Literal["first", "last"]


@dataclasses.dataclass(frozen=True, eq=False)
class EditPipeline(Pipeline):
    """Draws pictures from reference pictures and instructions with a loaded model."""

    tiling: Tiling = Tiling()
    known: KnownShapes = dataclasses.field(default_factory=KnownShapes)

    @functools.cached_property
    def drawing(self) -> TextToImagePipeline:
        """The pipeline that draws; requests without references are its own."""
        return TextToImagePipeline(self.loaded, self.tiling, self.known)

    def __call__(
        self,
        image: Images,
        prompt: str | Sequence[str],
        *,
        height: int | Sequence[int] | None = None,
        width: int | Sequence[int] | None = None,
        size_from: SizeFrom = "first",
        grid: tuple[int, int] | Sequence[tuple[int, int] | None] | None = None,
        num_images_per_prompt: int = 1,
        seed: int | Sequence[int] = 0,
        use_vision: bool = True,
        use_tokens: bool = True,
        use_latents: bool = True,
        think: ThinkOptions | None = None,
        latents: Float[np.ndarray, "b rows cols c"] | None = None,
        output_type: OutputType = "pil",
        batch_size: int = 16,
        progress: Progress | None = None,
        callback_on_step_end: StepCallback | None = None,
        **options: Any,
    ) -> TextToImageOutput:
        """Draws ``num_images_per_prompt`` edits for every instruction; the rest as in text to image.

        Args:
          image: the references.  For one instruction (a string) a picture or a list of pictures; for a list of
            instructions one picture that all share, or a list with a picture or a list of pictures for each.
          prompt: one instruction or several.
          height, width: pixels; a side that is not given is that of a reference, made to fit the model.
          size_from: which reference that is, the ``first`` or, as released, the ``last``.
          use_vision: the decoder sees the references through the vision tower.
          use_tokens: it sees their MammothTok tokens.
          use_latents: the diffusion transformer sees their VAE latents.
          think: write about the edit first; the references are seen while writing, too.
          options: fields of ``TextToImageOptions``; ``image_guidance_scale`` weighs the latents (1 is none).

        With all three channels off this is text to image.

        Raises:
          InputError: a bad size, option or prompt, no or too many references, or a part that the checkpoint lacks.
        """
        settings = parse_options(options, self.loaded.settings.drawing)
        references = self._references(image, prompt)
        if size_from not in ("first", "last"):
            raise InputError(f"size_from {size_from!r}: expected 'first' or 'last'")
        sizes = [self._size(row[0 if size_from == "first" else -1]) for row in references]
        requests = self.drawing.requests(
            prompt,
            [size[0] for size in sizes] if height is None else height,
            [size[1] for size in sizes] if width is None else width,
            grid,
            num_images_per_prompt,
            seed,
        )
        channels = Channels(use_vision, use_tokens, use_latents and settings.mode != "ar")
        require_mode(self.loaded.model, "edit", settings.mode)
        channels.require(self.loaded.model)
        requests = self._with_references(requests, references, channels, progress)
        if think is not None:
            requests = with_reasoning(self.loaded, requests, think, batch_size=batch_size, progress=progress)
        return self.drawing.draw(
            requests,
            settings,
            latents,
            output_type=output_type,
            batch_size=batch_size,
            progress=progress,
            callback_on_step_end=callback_on_step_end,
        )

    def _references(self, image: Images, prompt: str | Sequence[str]) -> list[list[Image.Image]]:
        """The pictures of each instruction."""
        count = 1 if isinstance(prompt, str) else len(prompt)
        if isinstance(image, Image.Image):
            rows = [[image]] * count
        elif isinstance(prompt, str) and all(isinstance(item, Image.Image) for item in image):
            rows = [[item for item in image if isinstance(item, Image.Image)]]
        else:
            rows = [[item] if isinstance(item, Image.Image) else list(item) for item in image]
        if len(rows) != count:
            raise InputError(
                f"image: references for {len(rows)} prompts, but there are {count}; give one list each"
            )
        most = self.loaded.config.dit.max_references
        for number, row in enumerate(rows):
            if not row:
                raise InputError(
                    f"no reference picture for prompt {number}: give at least one, or use text to image"
                )
            if len(row) > most:
                raise InputError(
                    f"{len(row)} reference pictures for prompt {number}: at most {most} fit this model; leave some out"
                )
        return rows

    def _size(self, picture: Image.Image) -> tuple[int, int]:
        """Height and width of the edit of a picture: whole patches and whole visual tokens."""
        return self.loaded.config.picture_rules.drawn_size(picture.height, picture.width)

    def _with_references(
        self,
        requests: list[PictureRequest],
        references: list[list[Image.Image]],
        channels: Channels,
        progress: Progress | None,
    ) -> list[PictureRequest]:
        """The requests with their references, each picture read once."""
        if channels == Channels(False, False, False):
            return requests
        pictures = {id(picture): picture for row in references for picture in row}
        known = {}
        with jax.set_mesh(self.loaded.mesh):
            for key, picture in pictures.items():
                if progress is not None:
                    progress("reading references", len(known), len(pictures))
                known[key] = read_reference(self.loaded, picture, channels)
        if progress is not None:
            progress("reading references", len(known), len(pictures))
        rows = [tuple(known[id(picture)] for picture in row) for row in references]
        each = len(requests) // len(rows)
        return [dataclasses.replace(r, references=rows[i // each]) for i, r in enumerate(requests)]
