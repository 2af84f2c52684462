"""What the commands that draw pictures share: their options, the pipeline, the files that they write."""

import argparse
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mammoth_jax.cli.argument_types import fraction_range, positive, size
from mammoth_jax.cli.model_options import (
    DEFAULT_PRESET,
    LOOP_SETTINGS,
    add_loop_options,
    announce_default,
    model_source,
)

if TYPE_CHECKING:
    from mammoth_jax.core.progress import Progress, ProgressLine
    from mammoth_jax.pipelines.edit import EditPipeline
    from mammoth_jax.pipelines.options import Picture
    from mammoth_jax.pipelines.text_to_image import TextToImagePipeline
    from mammoth_jax.pipelines.think_then_draw import ThinkOptions

Pipeline = TypeVar("Pipeline", "TextToImagePipeline", "EditPipeline")

SETTINGS = {
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "image_guidance": "image_guidance_scale",
    "ar_guidance": "ar_guidance_scale",
    "negative_prompt": "negative_prompt",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "cfg_range": "cfg_range",
    "solver": "solver",
    "step_cache": "step_cache",
    **{name: name for name in LOOP_SETTINGS},
    "mode": "mode",
}
"""Options that go to the pipeline as they are, under its names; those not given keep the checkpoint's defaults."""


def add_drawing_options(parser: argparse.ArgumentParser, num_images: int = 1, batch: int = 8) -> None:
    """Declares the options of a picture, its diffusion and its visual tokens, and of thinking before it."""
    add_picture_options(parser, num_images, batch)
    thinking = parser.add_argument_group("thinking")
    thinking.add_argument(
        "--think",
        action="store_true",
        help="write about the picture first, draw it from prompt and reasoning, and save the reasoning as PPPP_II.txt",
    )
    thinking.add_argument(
        "--think-tokens",
        type=positive,
        metavar="N",
        help="most tokens of the reasoning (default 512); it implies --think",
    )


def add_picture_options(parser: argparse.ArgumentParser, num_images: int, batch: int) -> None:
    """Declares the same without thinking."""
    picture = parser.add_argument_group("picture")
    picture.add_argument("--size", type=size, metavar="WxH", help="in pixels (default: the model's)")
    picture.add_argument("--grid", type=size, metavar="WxH", help="visual tokens (default: by the size)")
    picture.add_argument(
        "--num-images",
        type=positive,
        default=num_images,
        metavar="N",
        help=f"of each prompt (default {num_images})",
    )
    picture.add_argument(
        "--batch", type=positive, default=batch, metavar="N", help=f"most pictures at once (default {batch})"
    )
    picture.add_argument("--seed", type=int, default=0, metavar="S", help="of the first image (default 0)")
    picture.add_argument(
        "--mode",
        choices=("ar+diffusion", "diffusion", "ar"),
        help="visual tokens then diffusion, diffusion from the text alone, or visual tokens alone",
    )
    diffusion = parser.add_argument_group("diffusion")
    diffusion.add_argument("--steps", type=positive, metavar="N")
    diffusion.add_argument("--guidance", type=float, metavar="G", help="weight of the text; 1 is none")
    diffusion.add_argument("--negative-prompt", metavar="T")
    diffusion.add_argument(
        "--cfg-range",
        type=fraction_range,
        metavar="A,B",
        help="fraction of the steps that are guided, e.g. 0,0.8",
    )
    diffusion.add_argument("--solver", choices=("euler", "heun", "dpmpp2m"))
    diffusion.add_argument(
        "--step-cache",
        type=float,
        metavar="T",
        help="reuse a step's result while the input changes by less, e.g. 0.1; inexact (default 0: off)",
    )
    tokens = parser.add_argument_group("visual tokens")
    tokens.add_argument("--ar-guidance", type=float, metavar="G", help="weight of the text; 1 is none")
    tokens.add_argument("--temperature", type=float, metavar="T")
    tokens.add_argument("--top-k", type=int, metavar="K")
    tokens.add_argument("--top-p", type=float, metavar="P")
    add_loop_options(tokens)


