"""Sampling settings that a released checkpoint ships for text to image (``t2i_generation_config.json``)."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.files import read_json_object

TEXT_TO_IMAGE_FILE = "t2i_generation_config.json"

DEFAULT_TOP_K = 50
"""What an absent ``top_k`` means: files leave out values that equal the format's defaults, and this is its default."""

DRAWING = "drawing"
"""An object of ours in the file, which readers of the release pass over: how its pictures are drawn unless one says
otherwise.  The release has no file for that; its defaults are in its code."""

DRAWING_OPTIONS: Mapping[str, type] = {
    "negative_prompt": str,
    "num_inference_steps": int,
    "guidance_scale": float,
    "image_guidance_scale": float,
    "ar_guidance_scale": float,
}
"""What may be in it, by the pipelines' names."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """How visual tokens are drawn.

    Attributes:
        end_of_line: id forced after each row of the grid.
        visual_start, visual_end: ids that may be drawn, ``visual_end`` not among them.
        temperature: logits are divided by it.
        top_k: how many of the best ids may be drawn; None for all.
        top_p: probability mass of the ids that may be drawn.
        repetition_penalty: logits of ids already in the sequence are divided by it (multiplied if negative).
        do_sample: draw; otherwise take the best id.
        drawing: the checkpoint's own among :data:`DRAWING_OPTIONS`; the release's have none.
    """

    end_of_line: int
    visual_start: int
    visual_end: int
    temperature: float = 1.0
    top_k: int | None = DEFAULT_TOP_K
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    do_sample: bool = False
    drawing: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_folder(cls, folder: str | Path, vocabulary_end: int) -> "GenerationSettings":
        """Read a checkpoint folder's ``t2i_generation_config.json``.

        Args:
            folder: checkpoint folder.
            vocabulary_end: first id beyond the model's generation ids.

        Raises InputError for a missing or malformed file or value.
        """
        path = Path(folder) / TEXT_TO_IMAGE_FILE
        if not path.is_file():
            raise InputError(
                f"{TEXT_TO_IMAGE_FILE} is missing in {folder}: expected the ids of visual tokens and line "
                "ends; copy it from the checkpoint's source folder"
            )
        return cls.from_released(read_json_object(path), vocabulary_end, where=str(path))

    @classmethod
    def from_released(
        cls, values: Mapping[str, Any], vocabulary_end: int, where: str = TEXT_TO_IMAGE_FILE
    ) -> "GenerationSettings":
        """Settings from the released file's values; absent ones take the format's defaults, unknown ones are ignored.

        ``visual_token_end_id`` is an id if it is one, that is above the start and within the vocabulary; otherwise
        it is a number of ids, cut at the vocabulary's end.
        """
        off = {key: neutral for key, neutral in _NEUTRAL.items() if key in values and values[key] is None}
        values = {**values, **off}

        def number(key: str, default: float | None, low: float, integer: bool = False) -> Any:
            value = values.get(key, default)
            right_type = isinstance(value, int if integer else (int, float)) and not isinstance(value, bool)
            if not right_type or not value >= low:
                kind = "a whole number" if integer else "a number"
                raise InputError(f"{where}: {key} is {value!r}; expected {kind} of at least {low}")
            return value

        start = number("visual_token_start_id", None, 0, integer=True)
        end = number("visual_token_end_id", None, 1, integer=True)
        end_of_line = number("eol_token_id", None, 0, integer=True)
        if max(start, end_of_line) >= vocabulary_end:
            key = "visual_token_start_id" if start >= vocabulary_end else "eol_token_id"
            raise InputError(
                f"{where}: {key} is {values[key]}, beyond this model's last id {vocabulary_end - 1}; "
                "use the file of this model"
            )
        absolute = start < end <= vocabulary_end
        top_k = number("top_k", DEFAULT_TOP_K, 0, integer=True)
        do_sample = values.get("do_sample")
        if not isinstance(do_sample, bool | None):
            raise InputError(f"{where}: do_sample is {do_sample!r}; expected true or false")
        return cls(
            end_of_line=end_of_line,
            visual_start=start,
            visual_end=end if absolute else min(start + end, vocabulary_end),
            temperature=float(number("temperature", 1.0, 0)),
            top_k=top_k or None,
            top_p=float(number("top_p", 1.0, 0)),
            repetition_penalty=float(number("repetition_penalty", 1.0, 0)),
            do_sample=bool(do_sample),
            drawing=_drawing(values, where),
        )


def drawing_of_folder(folder: str | Path | None) -> Mapping[str, Any]:
    """A folder's own among :data:`DRAWING_OPTIONS`; none without a file that says so.

    Raises InputError for a malformed file or value.
    """
    path = None if folder is None else Path(folder) / TEXT_TO_IMAGE_FILE
    return {} if path is None or not path.is_file() else _drawing(read_json_object(path), str(path))


def _drawing(values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    given = values.get(DRAWING) or {}
    if not isinstance(given, dict) or not given.keys() <= DRAWING_OPTIONS.keys():
        raise InputError(
            f"{where}: {DRAWING} is {given!r}; expected an object of some of {', '.join(DRAWING_OPTIONS)}"
        )
    for name, value in given.items():
        kind = DRAWING_OPTIONS[name]
        right = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
        if not right:
            raise InputError(f"{where}: {DRAWING}.{name} is {value!r}; expected {_KINDS[kind]}")
    return {name: DRAWING_OPTIONS[name](value) for name, value in given.items()}


_KINDS: Mapping[type, str] = {str: "text", int: "a whole number", float: "a number"}

_NEUTRAL: Mapping[str, float] = {"top_k": 0, "temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0}
"""Values that change nothing, which an explicit null stands for."""
