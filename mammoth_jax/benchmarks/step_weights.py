"""The decoder as a task's loops read it, as shapes: the model's own, or its int8 form beside it."""

from typing import Any

import jax

from mammoth_jax.core.parameters import named_parameters, shardings
from mammoth_jax.models.backbone.decoder import Decoder
from mammoth_jax.models.backbone.int8_weights import int8_decoder
from mammoth_jax.pipelines.loading import LoadedModel
from mammoth_jax.pipelines.step_formats import WeightFormat


def step_decoder(loaded: LoadedModel, weights: WeightFormat, expert: int) -> Decoder:
    """What steps of ``expert``'s tokens run."""
    decoder = loaded.model.decoder
    assert decoder is not None, "a task that writes tokens has a decoder"
    if weights == "model":
        return decoder
    rounded = jax.eval_shape(lambda decoder: int8_decoder(decoder, expert), decoder)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        rounded,
        shardings(rounded, loaded.mesh),
    )


def added_weights(loaded: LoadedModel, weights: WeightFormat, expert: int) -> list[Any]:
    """The arrays of :func:`step_decoder` that lie in memory beside the model's own."""
    own = named_parameters(step_decoder(loaded, "model", expert))
    steps = named_parameters(step_decoder(loaded, weights, expert))
    return jax.tree.leaves([parameter for name, parameter in steps.items() if name not in own])