def draw_all(
    args: argparse.Namespace,
    prompts: Sequence[str],
    load_pipeline: Callable[[], Any],
    *,
    arguments: Callable[[int], Mapping[str, Any]] = lambda count: {},
    own: Mapping[str, Any] | None = None,
) -> int:
    """Draws pictures of all prompts with the pipeline that ``load_pipeline`` loads, and writes them as they are done.

    ``arguments`` are a command's arguments of the pipeline for a batch of so many prompts besides the common ones, and
    ``own`` the settings that its records hold besides the common ones.
    """
    from mammoth_jax.core.compilation_cache import enable_compilation_cache
    from mammoth_jax.core.files import prepare_output_folder, write_whole
    from mammoth_jax.core.png import write_png
    from mammoth_jax.core.precision import matmul_precision
    from mammoth_jax.core.progress import ProgressLine

    prepare_output_folder(args.out)
    announce_default(args)
    enable_compilation_cache()
    pipeline = load_pipeline()
    line, total = ProgressLine(), len(prompts) * args.num_images
    records: list[dict[str, Any]] = []
    with matmul_precision(args.precision):
        for start, group in batches(prompts, max(1, args.batch // args.num_images)):
            result = pipeline(
                prompt=group,
                **arguments(len(group)),
                **pipeline_options(args),
                progress=_over_batches(line, len(records), total),
            )
            for number, (image, picture) in enumerate(zip(result.images, result.pictures, strict=True)):
                prompt, index = divmod(number, args.num_images)
                name = f"{start + prompt:04d}_{index:02d}.png"
                record = {"file": name, **picture_settings(args, pipeline, picture), **(own or {})}
                record |= model_settings(args)
                if (reasoning := picture.request.reasoning) is not None:
                    record |= {"reasoning": reasoning.text, "reasoning_ended_by": reasoning.ended_by}
                    write_whole(
                        args.out / reasoning_file(name), functools.partial(write_text, text=reasoning.text)
                    )
                write_png(image, args.out / name, record)
                records.append(record)
                print(json.dumps(record) if args.json else args.out / name, flush=True)
            lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
            write_whole(args.out / "images.jsonl", functools.partial(write_text, text=lines))
    return 0


def _over_batches(line: "ProgressLine", drawn: int, pictures: int) -> "Progress":
    """The progress of one batch, its pictures counted among all."""

    def report(stage: str, done: int, total: int) -> None:
        line(stage, *((drawn + done, pictures) if stage == "drawing" else (done, total)))

    return report


def load(args: argparse.Namespace, kind: type[Pipeline]) -> Pipeline:
    """A pipeline over the model that the options name, on their mesh."""
    from mammoth_jax.core.mesh import make_mesh, parse_mesh, single_device_mesh
    from mammoth_jax.core.precision import parse_dtype

    mesh = single_device_mesh() if args.mesh is None else make_mesh(parse_mesh(args.mesh))
    dtype = parse_dtype(args.dtype)
    if args.model is not None:
        return kind.from_pretrained(args.model, dtype=dtype, mesh=mesh, lora=args.lora)
    return kind.from_preset(args.preset or DEFAULT_PRESET, dtype=dtype, mesh=mesh, lora=args.lora)


def pipeline_options(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of the pipeline."""
    options = drawing_options(args)
    if args.size is not None:
        options["width"], options["height"] = args.size
    if args.grid is not None:
        options["grid"] = args.grid
    if args.think or args.think_tokens is not None:
        options["think"] = think_options(args)
    count = {"num_images_per_prompt": args.num_images, "batch_size": args.batch}
    return {**options, **count, "seed": args.seed, "output_type": "pil"}


def think_options(args: argparse.Namespace) -> "ThinkOptions":
    """How to reason before drawing."""
    from mammoth_jax.pipelines.think_then_draw import ThinkOptions

    return ThinkOptions() if args.think_tokens is None else ThinkOptions(max_new_tokens=args.think_tokens)


def reasoning_file(picture: str) -> str:
    """The name of the text beside a picture."""
    return str(Path(picture).with_suffix(".txt"))


def drawing_options(args: argparse.Namespace) -> dict[str, Any]:
    """Those of :data:`SETTINGS` that were given, under the pipeline's names."""
    given = {keyword: getattr(args, name, None) for name, keyword in SETTINGS.items()}
    return {keyword: value for keyword, value in given.items() if value is not None}


def picture_settings(args: argparse.Namespace, pipeline: Any, picture: "Picture") -> dict[str, Any]:
    """Everything that decided one picture, the checkpoint's own settings included."""
    options, request = resolved_options(args, pipeline), picture.request
    if not request.references:
        del options["image_guidance_scale"]
    (height, width), (rows, cols) = request.size.pixels, request.size.tokens
    size = {"width": width, "height": height, "grid": [cols, rows]}
    return {"prompt": request.prompt, "seed": request.seed, **size, **options}


def resolved_options(args: argparse.Namespace, pipeline: Any) -> dict[str, Any]:
    """How to draw, with the checkpoint's own settings where nothing is given."""
    from mammoth_jax.pipelines.options import parse_options

    own = pipeline.loaded.settings
    options = dataclasses.asdict(parse_options(drawing_options(args), own.drawing))
    del options["faults"]
    inherited = {name: getattr(own, name) for name, value in options.items() if value is None}
    if "temperature" in inherited and not own.do_sample:
        inherited["temperature"] = 0.0
    return options | inherited


def model_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What says which model drew a picture."""
    from mammoth_jax import __version__
    from mammoth_jax.core.precision import parse_dtype

    return {
        **model_source(args),
        "dtype": str(parse_dtype(args.dtype)),
        "precision": args.precision,
        "version": __version__,
    }


def batches(prompts: Sequence[str], count: int) -> Iterator[tuple[int, list[str]]]:
    """At most ``count`` prompts at a time, with the number of the first."""
    for start in range(0, len(prompts), count):
        yield start, list(prompts[start : start + count])


def write_text(file: Path, text: str) -> None:
    """Writes UTF-8 text."""
    file.write_text(text, encoding="utf-8")
