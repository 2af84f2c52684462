"""The tasks whose programs can be compiled ahead of time.

A task is a generator: it yields a call of one of the pipelines' own jitted functions and is sent back what the call
returns, shapes with the shardings that the compiler gave them.  So a task reads like the pipeline that it stands for,
and each program is compiled for what the one before it really hands over.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from mammoth_jax.benchmarks.calls import Task, Workload
from mammoth_jax.benchmarks.chat_task import chat
from mammoth_jax.benchmarks.drawing_tasks import edit, generate
from mammoth_jax.benchmarks.step_weights import added_weights
from mammoth_jax.core.parameters import abstract, shardings
from mammoth_jax.models.backbone.decoder import GENERATION_EXPERT
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.pipelines.chat import NEEDED_PARTS as CHAT_PARTS
from mammoth_jax.pipelines.loading import LoadedModel, byte_words
from mammoth_jax.pipelines.options import NEEDED_PARTS
from mammoth_jax.sampling.text import TEXT_EXPERT

TASKS: Mapping[str, Callable[[LoadedModel, Workload], Task]] = {
    "generate": generate,
    "chat": chat,
    "edit": edit,
}
_DRAWING = frozenset(NEEDED_PARTS["ar+diffusion"])
PARTS: Mapping[str, frozenset[str]] = {
    "generate": _DRAWING,
    "chat": frozenset(CHAT_PARTS),
    "edit": _DRAWING | {"vision_tower", "mammothtok_encoder", "mammothtok_codebook"},
}
"""Parts of the model whose weights a task keeps in memory."""


EXPERTS: Mapping[str, int] = {
    "generate": GENERATION_EXPERT,
    "chat": TEXT_EXPERT,
    "edit": GENERATION_EXPERT,
}
"""Whose tokens a task's loops write."""


def resident_weights(loaded: LoadedModel, task: str, work: Workload) -> Any:
    """All weights that stay in memory throughout a task: the model's, and the int8 ones that were made of them."""
    return loaded.model, added_weights(loaded, work.decode_weights, EXPERTS[task])


def abstract_model(config: MammothConfig, task: str, mesh: Mesh, dtype: str) -> LoadedModel:
    """The parts of a model that a task needs, as shapes with their shardings, and a byte-level tokenizer."""
    model = abstract(lambda: Mammoth(config, parts=PARTS[task]), dtype)
    placed = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), model, shardings(model, mesh)
    )
    tokenizer, settings = byte_words(config)
    return LoadedModel(placed, mesh, tokenizer, settings, None)
