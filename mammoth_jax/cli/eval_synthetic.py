"""``eval synthetic``: the small world's own benchmark, which is also scored."""

import argparse
import dataclasses
import json
import os
from typing import TYPE_CHECKING

from mammoth_jax.cli import evaluating
from mammoth_jax.cli.argument_types import positive
from mammoth_jax.cli.drawing import add_picture_options
from mammoth_jax.cli.edit import add_reference_options

if TYPE_CHECKING:
    from mammoth_jax.core.progress import Progress
    from mammoth_jax.evals.synthetic.evaluate import Evaluation, Means
    from mammoth_jax.pipelines.text_to_image import TextToImagePipeline

TASKS = ("drawing", "edit", "edit-caption", "question", "riddle", "riddle-think")
THINK_TOKENS, ANSWER_TOKENS = 128, 32


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declares its options."""
    asked = parser.add_argument_group("what is asked")
    asked.add_argument(
        "--count", type=positive, default=100, metavar="N", help="prompts of each kind (default 100)"
    )
    asked.add_argument(
        "--tasks",
        type=task_list,
        default=TASKS,
        metavar="A,B,...",
        help=f"of {', '.join(TASKS)} (default: all)",
    )
    asked.add_argument(
        "--answer-tokens",
        type=positive,
        default=ANSWER_TOKENS,
        metavar="N",
        help=f"most tokens of an answer (default {ANSWER_TOKENS})",
    )
    asked.add_argument(
        "--think-tokens",
        dest="riddle_tokens",
        type=positive,
        default=THINK_TOKENS,
        metavar="N",
        help=f"most tokens of a reasoning, of riddle-think (default {THINK_TOKENS})",
    )
    asked.add_argument(
        "--workers", type=positive, metavar="N", help="processes that score (default: one a processor)"
    )
    parser.set_defaults(think=False, think_tokens=None)
    add_reference_options(parser.add_argument_group("sources of edits"))
    add_picture_options(parser, 4, evaluating.BATCH)


def task_list(text: str) -> tuple[str, ...]:
    """Tasks with commas between them."""
    names = tuple(text.split(","))
    for one in names:
        if one not in TASKS:
            raise argparse.ArgumentTypeError(f"{one!r} is none of {', '.join(TASKS)}")
    return names


def evaluate(args: argparse.Namespace) -> None:
    """Draws, answers and scores."""
    from mammoth_jax.core.progress import ProgressLine
    from mammoth_jax.evals.run_record import finish_run, open_run
    from mammoth_jax.evals.synthetic.answers import answer_options
    from mammoth_jax.pipelines.think_then_draw import ThinkOptions

    pipeline, line = evaluating.load_pipeline(args), ProgressLine()
    what, model = evaluation(args, pipeline), means(args, pipeline, line)
    what.check(model)
    settings = evaluating.run_settings(args, pipeline) | {
        "count": args.count,
        "prompts": what.digest(),
        "think": dataclasses.asdict(ThinkOptions(args.riddle_tokens).writing(pipeline.loaded)),
        "answer": dataclasses.asdict(answer_options(args.answer_tokens).resolved(pipeline.loaded)),
    }
    open_run(args.out, settings, evaluating.session_settings(args) | {"tasks": what.tasks}, what.files())
    scores = what.run(model, heading(settings), line)
    finish_run(args.out, {"scores": scores})
    print(json.dumps(scores) if args.json else (args.out / "scores.md").read_text(encoding="utf-8"))


def evaluation(args: argparse.Namespace, pipeline: "TextToImagePipeline") -> "Evaluation":
    """What the options ask for."""
    from mammoth_jax.evals.synthetic.evaluate import Evaluation
    from mammoth_jax.evals.synthetic.samples import TASKS as KNOWN

    side = pipeline.loaded.config.picture_size
    size = (side, side) if args.size is None else (args.size[1], args.size[0])
    return Evaluation(
        args.out,
        tuple(task for task in KNOWN if task in args.tasks),
        args.count,
        args.num_images,
        args.seed,
        size,
        args.batch,
        args.workers or os.cpu_count() or 1,
    )


def means(args: argparse.Namespace, pipeline: "TextToImagePipeline", progress: "Progress") -> "Means":
    """The model as the options say.

    Raises:
      InputError: it lacks what questions need.
    """
    from mammoth_jax.evals.synthetic.answers import ChatAnswer
    from mammoth_jax.evals.synthetic.evaluate import Means
    from mammoth_jax.evals.synthetic.reconstructions import reconstructions
    from mammoth_jax.pipelines.chat import ChatPipeline
    from mammoth_jax.pipelines.think_then_draw import ThinkOptions

    draw = evaluating.make_draw(args, pipeline, progress)
    if "question" in args.tasks:
        pipeline.loaded.model.require("questions about pictures", "text_decoder", "vision_tower")
    think = dataclasses.replace(draw, think=ThinkOptions(args.riddle_tokens))
    answer = ChatAnswer(ChatPipeline(pipeline.loaded), args.answer_tokens, args.batch)
    return Means(draw, think, answer, reconstructions(pipeline.loaded, args.batch))


def heading(settings: dict) -> str:
    """The first lines of the table: which model, drawn how."""
    model = settings.get("model") or f"preset {settings['preset']}"
    return (
        f"# {model}\n\n{settings['count']} prompts of each kind, half of them Chinese, {settings['num_images']} images "
        f"each; mode {settings['mode']}, {settings['num_inference_steps']} steps, guidance "
        f"{settings['guidance_scale']}, of visual tokens {settings['ar_guidance_scale']}, seed {settings['seed']}. "
        "In per cent; `run.json` has all settings."
    )
