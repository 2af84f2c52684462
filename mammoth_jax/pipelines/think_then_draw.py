"""Think, then draw: the backbone writes its reasoning as text, and the picture follows prompt and reasoning.

The answer is one turn, ``{reasoning}<|image start|>{W}*{H}<|image token|>`` and the visual tokens:

- Writing ends at the first ``<|image start|>``, at the end of the turn or text, or at the budget.  The token that ends
  it is not part of the reasoning; how it ended is kept with it.
- The picture is then opened with the grid that was asked for, whether or not the model opened one itself: what it would
  write after ``<|image start|>``, a grid of its own included, is never read.
- The reasoning is text of the answer, and conditions the diffusion transformer with the prompt
  (``gen_text_condition_with_answer``).
- The unconditional rows see neither prompt nor reasoning: the bare answer opening while visual tokens are drawn, and
  the negative prompt without reasoning in the diffusion transformer.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.pipelines.batching import PictureRequest, Reasoning, check_words, padded_rows
from mammoth_jax.pipelines.buckets import bucket
from mammoth_jax.pipelines.chat import ChatOptions, ChatPipeline, read_program, write_program, written_ids
from mammoth_jax.pipelines.launch import Progress, launcher
from mammoth_jax.pipelines.loading import LoadedModel
from mammoth_jax.pipelines.reference_inputs import prompt_pictures
from mammoth_jax.processing.prompts import drawing_prompt, thinking_prompt
from mammoth_jax.processing.special_tokens import IMAGE_START
from mammoth_jax.sampling.text import TextInputs, TextPlan


@dataclasses.dataclass(frozen=True)
class ThinkOptions:
    """How to reason: the budget in tokens, and sampling (``None`` takes the checkpoint's setting for text)."""

    max_new_tokens: int = 512
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None

    def writing(self, loaded: LoadedModel) -> ChatOptions:
        """The same as options of chat.

        Raises:
          InputError: a value out of range.
        """
        return ChatOptions(**dataclasses.asdict(self)).resolved(loaded)


def require_thinking(model: Mammoth) -> None:
    """Raises an :class:`InputError` unless the model has what reasoning before drawing needs."""
    model.require("think, then draw", "text_decoder", "generation_experts")


def with_reasoning(
    loaded: LoadedModel,
    requests: Sequence[PictureRequest],
    options: ThinkOptions,
    *,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> list[PictureRequest]:
    """The requests with what the model wrote about each before drawing.

    Greedy reasoning is written once for all pictures of a prompt; sampled reasoning for each picture by its seed.

    Raises:
      InputError: options out of range, a prompt that is too long, or a part that the checkpoint lacks.
    """
    require_thinking(loaded.model)
    writing = options.writing(loaded)

    def key(request: PictureRequest) -> tuple:
        return request.prompt, request.references, request.seed if writing.temperature else None

    distinct = list({key(request): request for request in reversed(requests)}.values())[::-1]
    written: dict[tuple, Reasoning] = {}
    launch = launcher(progress)
    for first in range(0, len(distinct), batch_size):
        group = distinct[first : first + batch_size]
        with jax.set_mesh(loaded.mesh):
            answers = launch("reasoning", _write, loaded, group, writing)
        written |= {key(r): _reasoning(loaded, ids) for r, ids in zip(group, answers, strict=True)}
    return [dataclasses.replace(request, reasoning=written[key(request)]) for request in requests]


def thinking_plan(loaded: LoadedModel) -> TextPlan:
    """What the writing program is compiled for: chat's, and ``<|image start|>`` may be written and ends it."""
    image_start = loaded.tokenizer.id_of(IMAGE_START)
    chat = ChatPipeline(loaded).plan
    return dataclasses.replace(chat, stop_ids=(*chat.stop_ids, image_start), generation_ids=(image_start,))


def _write(loaded: LoadedModel, requests: Sequence[PictureRequest], writing: ChatOptions) -> list[list[int]]:
    """The ids that follow each thinking prompt, the one that ended them included."""
    merge, rows = loaded.config.backbone.vision.spatial_merge_size, []
    for request in requests:
        content = request.content(merge)
        shown = sum(reference.num_tokens(merge) for reference in request.references)
        whole = drawing_prompt(loaded.tokenizer, content, *request.size.tokens, ())
        check_words(len(whole.ids) - shown, request.prompt)
        rows.append(thinking_prompt(loaded.tokenizer, content).ids)
    references = [request.references for request in requests]
    ids, lengths = padded_rows(rows, pictures=any(references))
    inputs = TextInputs(ids, lengths, np.broadcast_to(np.arange(ids.shape[1]), (3, *ids.shape)))
    pictures = prompt_pictures(loaded, ids, lengths, references)
    if pictures is not None:
        inputs = TextInputs(ids, lengths, pictures.positions, pictures.features, pictures.slots)
    plan, budget = thinking_plan(loaded), bucket(writing.budget)
    asked = writing.requests(len(rows), len(ids))
    seeds = jnp.asarray([*(r.seed for r in requests), *[0] * (len(ids) - len(rows))], jnp.uint32)
    decoder = loaded.model.decoder
    state = write_program(
        decoder,
        read_program(decoder, inputs, capacity=ids.shape[1] + budget),
        dataclasses.replace(asked, seed=seeds),
        max_tokens=budget,
        plan=plan,
    )
    return written_ids(state)[: len(rows)]


def _reasoning(loaded: LoadedModel, ids: Sequence[int]) -> Reasoning:
    image_start = loaded.tokenizer.id_of(IMAGE_START)
    last = ids[-1]
    stops = thinking_plan(loaded).stop_ids
    ended_by = "image start" if last == image_start else "end of turn" if last in stops else "budget"
    kept = tuple(ids if ended_by == "budget" else ids[:-1])
    return Reasoning(kept, loaded.tokenizer.decode(list(kept)), ended_by)


def check_reasoning(requests: Sequence[PictureRequest]) -> bool:
    """Whether the requests of a batch have reasoning.

    Raises:
      InputError: some have and some have not; their conditions are other tokens.
    """
    thinks = {request.reasoning is not None for request in requests}
    if len(thinks) > 1:
        raise InputError("requests with and without reasoning in one batch; draw them in two calls")
    return thinks == {True}
