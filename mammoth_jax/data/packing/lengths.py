"""How long things are: what a sample takes of each array of a row, and what a row has room for.

A row has a token sequence, the patches that its vision tower reads, and the arrays of its diffusion side.  All of
them are budgets: a row holds what fits them all.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Float, Int


class Lengths(NamedTuple):
    """Places taken, or room, in each array of a row.

    Attributes:
        tokens: tokens of the decoder.
        patches: patches of the vision tower.
        conditions: condition tokens of the diffusion transformer, queries included.
        references: latent patches of reference pictures.
        targets: latent patches of drawn pictures.
        joint: the diffusion transformer's joint sequence: conditions, references and targets together.
        samples: drawn pictures.
    """

    tokens: int
    patches: int = 0
    conditions: int = 0
    references: int = 0
    targets: int = 0
    joint: int = 0
    samples: int = 0


DIFFUSION = ("conditions", "references", "targets", "joint", "samples")
"""Arrays of the diffusion side."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackingConfig:
    """Room of a row in each array (:class:`Lengths`), and how it is filled.

    Budgets of arrays that a stage has no use for are 0.  ``window`` samples of each pool are read ahead in each lane,
    and the row takes what fits best among them.  Text that is ``too_long`` is cut at its end (documents and answers;
    pictures never) or dropped; both are counted.
    """

    tokens: int
    patches: int = 0
    conditions: int = 0
    references: int = 0
    targets: int = 0
    joint: int = 0
    samples: int = 0
    window: int = 32
    too_long: Literal["cut", "drop"] = "cut"

    def __post_init__(self) -> None:
        if self.tokens < 2 or min(self.budget) < 0 or self.window < 1:
            raise InputError(
                f"packing: tokens {self.tokens} must be at least 2, window {self.window} at least 1, and no budget "
                f"negative ({self.budget})"
            )
        drawing = {name: getattr(self, name) for name in DIFFUSION if name != "references"}
        if any(drawing.values()) and not all(drawing.values()):
            raise InputError(f"packing: budgets {drawing} of the diffusion side: give all of them, or none")

    @property
    def budget(self) -> Lengths:
        """The room as lengths."""
        return Lengths(*(getattr(self, name) for name in Lengths._fields))


def as_array(lengths: Sequence[Lengths]) -> Int[np.ndarray, "n 7"]:
    """Lengths as rows of a matrix."""
    return np.asarray(lengths, np.int64).reshape(-1, len(Lengths._fields))


def propose_budgets(
    lengths: Sequence[Lengths],
    *,
    tokens: int,
    multiple: int = 128,
    joint_slack: float = 0.2,
    slack: float = 1.5,
    keep: float = 1.0,
) -> Lengths:
    """Budgets for rows of ``tokens`` that a distribution fills about as far in tokens as in the joint sequence.

    A row of many samples has the distribution's mean of each other array per token, and scatters about it.  A budget is
    that mean times ``tokens`` plus some standard deviations of a row: few of them (``joint_slack``) for the joint
    sequence, on which nearly all of the diffusion transformer's work is done and which gets no longer than ``tokens``,
    more (``slack``) for the arrays that only pass through its embedders and refiners, so that they do not end a row
    early.  All hold the longest sample; with ``keep`` below 1 the longest of that part of the samples, and the others
    will be dropped.  Sizes are rounded up to the ``multiple``, ``samples`` to 1.

    Args:
      lengths: samples of the distribution, mixed as it is trained.

    Raises:
      InputError: no lengths, or a sample that is longer than a row.
    """
    table = as_array(lengths).astype(np.float64)
    if not len(table) or table[:, 0].max() > tokens:
        longest = int(table[:, 0].max()) if len(table) else 0
        raise InputError(
            f"packing: budgets from {len(table)} samples, the longest of {longest} tokens, for rows of {tokens}; give "
            "samples that fit a row"
        )
    ratio = table.sum(axis=0) / table[:, 0].sum()
    count = tokens / table[:, 0].mean()
    scatter = np.sqrt(count) * (table - ratio * table[:, :1]).std(axis=0)
    slacks = np.asarray([joint_slack if name == "joint" else slack for name in Lengths._fields])
    room = ratio * tokens + slacks * scatter
    joint = Lengths._fields.index("joint")
    room[joint] = min(room[joint], tokens)
    room = np.maximum(room, np.quantile(table, keep, axis=0, method="higher"))
    units = [1 if name == "samples" else multiple for name in Lengths._fields]
    sizes = [math.ceil(size / unit - 1e-9) * unit for size, unit in zip(room, units, strict=True)]
    return Lengths(*sizes)._replace(tokens=tokens)


def filled(rows: Sequence[Lengths], budget: Lengths) -> Float[np.ndarray, "7"]:
    """The part of each array that rows fill; 1 where there is no room."""
    room = np.asarray(budget, np.float64) * max(len(rows), 1)
    return np.divide(as_array(rows).sum(axis=0), room, out=np.ones(len(budget)), where=room > 0)
