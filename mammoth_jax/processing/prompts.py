"""Prompt layouts as lists of ids.

A layout is a sequence of parts: text, and special tokens by name.  Neighbouring text is encoded as one string, as it
would be between two special tokens of a chat template; special-token text inside a user's words therefore stays text.

Text to image (``W``, ``H``: columns and rows of the token grid)::

    <|im_start|>system\\nYou are a helpful image generator.<|im_end|>\\n
    <|im_start|>user\\n{prompt}<|im_end|>\\n
    <|im_start|>assistant\\n<|image start|>{W}*{H}<|image token|>      <- the answer opening

The model goes on with H rows of W visual tokens, each row closed by ``<|endofline|>``, then ``<|image end|>``.  A
reference image is written ``H*W`` and closed by ``<|endoffile|>`` and ``<|image end|>``.

With reasoning before the picture (paper: any-to-any data) another system turn asks for it, and the text that the model
wrote stands where it wrote it, between ``assistant\\n`` and ``<|image start|>``.
"""

import dataclasses
from collections.abc import Sequence

from mammoth_jax.core.errors import InputError
from mammoth_jax.processing import special_tokens as names
from mammoth_jax.processing.tokenizer import Tokenizer

SYSTEM_PROMPT = "You are a helpful image generator."
THINKING_SYSTEM_PROMPT = (
    "You are a helpful image generator. First say in words what the picture must show and why, then draw it."
)
DEFAULT_NEGATIVE_PROMPT = (
    "deformed, blurry, over saturation, bad anatomy, disfigured, poorly drawn face, mutation, mutated, extra_limb, "
    "ugly, poorly drawn hands, fused fingers, messy drawing, broken legs censor, censored, censor_bar Create an "
    "image from the instruction."
)


@dataclasses.dataclass(frozen=True)
class Special:
    """A special token in a layout."""

    name: str


Part = Special | str
"""One part of a layout: a special token or text."""


@dataclasses.dataclass(frozen=True)
class PromptIds:
    """A prompt ready for the model.

    Attributes:
        ids: all ids, the assistant's opening included.
        answer_start: index of the ``<|im_start|>`` of the assistant's turn: the question ends and the answer starts
            there.
    """

    ids: list[int]
    answer_start: int


def layout_ids(tokenizer: Tokenizer, parts: Sequence[Part]) -> list[int]:
    """Ids of a layout; InputError if the tokenizer lacks a special token."""
    ids: list[int] = []
    text = ""
    for part in parts:
        if isinstance(part, str):
            text += part
            continue
        ids += tokenizer.encode(text) if text else []
        ids.append(tokenizer.id_of(part.name))
        text = ""
    return ids + (tokenizer.encode(text) if text else [])


def layout_string(parts: Sequence[Part]) -> str:
    """A layout as the string that a chat template would give."""
    return "".join(part if isinstance(part, str) else part.name for part in parts)


def chat_turn(role: str, content: Sequence[Part]) -> list[Part]:
    """A whole turn: ``<|im_start|>{role}\\n{content}<|im_end|>\\n``."""
    return [Special(names.IM_START), f"{role}\n", *content, Special(names.IM_END), "\n"]


def question_layout(content: Sequence[Part], system: str = SYSTEM_PROMPT) -> list[Part]:
    """The image generator's system turn and the user's turn."""
    return [*chat_turn("system", [system]), *chat_turn("user", content)]


def assistant_opening_layout() -> list[Part]:
    """The start of the assistant's turn."""
    return [Special(names.IM_START), "assistant\n"]


def image_opening_layout(grid_rows: int, grid_cols: int) -> list[Part]:
    """What precedes the first visual token of a picture; InputError for an empty grid."""
    _check_grid(grid_rows, grid_cols)
    return [Special(names.IMAGE_START), f"{grid_cols}*{grid_rows}", Special(names.IMAGE_TOKEN)]


def answer_opening_layout(grid_rows: int, grid_cols: int) -> list[Part]:
    """The start of the assistant's turn up to the first visual token; InputError for an empty grid."""
    return [*assistant_opening_layout(), *image_opening_layout(grid_rows, grid_cols)]


def image_tokens_layout(codes: Sequence[Sequence[int]]) -> list[Part]:
    """A reference image's block: ``codes`` are its codebook entries, a row at a time, rows of one length."""
    return [
        Special(names.IMAGE_START),
        f"{len(codes)}*{len(codes[0]) if len(codes) else 0}",
        Special(names.IMAGE_TOKEN),
        *_lines(codes),
        Special(names.END_OF_FILE),
        Special(names.IMAGE_END),
    ]


def drawn_layout(codes: Sequence[Sequence[int]]) -> list[Part]:
    """What follows the answer opening when a picture of these ``codes`` is drawn."""
    return [*_lines(codes), Special(names.IMAGE_END)]


