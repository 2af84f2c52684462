"""Drawing a benchmark's requests with the pipelines, in few compiled shapes."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from PIL import Image

from mammoth_jax.core.progress import Progress
from mammoth_jax.evals.jobs import Drawn, Request
from mammoth_jax.pipelines.batching import PictureRequest
from mammoth_jax.pipelines.options import Picture, TextToImageOptions, require_mode
from mammoth_jax.pipelines.references import Channels, read_reference
from mammoth_jax.pipelines.text_to_image import TextToImagePipeline
from mammoth_jax.pipelines.think_then_draw import ThinkOptions, require_thinking, with_reasoning

MOST_SOURCE_PIXELS = 2**25
"""Pictures to edit that are held at once: their patches take about 30 bytes a pixel."""

BATCHES_THOUGHT = 8
"""Batches whose reasoning is written before the first of them is drawn."""


@dataclasses.dataclass(frozen=True)
class PipelineDraw:
    """Draws requests; all that are held at once are planned together, so that few programs are compiled.

    Attributes:
        pipeline: the model; what it has drawn before it draws in the same shapes.
        options: how to draw.
        describe: everything that decided a picture, for its file.
        size: height and width in pixels; None for the model's own, and for an edit that of its source.
        grid: columns and rows of visual tokens; None for as many as the size takes.
        channels: in which forms a source is seen.
        think: how to reason before drawing, if at all.
        batch_size: pictures a launch, at most.
        progress: where sources that are read and the stages of what is compiled are reported; pictures are not.
    """

    pipeline: TextToImagePipeline
    options: TextToImageOptions
    describe: Callable[[Picture], Mapping[str, Any]]
    size: tuple[int, int] | None = None
    grid: tuple[int, int] | None = None
    channels: Channels = Channels()
    think: ThinkOptions | None = None
    batch_size: int = 16
    progress: Progress | None = None

    def check(self, requests: Sequence[Request]) -> None:
        """See :class:`mammoth_jax.evals.jobs.Draw`.

        Raises:
          InputError: a bad size or seed, or a part that the model lacks.
        """
        loaded = self.pipeline.loaded
        require_mode(loaded.model, "text to image", self.options.mode)
        if self.think is not None:
            require_thinking(loaded.model)
        by_source = self.size is None and any(request.source is not None for request in requests)
        if any(request.source is not None for request in requests):
            self._channels().require(loaded.model)
        height, width = self.size or (None, None)
        grid = None if by_source else self.grid  # it has to fit sizes that nobody knows yet
        prompts, seeds = ([getattr(request, name) for request in requests] for name in ("prompt", "seed"))
        self.pipeline.requests(prompts, height, width, grid, 1, seeds)

    def __call__(self, requests: Sequence[Request]) -> Iterator[tuple[int, Drawn]]:
        """See :class:`mammoth_jax.evals.jobs.Draw`.

        Raises:
          InputError: a bad size, option, prompt or source, or a part that the model lacks.
        """
        first = 0
        while first < len(requests):
            group, sources = self._held_at_once(requests[first:])
            yield from self._draw(group, sources, first)
            first += len(group)

    def _held_at_once(self, requests: Sequence[Request]) -> tuple[Sequence[Request], dict[str, Image.Image]]:
        """As many of the next requests as are planned together, and their sources, opened."""
        if self.think is not None:
            requests = requests[: BATCHES_THOUGHT * self.batch_size]
        sources: dict[str, Image.Image] = {}
        pixels = 0
        for number, request in enumerate(requests):
            if request.source is None or request.source.name in sources:
                continue
            if pixels >= MOST_SOURCE_PIXELS:
                return requests[:number], sources
            picture = request.source.open()
            sources[request.source.name] = picture
            pixels += picture.width * picture.height
        return requests, sources

    def _draw(
        self, requests: Sequence[Request], sources: Mapping[str, Image.Image], first: int
    ) -> Iterator[tuple[int, Drawn]]:
        wanted = self._requests(requests, sources)
        if self.think is not None:
            wanted = with_reasoning(
                self.pipeline.loaded,
                wanted,
                self.think,
                batch_size=self.batch_size,
                progress=self.progress,
            )
        for bucket in self.pipeline.plan(wanted, self.options, self.batch_size).buckets:
            for numbers in bucket.launches:
                group = [wanted[number] for number in numbers]
                new = bucket.shape not in self.pipeline.known  # compiled now, which takes its time
                pictures = self.pipeline.generate(
                    group, self.options, shape=bucket.shape, progress=self.progress if new else None
                )
                for number, picture in zip(numbers, pictures, strict=True):
                    yield first + number, self._drawn(picture)

    def _requests(
        self, requests: Sequence[Request], sources: Mapping[str, Image.Image]
    ) -> list[PictureRequest]:
        """Each as the pipeline takes it; every source is read once."""
        loaded = self.pipeline.loaded
        references, channels = {}, self._channels()
        with jax.set_mesh(loaded.mesh):
            for name, picture in sources.items():
                references[name] = read_reference(loaded, picture, channels)
                if self.progress is not None:
                    self.progress("reading sources", len(references), len(sources))
        sizes = [self._size(request, sources) for request in requests]
        wanted = self.pipeline.requests(
            [request.prompt for request in requests],
            [height for height, _ in sizes],
            [width for _, width in sizes],
            self.grid,
            1,
            [request.seed for request in requests],
        )
        return [
            one
            if request.source is None or channels == Channels(False, False, False)
            else dataclasses.replace(one, references=(references[request.source.name],))
            for one, request in zip(wanted, requests, strict=True)
        ]

    def _channels(self) -> Channels:
        """Those that are used: visual tokens alone need no latents."""
        return dataclasses.replace(
            self.channels, latents=self.channels.latents and self.options.mode != "ar"
        )

    def _size(self, request: Request, sources: Mapping[str, Image.Image]) -> tuple[int, int]:
        """Height and width."""
        config = self.pipeline.loaded.config
        if self.size is not None:
            return self.size
        if request.source is None:
            return config.picture_size, config.picture_size
        source = sources[request.source.name]
        return config.picture_rules.drawn_size(source.height, source.width)

    def _drawn(self, picture: Picture) -> Drawn:
        reasoning, settings = picture.request.reasoning, dict(self.describe(picture))
        if reasoning is not None:
            settings |= {"reasoning": reasoning.text, "reasoning_ended_by": reasoning.ended_by}
        return Drawn(Image.fromarray(picture.pixels), settings, None if reasoning is None else reasoning.text)
