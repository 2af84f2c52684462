"""Which parameters of the model are understanding, which generation, and which the diffusion transformer's.

This is the one place that knows (paper table 1): the rows of its rates are these groups.
"""

import dataclasses
import re
from collections.abc import Collection, Iterable

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.example import DRAWING, Task
from mammoth_jax.models.conditions import ConditionMode
from mammoth_jax.training.optimizer import AdamWConfig, Group

_EXPERT = r"(ffn|attention\.experts)\.[1-9]\d*\."

PARAMETER_GROUPS: dict[str, tuple[str, ...]] = {
    "understanding": (
        r"^decoder\.(embed|head|norm)\.",
        rf"^decoder\.segments\.\d+\.(?!{_EXPERT})",
        r"^vision\.",
    ),
    "generation": (r"^decoder\.gen_(embed|head)\.", rf"^decoder\.segments\.\d+\.{_EXPERT}"),
    "dit": (r"^dit\.", r"^refiner\."),
}
"""Patterns over parameter names: the backbone with its tower; experts, embedding and head of generation; diffusion
transformer and alignment."""

_ALL = ("",)


def with_group_patterns(config: AdamWConfig) -> AdamWConfig:
    """The optimiser with the patterns of every group that is named as one of :data:`PARAMETER_GROUPS`.

    Raises:
      InputError: a group of another name that has no patterns of its own.
    """

    def known(group: Group) -> Group:
        if group.patterns != _ALL:
            return group
        if group.name not in PARAMETER_GROUPS:
            raise InputError(
                f"optimizer group {group.name!r}: not one of {', '.join(PARAMETER_GROUPS)}; give it patterns over "
                "parameter names"
            )
        return dataclasses.replace(group, patterns=PARAMETER_GROUPS[group.name])

    return dataclasses.replace(config, groups=tuple(map(known, config.groups)))


def needed_parts(tasks: Collection[Task], mode: ConditionMode, *, diffusion: bool = True) -> frozenset[str]:
    """The parts of the model (``models.mammoth.PARTS``) that training on these tasks runs.

    Without ``diffusion`` pictures are written as visual tokens alone.
    """
    parts = {"text_decoder"}
    if any(task in DRAWING for task in tasks):
        parts.add("generation_experts")
        if diffusion:
            parts |= {"dit"} | ({"refiner"} if mode != "text" else set())
    if any(task not in ("text", "t2i") for task in tasks):
        parts.add("vision_tower")
    return frozenset(parts)


def read_names(names: Iterable[str], tasks: Collection[Task], *, next_tokens: bool = True) -> list[str]:
    """The parameters that samples of these tasks meet: without references, none of what reads them; no heads without
    the next-token loss.

    One that is never met has no gradient; were it trained all the same, weight decay would pull it to 0.
    """
    unmet = [] if any(task in ("edit", "a2a") for task in tasks) else [r"dit\.reference_"]
    unmet += [] if next_tokens else [r"decoder\.(gen_)?head\."]
    return [name for name in names if not any(re.match(pattern, name) for pattern in unmet)]