def _lines(codes: Sequence[Sequence[int]]) -> list[Part]:
    """Rows of visual tokens, each with its line end."""
    rows, cols = len(codes), len(codes[0]) if len(codes) else 0
    _check_grid(rows, cols)
    if any(len(row) != cols for row in codes):
        raise InputError(
            f"image codes: rows of {sorted({len(row) for row in codes})} codes; expected one length for all rows"
        )
    body: list[Part] = []
    for row in codes:
        body += [Special(names.visual_token(int(code))) for code in row]
        body.append(Special(names.END_OF_LINE))
    return body


def text_to_image_prompt(tokenizer: Tokenizer, prompt: str, grid_rows: int, grid_cols: int) -> PromptIds:
    """The prompt of a picture with ``grid_rows`` by ``grid_cols`` visual tokens."""
    return drawing_prompt(tokenizer, [prompt], grid_rows, grid_cols)


def drawing_prompt(
    tokenizer: Tokenizer,
    content: Sequence[Part],
    grid_rows: int,
    grid_cols: int,
    reasoning: Sequence[int] | None = None,
) -> PromptIds:
    """The same for a user's turn of any ``content``: reference pictures' blocks, then the instruction.

    ``reasoning`` are the very ids that the model wrote after :func:`thinking_prompt`.
    """
    if reasoning is None:
        question = layout_ids(tokenizer, question_layout(content))
        return PromptIds(question + answer_opening(tokenizer, grid_rows, grid_cols), len(question))
    thinking = thinking_prompt(tokenizer, content)
    image = layout_ids(tokenizer, image_opening_layout(grid_rows, grid_cols))
    return PromptIds([*thinking.ids, *reasoning, *image], thinking.answer_start)


def thinking_prompt(tokenizer: Tokenizer, content: Sequence[Part]) -> PromptIds:
    """The prompt after which the model writes its reasoning, and then the image-start by itself."""
    question = layout_ids(tokenizer, question_layout(content, THINKING_SYSTEM_PROMPT))
    return PromptIds(question + layout_ids(tokenizer, assistant_opening_layout()), len(question))


def negative_prompt(tokenizer: Tokenizer, text: str = DEFAULT_NEGATIVE_PROMPT) -> list[int]:
    """Ids whose features guide the diffusion transformer away: system and user turn, no answer."""
    return layout_ids(tokenizer, question_layout([text]))


def answer_opening(tokenizer: Tokenizer, grid_rows: int, grid_cols: int) -> list[int]:
    """Ids from the assistant's ``<|im_start|>`` to ``<|image token|>``: what an unconditional row sees."""
    return layout_ids(tokenizer, answer_opening_layout(grid_rows, grid_cols))


def layout_texts() -> list[str]:
    """The texts that layouts put around a user's words, for a vocabulary to be learned from."""
    parts = [
        *question_layout([]),
        *question_layout([], THINKING_SYSTEM_PROMPT),
        *assistant_opening_layout(),
    ]
    return list(dict.fromkeys(part for part in parts if isinstance(part, str)))


def image_tokens_string(codes: Sequence[Sequence[int]]) -> str:
    """A reference image's block as a string."""
    return layout_string(image_tokens_layout(codes))


def image_tokens_ids(tokenizer: Tokenizer, codes: Sequence[Sequence[int]]) -> list[int]:
    """A reference image's block as ids."""
    return layout_ids(tokenizer, image_tokens_layout(codes))


def placeholder_count(grid_rows: int, grid_cols: int) -> int:
    """Ids in a reference image's block: the grid with its line ends, the two sides' digits and five others."""
    _check_grid(grid_rows, grid_cols)
    start_star_token_eof_end = 5
    return grid_rows * (grid_cols + 1) + start_star_token_eof_end + len(str(grid_rows)) + len(str(grid_cols))


def find_answer_start(ids: Sequence[int], im_start: int, image_start: int) -> int:
    """Index of the last turn's ``<|im_start|>``, in a prompt whose last turn opens a picture.

    Args:
        ids: a prompt, with or without what was generated after it.
        im_start: id of ``<|im_start|>``.
        image_start: id of ``<|image start|>``.

    Raises InputError if there is no turn, or if the last one opens no picture.
    """
    values = [int(token_id) for token_id in ids]
    if im_start not in values:
        raise InputError(
            f"prompt ids: no turn starts in them (id {im_start}); build the prompt with its special tokens"
        )
    start = len(values) - 1 - values[::-1].index(im_start)
    if image_start not in values[start:]:
        raise InputError(
            f"prompt ids: the last turn, from index {start}, opens no picture (id {image_start}); end the "
            "prompt with the answer opening"
        )
    return start


def _check_grid(rows: int, cols: int) -> None:
    if rows < 1 or cols < 1:
        raise InputError(
            f"token grid of {rows} rows and {cols} columns: both must be at least 1; ask for a larger picture"
        )
