"""Ask about pictures and videos, or just talk.

With QUESTION one answer is written to the terminal as it comes.  Without, lines are read until the end of the input;
pictures and videos are shown with the first of them, and earlier turns stay in the cache.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammoth_jax.cli.argument_types import positive
from mammoth_jax.cli.model_options import (
    DEFAULT_PRESET,
    LOOP_SETTINGS,
    add_loop_options,
    add_model_options,
    announce_default,
)
from mammoth_jax.core.errors import InputError

if TYPE_CHECKING:
    from mammoth_jax.pipelines.chat_session import ChatSession

SETTINGS = ("max_new_tokens", "temperature", "top_k", "top_p", "repetition_penalty", "seed", *LOOP_SETTINGS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("question", nargs="?", metavar="QUESTION")
    for name in ("image", "video"):
        parser.add_argument(
            f"--{name}",
            dest=f"{name}s",
            action="append",
            default=[],
            type=Path,
            metavar="F",
            help="shown with the first question; may be given several times",
        )
    answer = parser.add_argument_group("answer (by default the checkpoint's settings)")
    answer.add_argument("--max-new-tokens", type=positive, metavar="N", help="most tokens (else 512)")
    answer.add_argument("--temperature", type=float, metavar="T", help="0 takes the best token (else 0)")
    answer.add_argument("--top-k", type=int, metavar="K", help="draw from the K best tokens; 0 is off")
    answer.add_argument("--top-p", type=float, metavar="P", help="draw from this much probability; 1 is off")
    answer.add_argument(
        "--repetition-penalty", type=float, metavar="R", help="above 1 avoids tokens that occurred; 1 is off"
    )
    answer.add_argument("--seed", type=int, metavar="S", help="of the first answer (default 0)")
    add_loop_options(answer)
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Answers the question, or all lines of the input; a line that is refused leaves the conversation as it was."""
    from mammoth_jax.core.compilation_cache import enable_compilation_cache
    from mammoth_jax.core.precision import matmul_precision

    announce_default(args)
    options = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
    enable_compilation_cache()
    session = load_session(args)
    shown, status = {"images": args.images, "videos": args.videos}, 0
    with matmul_precision(args.precision):
        for question in questions(args):
            try:
                _answer(session, question, {**options, **shown}, as_json=args.json)
            except InputError as error:
                if args.question is not None:
                    raise
                print(error, file=sys.stderr, flush=True)
                status = 2
                continue
            shown = {}
            options["seed"] = options.get("seed", 0) + 1
    return status


def questions(args: argparse.Namespace) -> Iterator[str]:
    """The question of the command line, or each line of the input that is not blank."""
    if args.question is not None:
        yield args.question
        return
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(prompt).strip()
        except EOFError:
            return
        if line:
            yield line


def load_session(args: argparse.Namespace) -> "ChatSession":
    """A conversation with the model that the options name, on their mesh."""
    from mammoth_jax.core.mesh import make_mesh, parse_mesh, single_device_mesh
    from mammoth_jax.core.precision import parse_dtype
    from mammoth_jax.pipelines.chat import NEEDED_PARTS, ChatPipeline
    from mammoth_jax.pipelines.chat_session import ChatSession

    mesh = single_device_mesh() if args.mesh is None else make_mesh(parse_mesh(args.mesh))
    dtype = parse_dtype(args.dtype)
    if args.model is not None:
        return ChatSession(
            ChatPipeline.from_pretrained(
                args.model, dtype=dtype, mesh=mesh, parts=NEEDED_PARTS, lora=args.lora
            )
        )
    preset = args.preset or DEFAULT_PRESET
    return ChatSession(ChatPipeline.from_preset(preset, dtype=dtype, mesh=mesh, lora=args.lora))


def _answer(session: "ChatSession", question: str, options: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        answer = session.ask(question, **options)
        print(json.dumps({"question": question, "answer": answer}, ensure_ascii=False), flush=True)
        return
    for piece in session.stream(question, **options):
        print(piece, end="", flush=True)
    print(flush=True)
