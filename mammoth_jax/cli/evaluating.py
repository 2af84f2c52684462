"""What the benchmarks of ``eval`` share: the model, how it draws, and what a run keeps of its settings."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammoth_jax.cli.drawing import (
    drawing_options,
    load,
    model_settings,
    picture_settings,
    resolved_options,
    think_options,
)
from mammoth_jax.cli.edit import CHANNELS

if TYPE_CHECKING:
    from mammoth_jax.core.progress import Progress
    from mammoth_jax.evals.pipeline_draw import PipelineDraw
    from mammoth_jax.pipelines.options import Picture
    from mammoth_jax.pipelines.text_to_image import TextToImagePipeline
    from mammoth_jax.pipelines.think_then_draw import ThinkOptions

BATCH = 16


def load_pipeline(args: argparse.Namespace) -> "TextToImagePipeline":
    """The model that the options name, on their mesh."""
    from mammoth_jax.pipelines.text_to_image import TextToImagePipeline

    return load(args, TextToImagePipeline)


def make_draw(
    args: argparse.Namespace, pipeline: "TextToImagePipeline", progress: "Progress"
) -> "PipelineDraw":
    """Draws as the options say."""
    from mammoth_jax.evals.pipeline_draw import PipelineDraw
    from mammoth_jax.pipelines.options import parse_options
    from mammoth_jax.pipelines.references import Channels

    def describe(picture: "Picture") -> dict[str, Any]:
        return picture_settings(args, pipeline, picture) | model_settings(args)

    return PipelineDraw(
        pipeline,
        parse_options(drawing_options(args), pipeline.loaded.settings.drawing),
        describe,
        size=None if args.size is None else (args.size[1], args.size[0]),
        grid=args.grid,
        channels=Channels(**{name: getattr(args, name, True) for name in CHANNELS}),
        think=thinking(args),
        batch_size=args.batch,
        progress=progress,
    )


def thinking(args: argparse.Namespace) -> "ThinkOptions | None":
    """How to reason before drawing, if at all."""
    return think_options(args) if args.think or args.think_tokens is not None else None


def run_settings(args: argparse.Namespace, pipeline: "TextToImagePipeline") -> dict[str, Any]:
    """Everything that decides the pictures of a run, the checkpoint's own settings included.

    The weights are there by what they are, too: a folder may hold others when its run goes on.
    """
    from mammoth_jax.core.parameters import fingerprint

    think = thinking(args)
    return {
        "benchmark": args.benchmark,
        "seed": args.seed,
        "num_images": args.num_images,
        "size": args.size,
        "grid": args.grid,
        "think": None if think is None else dataclasses.asdict(think.writing(pipeline.loaded)),
        **resolved_options(args, pipeline),
        **{f"use_{name}": getattr(args, name, True) for name in CHANNELS},
        **model_settings(args),
        "weights": fingerprint(pipeline.loaded.model),
    }


def session_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What may differ from one start of a run to the next."""
    return {"batch": args.batch, "mesh": args.mesh, "limit": getattr(args, "limit", None)}


def prompt_settings(prompts: Path) -> dict[str, str]:
    """A prompt file, or a folder of them, by name and content."""
    from mammoth_jax.evals.run_record import digest

    return {"name": prompts.name, "sha256": digest(prompts)}


def with_step_of_run(model: Path | None) -> Path | None:
    """A run's newest checkpoint by its number: a run that goes on must not change the pictures half way."""
    if model is None:
        return None
    from mammoth_jax.training.runs import is_run, with_step

    return Path(with_step(model)) if is_run(model) else model
