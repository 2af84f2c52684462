"""The compiled programs of text to image and of edits: one jitted function each, shared by a process's pipelines.

Weights are arguments, so pipelines over models of one architecture share what is compiled.
"""

import jax

from mammoth_jax.models.mammothtok.model import MammothTok
from mammoth_jax.sampling.unified import (
    develop,
    develop_tokens,
    draw_tokens,
    encode_prompts,
    encode_references,
    paint,
    read_prompts,
)

encode_program = jax.jit(encode_prompts, static_argnames="plan")
draw_program = jax.jit(draw_tokens, static_argnames=("plan", "conditions", "max_tokens", "guided"))
read_program = jax.jit(read_prompts, static_argnames="conditions")
paint_program = jax.jit(
    paint, static_argnames=("num_tokens", "solver", "guidance", "step_cache", "faults", "trace", "on_step")
)
develop_program = jax.jit(develop, static_argnames=("grid", "patch_size", "tiling"))
develop_tokens_program = jax.jit(develop_tokens, static_argnames=("grid", "visual_start"))
see_program = jax.jit(lambda tower, inputs: tower(inputs))
tokenize_program = jax.jit(MammothTok.encode_patches)
encode_references_program = jax.jit(encode_references)
