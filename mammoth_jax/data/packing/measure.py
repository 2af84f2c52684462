"""Lengths of the samples that a configuration would pack, from which its budgets can be proposed."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.decoding import LeftOut
from mammoth_jax.data.packing.dropout import GuidanceDropout
from mammoth_jax.data.packing.geometry import Geometry
from mammoth_jax.data.packing.lengths import Lengths, PackingConfig, propose_budgets
from mammoth_jax.data.packing.workers import OpenPool, Reader

ENOUGH = 1 << 40
"""Room for whatever there is."""


def measure_lengths(
    pools: Sequence[OpenPool],
    geometry: Geometry,
    dropout: GuidanceDropout,
    *,
    tokens: int,
    samples: int,
    seed: int = 0,
) -> list[Lengths]:
    """Lengths of the first ``samples`` of each pool that fit ``tokens``, thinned out to the pools' shares of tokens.

    Raises:
      InputError: nothing of a pool can be read.
    """
    room = PackingConfig(
        tokens=tokens,
        patches=ENOUGH,
        conditions=ENOUGH,
        references=ENOUGH,
        targets=ENOUGH,
        joint=ENOUGH,
        samples=1,
    )
    read = Reader(pools, geometry, room, dropout, seed)
    every: list[list[Lengths]] = []
    for number, pool in enumerate(pools):
        found = [read(number, n) for n in range(samples)]
        lengths = [each.lengths for each in found if not isinstance(each, LeftOut)]
        if not lengths:
            why = next(each.message or each.fate for each in found if isinstance(each, LeftOut))
            raise InputError(f"pool {pool.name}: none of {samples} samples can be packed; the first: {why}")
        every.append(lengths)
    counts = np.asarray([p.weight for p in pools]) / [np.mean([x.tokens for x in each]) for each in every]
    parts = counts / (counts / [len(each) for each in every]).max()
    return [x for each, part in zip(every, parts, strict=True) for x in each[: max(round(part), 1)]]


def propose_packing(
    pools: Sequence[OpenPool],
    geometry: Geometry,
    dropout: GuidanceDropout,
    *,
    tokens: int,
    samples: int = 512,
    multiple: int = 128,
    keep: float = 1.0,
    base: PackingConfig | None = None,
) -> PackingConfig:
    """A packing configuration with budgets for these pools, see :func:`propose_budgets`; the rest as in ``base``."""
    lengths = measure_lengths(pools, geometry, dropout, tokens=tokens, samples=samples)
    budget = propose_budgets(lengths, tokens=tokens, multiple=multiple, keep=keep)
    return dataclasses.replace(base or PackingConfig(tokens=tokens), **budget._asdict())
