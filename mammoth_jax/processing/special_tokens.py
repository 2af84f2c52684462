"""Special tokens by name: their order in the two released families, their ids, and files for a new checkpoint.

Ids of a released vocabulary, with ``R`` BPE ranks and generation ids from ``gen_vocab_start`` on::

    0 .. R-1                text (byte pair encoding)
    R ..                    <|endoftext|> <|im_start|> <|im_end|>, the backbone's own specials,
                            up to 181 <|extra_i|>, then <|extra_margin_i|> as padding
    gen_vocab_start ..      <|endofline|> <|endoffile|> <|gen_placeholder|> <|useless token|> <|beginoftext|>,
                            then the lines of the vision token file: image token, image start, image end,
                            <|visual token 000000|> and so on

Code asks for ids by these names; no id is written down anywhere else.
"""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mammoth_jax.core.errors import InputError

RANKS_FILE = "mammothu.tiktoken"
VISION_TOKENS_FILE = "mammothu_vision_tokens.txt"

END_OF_TEXT = "<|endoftext|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
CHAT_SPECIALS = (END_OF_TEXT, IM_START, IM_END)

VISION_START = "<|vision_start|>"
VISION_END = "<|vision_end|>"
VISION_PAD = "<|vision_pad|>"
IMAGE_PAD = "<|image_pad|>"
VIDEO_PAD = "<|video_pad|>"
THINK_START = "<think>"
THINK_END = "</think>"

QWEN25VL_SPECIALS = (
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    VISION_START,
    VISION_END,
    VISION_PAD,
    IMAGE_PAD,
    VIDEO_PAD,
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
)
QWEN3VL_SPECIALS = (*QWEN25VL_SPECIALS, "<tool_response>", "</tool_response>", THINK_START, THINK_END)
FAMILY_SPECIALS: Mapping[str, tuple[str, ...]] = {"qwen3vl": QWEN3VL_SPECIALS, "qwen25vl": QWEN25VL_SPECIALS}
"""The backbone's own special tokens, in the order of their ids."""

END_OF_LINE = "<|endofline|>"
END_OF_FILE = "<|endoffile|>"
GEN_PLACEHOLDER = "<|gen_placeholder|>"
BEGIN_OF_TEXT = "<|beginoftext|>"
GENERATION_SPECIALS = (END_OF_LINE, END_OF_FILE, GEN_PLACEHOLDER, "<|useless token|>", BEGIN_OF_TEXT)

IMAGE_TOKEN = "<|image token|>"
IMAGE_START = "<|image start|>"
IMAGE_END = "<|image end|>"
IMAGE_SPECIALS = (IMAGE_TOKEN, IMAGE_START, IMAGE_END)

BOS_TOKEN = BEGIN_OF_TEXT
EOS_TOKEN = END_OF_TEXT
PAD_TOKEN = END_OF_TEXT

EXCLUDED_FROM_TEXT_CONDITION = (IMAGE_PAD, VIDEO_PAD, VISION_START, VISION_END)
"""Understanding tokens whose features never condition the diffusion transformer."""

MAX_EXTRAS = 181
RELEASED_RANKS = 151_643
RELEASED_GEN_VOCAB_START = 152_064

_VISUAL_TOKEN = re.compile(r"<\|visual token ([0-9]{6,})\|>")


def visual_token(code: int) -> str:
    """Name of the token of codebook entry ``code``."""
    return f"<|visual token {code:0>6d}|>"


def visual_code(name: str) -> int | None:
    """The codebook entry that a token name stands for; None if it is no visual token."""
    match = _VISUAL_TOKEN.fullmatch(name)
    return int(match.group(1)) if match else None


def vision_token_lines(num_codes: int) -> list[str]:
    """Lines of a vision token file for ``num_codes`` codebook entries."""
    return [*IMAGE_SPECIALS, *(visual_token(code) for code in range(num_codes))]


def extra_counts(family: str, num_ranks: int, gen_vocab_start: int) -> tuple[int, int]:
    """Numbers of ``<|extra_i|>`` and of ``<|extra_margin_i|>`` that fill the ids up to ``gen_vocab_start``.

    Raises InputError for an unknown family and where the named specials alone pass ``gen_vocab_start``.
    """
    if family not in FAMILY_SPECIALS:
        raise InputError(f"tokenizer family {family!r}: expected one of {', '.join(FAMILY_SPECIALS)}")
    named = len(CHAT_SPECIALS) + len(FAMILY_SPECIALS[family])
    padding = gen_vocab_start - num_ranks - named
    if padding < 0:
        raise InputError(
            f"gen_vocab_start_index {gen_vocab_start}: {num_ranks} BPE ranks and {named} special tokens need at least "
            f"{num_ranks + named} ids before it; use the gen_vocab_start_index of this tokenizer's own config.json"
        )
    extras = min(MAX_EXTRAS, padding)
    return extras, padding - extras


def special_token_ids(
    family: str, num_ranks: int, gen_vocab_start: int, vision_tokens: Sequence[str] = ()
) -> dict[str, int]:
    """Every special token's id, in the order of ids.

    Args:
        family: "qwen3vl" or "qwen25vl".
        num_ranks: number of BPE ranks, which is the first special id.
        gen_vocab_start: id of ``<|endofline|>``, the first generation id.
        vision_tokens: lines of the vision token file; their ids follow the generation tokens.

    Raises InputError on a name that occurs twice, and as ``extra_counts`` does.
    """
    extras, margins = extra_counts(family, num_ranks, gen_vocab_start)
    names = [
        *CHAT_SPECIALS,
        *FAMILY_SPECIALS[family],
        *(f"<|extra_{i}|>" for i in range(extras)),
        *(f"<|extra_margin_{i}|>" for i in range(margins)),
        *GENERATION_SPECIALS,
        *vision_tokens,
    ]
    ids = {name: num_ranks + i for i, name in enumerate(names)}
    if len(ids) != len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))
        raise InputError(f"special token {twice!r} is listed twice; remove it from {VISION_TOKENS_FILE}")
    return ids


def num_text_ranks(family: str, image_pad: int) -> int:
    """How many BPE ranks precede the special tokens of a vocabulary in which ``<|image_pad|>`` is ``image_pad``.

    Raises InputError for fewer than the 256 bytes.
    """
    before = (*CHAT_SPECIALS, *FAMILY_SPECIALS[family]).index(IMAGE_PAD)
    if image_pad - before < 256:
        raise InputError(
            f"image_token_id {image_pad} leaves {image_pad - before} ids for text; give at least {256 + before}, as "
            "256 bytes and the chat's special tokens precede it"
        )
    return image_pad - before


def byte_ranks() -> dict[bytes, int]:
    """The smallest vocabulary that can write any text: the 256 single bytes."""
    return {bytes([value]): value for value in range(256)}


def write_tokenizer_files(folder: Path, ranks: Mapping[bytes, int], vision_tokens: Iterable[str]) -> None:
    """Write the two tokenizer files of a released folder.

    Args:
        folder: existing folder.
        ranks: byte sequence to rank.
        vision_tokens: lines of the vision token file, as from ``vision_token_lines``.
    """
    lines = (
        f"{base64.b64encode(token).decode()} {rank}\n"
        for token, rank in sorted(ranks.items(), key=lambda r: r[1])
    )
    (folder / RANKS_FILE).write_text("".join(lines), encoding="utf-8", newline="\n")
    (folder / VISION_TOKENS_FILE).write_text(
        "".join(f"{t}\n" for t in vision_tokens), encoding="utf-8", newline="\n"
    )
