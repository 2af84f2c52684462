"""Diffusion as one compiled program: conditions encoded once, then a scan over the solver's steps.

The guidance branches of a step run as one batch.  Branches of a row stay next to each other, so that a batch sharded
over devices stays where it is.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp

from mammoth_jax.core.compat import NO_FAULTS, ReleaseFaults
from mammoth_jax.core.rng import row_keys
from mammoth_jax.core.types import Array, Bool, Float, Int
from mammoth_jax.flow.guidance import guide_text, guide_text_image
from mammoth_jax.flow.solvers import Euler, Solver
from mammoth_jax.models.align.qformer import QFormer
from mammoth_jax.models.conditions import Condition
from mammoth_jax.models.dit.context import encode_condition
from mammoth_jax.models.dit.transformer import Context, DiT, References
from mammoth_jax.sampling.step_cache import Cached, CacheState, Direct, Network, StepCache

Guidance = Literal["never", "always", "ranged"]
Tree = TypeVar("Tree")
Carries = dict[bool, Any]
"""What the network carries, for unguided and for guided evaluations."""
OnStep = Callable[[Array, Array, Array], None]
"""Called on the host after each step with its number, the rows' times at its start and the latents after it."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DiffusionResult:
    """Final latents as patch tokens, and how many velocity evaluations ran the guidance branches, and how many of all
    reused an earlier one's result.

    When traced, ``velocities[i]`` is the (guided) velocity at the start of step ``i`` and ``trajectory[i]`` the latents
    after it.
    """

    latents: Float[Array, "b n p"]
    guided_evaluations: Int[Array, ""]
    reused_evaluations: Int[Array, ""]
    velocities: Float[Array, "steps b n p"] | None
    trajectory: Float[Array, "steps b n p"] | None


def initial_noise(seeds: Int[Array, " b"], num_tokens: int, patch_values: int) -> Float[Array, "b n p"]:
    """Standard normal latents: those of token ``i`` of a row depend on the row's seed and ``i`` alone."""

    def token(key: Array, index: Array) -> Array:
        return jax.random.normal(jax.random.fold_in(key, index), (patch_values,))

    return jax.vmap(lambda key: jax.vmap(lambda i: token(key, i))(jnp.arange(num_tokens)))(
        row_keys(seeds, "diffusion/noise")
    )


def diffuse(
    dit: DiT,
    refiner: QFormer | None,
    positive: Condition,
    negative: Condition | None,
    noise: Float[Array, "b n p"],
    sizes: Int[Array, "b 2"],
    times: Float[Array, "times b"],
    *,
    solver: Solver = Euler(),
    guidance: Guidance = "always",
    guided: Bool[Array, " steps"] | None = None,
    text_guidance: Float[Array, " b"] | None = None,
    image_guidance: Float[Array, " b"] | None = None,
    references: References | None = None,
    step_cache: StepCache | None = None,
    faults: ReleaseFaults = NO_FAULTS,
    trace: bool = False,
    on_step: OnStep | None = None,
) -> DiffusionResult:
    """Integrates the network's velocity from noise to data.

    Static under ``jax.jit``: ``solver``, ``guidance``, ``step_cache``, ``faults``, ``trace``, ``on_step``; the rest are
    arrays.

    Args:
      dit, refiner: the network; it runs in the dtype of its weights, the latents stay float32.
      positive: what to draw, one row a picture.
      negative: the condition of the unconditional branches; its text length may differ. Not read if never guided.
      noise: latents at time 0.
      sizes: rows and columns of tokens of each picture; tokens past their product are padding.
      times: ascending from 0 to 1, a column for each row of the batch (``flow.schedules.inference_times``).
      guidance: whether steps are guided never, always, or as ``guided`` says; the extra branches of an unguided step
        are not computed.
      guided: a flag for each step (``flow.guidance.guided_steps``), read if ``guidance`` is ``ranged``.
      text_guidance: each row's scale; a row at 1 or below is not guided.
      image_guidance: each row's scale towards the references; without it guidance is by text alone, and its
        unconditional branch sees no references.
      references: latents of pictures to condition on.
      step_cache: reuses results between evaluations; exact without it.

    Raises:
      ValueError: an argument that the chosen guidance needs is missing.
    """
    flags = jnp.full((times.shape[0] - 1,), guidance == "always")
    if guidance == "ranged":
        if guided is None:
            raise ValueError("guidance 'ranged' needs the flags of the steps")
        flags = guided
    network: Network = Direct(dit, faults) if step_cache is None else Cached(dit, faults, step_cache)
    context = encode_condition(dit, refiner, positive, faults=faults)
    plain = _plain(network, context, sizes, references)
    evaluations = {False: plain}
    if guidance != "never":
        if negative is None or text_guidance is None:
            raise ValueError(f"guidance {guidance!r} needs a negative condition and text_guidance")
        other = encode_condition(dit, refiner, negative, faults=faults)
        images = image_guidance if references is not None else None
        guided_one = _guided(network, context, other, sizes, references, text_guidance, images)
        evaluations = {True: guided_one} if guidance == "always" else {False: plain, True: guided_one}

    def velocity(carries: Carries, last: Array, flag: Array, x: Array, t: Array) -> tuple[Array, Carries]:
        """Each of the two kinds of evaluation has a carry of its own."""

        def run(kind: bool, carries: Carries) -> tuple[Array, Carries]:
            v, carry = evaluations[kind].velocity(carries[kind], last, x, t)
            return v, {**carries, kind: carry}

        if guidance != "ranged":
            return run(guidance == "always", carries)
        return jax.lax.cond(flag, lambda c: run(True, c), lambda c: run(False, c), carries)

    def step(carry: tuple, xs: tuple) -> tuple[tuple, tuple]:
        x, state, count, carries = carry
        t, t_next, flag, number = xs
        seen: list[Array] = []

        def evaluate(x: Array, t: Array) -> Array:
            nonlocal carries
            v, carries = velocity(carries, number == len(flags) - 1, flag, x, t)
            seen.append(v)
            return v

        x, state = solver.step(evaluate, state, x, t, t_next)
        count = count + flag * len(seen)
        if on_step is not None:
            jax.debug.callback(on_step, number, t, x)
        return (x, state, count, carries), ((seen[0], x) if trace else (None, None))

    x = noise.astype(jnp.float32)
    times = times.astype(jnp.float32)
    carries = {kind: each.start(x.shape[1]) for kind, each in evaluations.items()}
    carry = (x, solver.start(x), jnp.zeros((), jnp.int32), carries)
    xs = (times[:-1], times[1:], flags, jnp.arange(times.shape[0] - 1))
    (x, _, count, carries), (velocities, trajectory) = jax.lax.scan(step, carry, xs)
    reused = [each.reused for each in carries.values() if isinstance(each, CacheState)]
    return DiffusionResult(x, count, sum(reused, jnp.zeros((), jnp.int32)), velocities, trajectory)


