"""AdamW, and Muon for some, over named parameters, in groups with rates of their own.

Parameters are flat dictionaries by dotted name (``core/parameters.py``), so a group is a pattern over names, and a
parameter that no group names is frozen: it has no optimiser state and no gradient is taken for it.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping

import optax

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Array
from mammoth_jax.training.muon import Matrices, Muon
from mammoth_jax.training.schedules import Schedule

Parameters = Mapping[str, Array]
"""Arrays by dotted parameter name."""

_MATRICES = ("kernel", "table", "query")  # not biases, norms and codes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Parameters whose names contain a match of one of ``patterns`` (regular expressions), and their rate."""

    name: str
    schedule: Schedule
    patterns: tuple[str, ...] = ("",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamWConfig:
    """AdamW (Loshchilov and Hutter 2019); the defaults are those of the paper's appendix A.3.

    ``decayed`` are the last parts of the names of the parameters that weight decay pulls towards 0, null is all of
    them.  ``clip_norm`` bounds the norm of the gradient over all groups together; None does not clip.  ``muon``, if
    given, moves the kernels of layer stacks in AdamW's place, at the rates and decay of their groups.
    """

    groups: tuple[Group, ...]
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    decayed: tuple[str, ...] | None = _MATRICES
    clip_norm: float | None = 1.0
    muon: Muon | None = None

    def __post_init__(self) -> None:
        names = [group.name for group in self.groups]
        if not names or len(set(names)) != len(names):
            raise InputError(f"optimizer.groups: expected one or more groups of different names, got {names}")
        for group in self.groups:
            for pattern in group.patterns:
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise InputError(
                        f"optimizer group {group.name!r}: {pattern!r} is not a regular expression: {error}"
                    ) from error


def group_of(name: str, groups: Iterable[Group]) -> str | None:
    """The first group that a parameter's name matches, ``None`` if it is frozen."""
    for group in groups:
        if any(re.search(pattern, name) for pattern in group.patterns):
            return group.name
    return None


def assign_groups(names: Iterable[str], groups: tuple[Group, ...]) -> dict[str, str]:
    """Group of every trainable parameter by name; frozen ones are left out.

    Raises:
      InputError: a group that no parameter belongs to.
    """
    labels = {name: group for name in names if (group := group_of(name, groups)) is not None}
    for group in groups:
        if group.name not in labels.values():
            raise InputError(
                f"optimizer group {group.name!r}: no parameter matches {list(group.patterns)} (or an earlier group "
                "takes them all); see the names with: mammoth-jax info"
            )
    return labels


def build_optimizer(
    config: AdamWConfig, labels: Mapping[str, str], steps: int, matrices: Matrices
) -> optax.GradientTransformation:
    """The transformation of gradients by name.

    Args:
      config: rates and constants.
      labels: of every trained parameter, from :func:`assign_groups`.
      steps: of the run, for its schedules.
      matrices: those that Muon moves if it is asked for, from :func:`muon.stacked_matrices`.

    Raises:
      InputError: Muon is asked for and nothing that is trained is one of its matrices.
    """

    def adamw(group: Group) -> optax.GradientTransformation:
        return optax.adamw(
            group.schedule.build(steps),
            b1=config.beta1,
            b2=config.beta2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            mask=None if config.decayed is None else functools.partial(_decays, config.decayed),
        )

    transforms = {group.name: adamw(group) for group in config.groups}
    labels = dict(labels)
    if config.muon is not None:
        moved = labels.keys() & matrices.keys()
        if not moved:
            raise InputError(
                "optimizer.muon: no kernel of a stack of layers is trained here (adapters are none); set it to null"
            )
        labels |= {name: f"{labels[name]} by muon" for name in moved}
        transforms |= {
            f"{group.name} by muon": config.muon.build(
                group.schedule.build(steps), config.weight_decay, matrices
            )
            for group in config.groups
        }
    parts = optax.multi_transform(transforms, labels)
    return (
        parts if config.clip_norm is None else optax.chain(optax.clip_by_global_norm(config.clip_norm), parts)
    )


def _decays(decayed: tuple[str, ...], parameters: Parameters) -> dict[str, bool]:
    return {name: name.rsplit(".", 1)[-1] in decayed for name in parameters}


def learning_rates(config: AdamWConfig, steps: int) -> dict[str, optax.Schedule]:
    """Each group's rate as a function of the step, for the log."""
    return {group.name: group.schedule.build(steps) for group in config.groups}
