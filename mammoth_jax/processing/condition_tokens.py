"""Which tokens of a sequence condition the diffusion transformer: one rule for sampling and for packing rows."""

from typing import Any, Literal

ConditionMode = Literal["text_image", "text", "image"]


def condition_tokens(
    ids: Any,
    is_answer: Any,
    *,
    generation_start: int,
    vision_ids: tuple[int, ...],
    mode: ConditionMode,
    with_answer_text: bool,
) -> tuple[Any, Any]:
    """Text tokens that condition, and generation tokens that do (paper section 2.3; release: question text and the
    answer's generation tokens).

    Works on NumPy and JAX arrays alike; padding is for the caller to leave out.

    Args:
      ids: token ids; ``generation_start`` and above are generation tokens, ``vision_ids`` placeholders of pictures.
      is_answer: true from the opening of the assistant's turn on.
      mode: "text" leaves out the generation tokens, "image" the text.
      with_answer_text: whether text of the answer counts too (reasoning before drawing).
    """
    is_generation = ids >= generation_start
    is_text = ~is_generation & (ids == ids if with_answer_text else ~is_answer)
    for placeholder in vision_ids:
        is_text = is_text & (ids != placeholder)
    is_image = is_generation & is_answer
    if mode == "image":
        is_text = is_text & (ids != ids)
    if mode == "text":
        is_image = is_image & (ids != ids)
    return is_text, is_image
