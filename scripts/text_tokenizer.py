"""Learns a text vocabulary from the synthetic world and writes the tokenizer's files, for training from nothing.

The folder goes into a configuration as ``frozen.words``.  There are as many ranks as the preset's ids leave room for.
They are learned from texts as the model reads them, with the roles and system turns of the prompts' layouts: spelled,
these would be a third of what a model of so small pictures reads.

    python scripts/text_tokenizer.py --preset nano --out runs/words --drawing negative_prompt= num_inference_steps=25

``--drawing`` gives the model options of its own (``processing/generation_config.py``): what its pictures are drawn with
unless a command says otherwise, and the negative prompt that it is trained with.  ``--temperature`` is that of its
visual tokens.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from checkpoint_convert.init_checkpoint import write_tokenizer
from checkpoint_convert.new_folder import new_folder
from mammoth_jax.core.errors import InputError
from mammoth_jax.data.synthetic.texts import vocabulary_corpus
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.processing.generation_config import DRAWING_OPTIONS
from mammoth_jax.processing.prompts import layout_texts
from mammoth_jax.processing.special_tokens import num_text_ranks
from mammoth_jax.processing.tokenizer import Tokenizer
from mammoth_jax.processing.train_tokenizer import train_ranks


def drawing_options(words: Sequence[str]) -> dict[str, str | int | float]:
    """Options by name.

    Raises:
      ValueError: a word that is no option, or a value of another kind.
    """
    out: dict[str, str | int | float] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in DRAWING_OPTIONS:
            raise ValueError(f"{word!r} is no option")
        out[name] = DRAWING_OPTIONS[name](value)
    return out


def texts_in_layouts(count: int) -> Iterator[str]:
    """``count`` texts of train, each with what stands around one."""
    around = layout_texts()
    for text in vocabulary_corpus("train", count):
        yield text
        yield from around


def main() -> None:
    """Writes the folder and says how long texts are with it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--preset", default="nano", help="whose ids (default: nano)")
    parser.add_argument("--texts", type=int, default=4000, help="to learn from (4000)")
    options = ", ".join(DRAWING_OPTIONS)
    parser.add_argument(
        "--drawing", nargs="+", default=(), metavar="NAME=VALUE", help=f"{options} (default: the release's)"
    )
    parser.add_argument("--temperature", type=float, default=1.0, help="of its visual tokens (1)")
    args = parser.parse_args()
    try:
        own = drawing_options(args.drawing)
    except ValueError as error:
        parser.error(f"--drawing: {error}; expected NAME=VALUE with {options}")
    if not 0 < args.temperature < math.inf:
        parser.error(f"--temperature {args.temperature}: expected more than 0")
    if args.out.exists():
        parser.error(f"--out {args.out} is there already; expected a new folder")
    try:
        config = MammothConfig.from_preset(args.preset)
        backbone = config.backbone
        count = num_text_ranks(backbone.tokenizer_family, backbone.image_token_id)
        ranks = train_ranks(texts_in_layouts(args.texts), count)
        with new_folder(args.out) as folder:
            write_tokenizer(folder, config, ranks, own, args.temperature)
    except InputError as error:
        parser.error(str(error))
    tokenizer = Tokenizer.from_folder(
        args.out, family=backbone.tokenizer_family, gen_vocab_start=backbone.decoder.gen_vocab_start_index
    )
    lengths = [len(tokenizer.encode(text)) for text in vocabulary_corpus("heldout", 1000)]
    print(
        f"{count} ranks; a text has {sum(lengths) / len(lengths):.1f} tokens on average, {max(lengths)} at most"
    )


if __name__ == "__main__":
    main()
