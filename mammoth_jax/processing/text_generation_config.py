"""Sampling settings that a released checkpoint ships for text (``und_generation_config.json``)."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.files import read_json_object
from mammoth_jax.processing.generation_config import DEFAULT_TOP_K

TEXT_FILE = "und_generation_config.json"
DEFAULT_MAX_NEW_TOKENS = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextGenerationSettings:
    """How answers are written; without a file the best token is taken.

    Attributes:
        do_sample: draw; otherwise take the best token.
        temperature: logits are divided by it.
        top_k: how many of the best tokens may be drawn; None for all.
        top_p: probability mass of the tokens that may be drawn.
        repetition_penalty: logits of tokens already in the conversation are divided by it (multiplied if negative).
        stop_ids: ids that end an answer, besides the end of a turn and of a text.
        max_new_tokens: most tokens of an answer.
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    stop_ids: tuple[int, ...] = ()
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS

    @classmethod
    def from_folder(cls, folder: str | Path, vocabulary_end: int) -> "TextGenerationSettings":
        """Reads a checkpoint folder's ``und_generation_config.json``; the defaults if it has none.

        Args:
            folder: checkpoint folder.
            vocabulary_end: first id beyond the model's ids.

        Raises InputError for a malformed file or value.
        """
        path = Path(folder) / TEXT_FILE
        if not path.is_file():
            return cls()
        return cls.from_released(read_json_object(path), vocabulary_end, where=str(path))

    @classmethod
    def from_released(
        cls, values: Mapping[str, Any], vocabulary_end: int, where: str = TEXT_FILE
    ) -> "TextGenerationSettings":
        """Settings from the file's values; absent ones take the format's defaults, unknown ones are ignored.

        The format's default of ``top_k`` is 50; null, or 0, switches it off.

        Raises InputError naming the file, the key and the value.
        """
        top_k = _whole(values, "top_k", DEFAULT_TOP_K, 0, where)
        temperature = _number(values, "temperature", 1.0, where)
        do_sample = values.get("do_sample")
        if not isinstance(do_sample, bool | None):
            raise _bad(where, "do_sample", do_sample, "true or false")
        penalty = _number(values, "repetition_penalty", 1.0, where)
        if penalty == 0:
            raise _bad(where, "repetition_penalty", values["repetition_penalty"], "more than 0 (1 is off)")
        top_p = _number(values, "top_p", 1.0, where)
        if not 0 < top_p <= 1:
            raise _bad(where, "top_p", values["top_p"], "more than 0 and at most 1 (off)")
        return cls(
            do_sample=bool(do_sample),
            temperature=temperature,
            top_k=top_k or None,
            top_p=top_p,
            repetition_penalty=penalty,
            stop_ids=_ids(values, "eos_token_id", vocabulary_end, where),
            max_new_tokens=_whole(values, "max_new_tokens", None, 1, where) or DEFAULT_MAX_NEW_TOKENS,
        )


def _number(values: Mapping[str, Any], key: str, default: float, where: str) -> float:
    """A finite number of at least 0; the default where it is absent or null."""
    value = values.get(key)
    if value is None:
        return default
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:
        raise _bad(where, key, value, "a number of at least 0")
    return float(value)


def _whole(values: Mapping[str, Any], key: str, default: int | None, low: int, where: str) -> int | None:
    """A whole number of at least ``low``; None for null."""
    value = values.get(key, default)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < low):
        raise _bad(where, key, value, f"a whole number of at least {low}")
    return value


def _ids(values: Mapping[str, Any], key: str, end: int, where: str) -> tuple[int, ...]:
    """An id or a list of ids; none where it is absent or null."""
    value = values.get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for each in ids:
        if not isinstance(each, int) or isinstance(each, bool) or not 0 <= each < end:
            raise _bad(where, key, value, f"an id, or a list of ids, from 0 to {end - 1}")
    return tuple(dict.fromkeys(ids))


def _bad(where: str, key: str, value: Any, expected: str) -> InputError:
    return InputError(f"{where}: {key} is {value!r}; expected {expected}")
