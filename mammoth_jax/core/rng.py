"""Random keys by name and step, so that a number depends on what it is for and on nothing else."""

import zlib

import jax
from jaxtyping import Key

from mammoth_jax.core.types import Array, Int, PRNGKeyArray


def named_key(root: PRNGKeyArray, name: str, step: int | Int[Array, ""] = 0) -> PRNGKeyArray:
    """The key of purpose ``name`` at ``step``: the same on any device count, batch size and call order."""
    return jax.random.fold_in(jax.random.fold_in(root, zlib.crc32(name.encode())), step)


def row_keys(seeds: Int[Array, " b"], name: str) -> Key[Array, " b"]:
    """One key a row from the rows' own seeds, for purpose ``name``; a row's key ignores the rest of the batch."""
    return jax.vmap(lambda seed: named_key(jax.random.key(seed), name))(seeds)
