"""How a loop of steps holds what it reads: the decoder's weights, and keys and values."""

from typing import Literal, get_args

from mammoth_jax.core.errors import InputError
from mammoth_jax.models.backbone.cache import CacheFormat

WeightFormat = Literal["model", "int8"]
"""How weights are held: in the model's dtype, or in int8 with a scale an output column (``layers/quantized.py``)."""


def check_formats(decode_weights: str, cache: str) -> None:
    """Checks the two options.

    Raises:
      InputError: an unknown format.
    """
    for name, value, formats in (
        ("decode_weights", decode_weights, WeightFormat),
        ("cache", cache, CacheFormat),
    ):
        if value not in get_args(formats):
            raise InputError(f"{name} {value!r}: expected one of {list(get_args(formats))}")
