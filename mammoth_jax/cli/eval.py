"""Draw what a benchmark's own scorer reads, in its file layout; `synthetic`, the small world, is also scored.

Pictures that are in DIR are not drawn again: the same command goes on where it was stopped.  DIR/run.json keeps every
setting, and pictures of other settings are refused.  `eval BENCHMARK --help` lists a benchmark's options.
"""

import argparse
import dataclasses
import functools
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mammoth_jax.cli import eval_synthetic, evaluating
from mammoth_jax.cli.argument_types import positive
from mammoth_jax.cli.drawing import add_drawing_options
from mammoth_jax.cli.edit import CHANNELS, add_reference_options
from mammoth_jax.cli.model_options import add_model_options, announce_default
from mammoth_jax.core.errors import InputError

if TYPE_CHECKING:
    from mammoth_jax.evals.jobs import Layout


@dataclasses.dataclass(frozen=True)
class Published:
    """A benchmark whose scorer is its own: what it is, how many images it wants, and what else its layout takes."""

    summary: str
    num_images: int = 1
    edits: bool = False
    options: tuple[str, ...] = ()

    def layout(self, args: argparse.Namespace) -> "Layout":
        """What its scorer reads, from the prompt file.

        Raises:
          InputError: there is no prompt file, or it is none of the benchmark's.
        """
        module = published_module(args.benchmark)
        if args.prompts is None:
            raise InputError(f"no --prompts; give {module.SOURCE}")
        if self.num_images == 1 and args.num_images != 1:
            raise InputError(f"--num-images {args.num_images}: the scorer reads one a prompt")
        layout = module.layout(
            args.prompts, seed=args.seed, **{name: getattr(args, name) for name in self.options}
        )
        return layout if args.limit is None else layout.first(args.limit)


def published_module(benchmark: str) -> ModuleType:
    """The module of a benchmark: ``SOURCE`` of its prompts, ``SCORER``, ``layout``."""
    return importlib.import_module(f"mammoth_jax.evals.published.{benchmark}")


PUBLISHED = {
    "geneval": Published("objects, counts, colours, positions: 553 prompts", 4, options=("num_images",)),
    "dpg": Published("long prompts: 1,065", 4, options=("num_images", "size")),
    "imgedit": Published("737 edits of nine kinds", edits=True, options=("images",)),
    "gedit": Published(
        "users' edits, English and Chinese", edits=True, options=("images", "model_name", "language")
    ),
    "ueg": Published("RealUnify: drawing that takes understanding, direct"),
}
SYNTHETIC = "the small world of data/synthetic, drawn, answered and scored"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares a parser for every benchmark."""
    benchmarks = parser.add_subparsers(
        dest="benchmark", required=True, metavar="BENCHMARK", title="benchmarks"
    )
    for name, summary in {"synthetic": SYNTHETIC, **{n: b.summary for n, b in PUBLISHED.items()}}.items():
        own = benchmarks.add_parser(name, help=summary, description=f"{summary}.", allow_abbrev=False)
        own.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the pictures")
        if name in PUBLISHED:
            _add_published(own, name, PUBLISHED[name])
        else:
            eval_synthetic.add_options(own)
        add_model_options(own)


def _add_published(parser: argparse.ArgumentParser, name: str, benchmark: Published) -> None:
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE", help="the benchmark's own prompts (without: says from where)"
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="the first N files only, to try it out")
    if "images" in benchmark.options:
        parser.add_argument(
            "--images",
            type=Path,
            metavar="DIR",
            help="folder of the pictures to edit (default: the prompt file's)",
        )
    if name == "gedit":
        parser.add_argument(
            "--model-name",
            default="mammoth-jax",
            metavar="NAME",
            help="under which the scorer finds the edits (default mammoth-jax)",
        )
        parser.add_argument("--language", choices=("en", "cn"), help="of the instructions (default: both)")
    if benchmark.edits:
        add_reference_options(parser.add_argument_group("sources"))
    add_drawing_options(parser, benchmark.num_images, evaluating.BATCH)


def run(args: argparse.Namespace) -> int:
    """Draws what is missing."""
    from mammoth_jax.core.compilation_cache import enable_compilation_cache
    from mammoth_jax.core.files import prepare_output_folder
    from mammoth_jax.core.precision import matmul_precision

    args.model, args.lora = map(evaluating.with_step_of_run, (args.model, args.lora))
    if args.benchmark in PUBLISHED:
        evaluate = functools.partial(draw_published, args, PUBLISHED[args.benchmark].layout(args))
    else:
        evaluate = functools.partial(eval_synthetic.evaluate, args)
    prepare_output_folder(args.out)
    announce_default(args)
    enable_compilation_cache()
    with matmul_precision(args.precision):
        evaluate()
    return 0


def draw_published(args: argparse.Namespace, layout: "Layout") -> None:
    """Draws what is missing of a layout, and says how it was done in run.json."""
    from mammoth_jax.core.progress import ProgressLine
    from mammoth_jax.evals.jobs import write_layout
    from mammoth_jax.evals.run_record import finish_run, open_run

    benchmark = PUBLISHED[args.benchmark]
    pipeline, line = evaluating.load_pipeline(args), ProgressLine()
    draw = evaluating.make_draw(args, pipeline, line)
    draw.check([request for job in layout.jobs for request in job.requests])
    own = {name: getattr(args, name) for name in benchmark.options}
    settings = evaluating.run_settings(args, pipeline) | {
        "prompts": evaluating.prompt_settings(args.prompts),
        **{name: str(value) if isinstance(value, Path) else value for name, value in own.items()},
    }
    if not benchmark.edits:
        for name in ("image_guidance_scale", *(f"use_{channel}" for channel in CHANNELS)):
            del settings[name]
    open_run(args.out, settings, evaluating.session_settings(args), [job.file for job in layout.jobs])
    drawn = write_layout(layout, args.out, draw, line)
    if args.limit is None:
        scorer = published_module(args.benchmark).SCORER
        finish_run(args.out, {"pictures": len(layout.jobs), "scorer": scorer})
    counts = {"pictures": len(layout.jobs), "drawn_now": drawn}
    print(json.dumps(counts) if args.json else f"{args.out}: {len(layout.jobs)} pictures, {drawn} drawn now")