@dataclasses.dataclass(frozen=True)
class _Evaluation:
    """One kind of evaluation: ``velocity(carry, last, x, t)``, and its carry before the first one."""

    velocity: Callable[[Any, Array, Array, Array], tuple[Array, Any]]
    start: Callable[[int], Any]


def _plain(
    network: Network, context: Context, sizes: Int[Array, "b 2"], references: References | None
) -> _Evaluation:
    """The conditional branch alone."""

    def velocity(carry: Any, last: Array, x: Array, t: Array) -> tuple[Array, Any]:
        return network(carry, last, x, t, context, sizes, references)

    return _Evaluation(velocity, _starter(network, context, references))


def _guided(
    network: Network,
    positive: Context,
    negative: Context,
    sizes: Int[Array, "b 2"],
    references: References | None,
    text_scale: Float[Array, " b"],
    image_scale: Float[Array, " b"] | None,
) -> _Evaluation:
    """All branches in one batch, and guidance.

    Branches of a row, in order: conditional; negative text with references (three branches only); negative text alone.
    """
    num_branches = 2 if image_scale is None else 3
    contexts = _interleave(_same_length([positive, *[negative] * (num_branches - 1)]))
    branch_references = None
    if references is not None:
        absent = References(references.patches, jnp.zeros_like(references.sizes))
        branch_references = _interleave([*[references] * (num_branches - 1), absent])
    branch_sizes = jnp.repeat(sizes, num_branches, axis=0)

    def velocity(carry: Any, last: Array, x: Array, t: Array) -> tuple[Array, Any]:
        x, t = jnp.repeat(x, num_branches, axis=0), jnp.repeat(t, num_branches, axis=0)
        v, carry = network(carry, last, x, t, contexts, branch_sizes, branch_references)
        v = v.reshape(-1, num_branches, *v.shape[1:])
        if image_scale is None:
            return guide_text(v[:, 0], v[:, 1], text_scale), carry
        return guide_text_image(v[:, 0], v[:, 1], v[:, 2], text_scale, image_scale), carry

    return _Evaluation(velocity, _starter(network, contexts, branch_references))


def _starter(network: Network, context: Context, references: References | None) -> Callable[[int], Any]:
    """The carry before the first evaluation, for a number of picture tokens."""
    rows, length = context.mask.shape
    extra = 0 if references is None else references.patches.shape[1] * references.patches.shape[2]
    return lambda num_tokens: network.start(rows, length + extra + num_tokens)


def _same_length(contexts: Sequence[Context]) -> list[Context]:
    """Pads contexts with masked tokens to the longest of them."""
    length = max(context.mask.shape[1] for context in contexts)

    def pad(x: Array) -> Array:
        return jnp.pad(x, ((0, 0), (0, length - x.shape[1]), *((0, 0),) * (x.ndim - 2)))

    return [jax.tree.map(pad, context) for context in contexts]


def _interleave(trees: Sequence[Tree]) -> Tree:
    """Rows of equal batches side by side: row 0 of each, then row 1 of each."""
    return jax.tree.map(lambda *xs: jnp.stack(xs, axis=1).reshape(-1, *xs[0].shape[1:]), *trees)
