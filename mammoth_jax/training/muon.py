"""Muon (Jordan et al. 2024): kernels move along their orthogonalised momentum."""

import dataclasses
from collections.abc import Mapping

import optax
from flax import nnx
from optax.contrib import MuonDimensionNumbers, muon

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import kernel_split

Matrices = Mapping[str, MuonDimensionNumbers]
"""Kernels by name: which of their axes are inputs, and which outputs; the others number layers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Muon:
    """What moves the kernels of layer stacks; embeddings, heads, norms and biases keep AdamW, as Jordan has it.

    An update's root mean square is ``rms`` times the rate, so that a group has one rate for both (Liu et al. 2025,
    section 2.2); ``momentum`` is Nesterov's.
    """

    momentum: float = 0.95
    rms: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1 or not self.rms > 0:
            raise InputError(
                f"optimizer.muon: momentum {self.momentum}, rms {self.rms}: expected 0 <= momentum < 1 and rms > 0"
            )

    def build(
        self, schedule: optax.Schedule, weight_decay: float, matrices: Matrices
    ) -> optax.GradientTransformation:
        """The transformation of ``matrices``' gradients; the trees that it is given hold marks in place of others."""

        def dimensions(tree: optax.Params) -> optax.Params:
            if not isinstance(
                tree, Mapping
            ):  # a stand-in for the whole tree, by which optax finds the moments
                return tree
            return {n: x if isinstance(x, optax.MaskedNode) else matrices[n] for n, x in tree.items()}

        return muon(
            schedule,
            beta=self.momentum,
            weight_decay=weight_decay,
            muon_weight_dimension_numbers=dimensions,
            consistent_rms=self.rms,
        )


def stacked_matrices(parameters: Mapping[str, nnx.Param]) -> Matrices:
    """The kernels of linear maps that lie in stacks of layers, those that Muon moves."""
    found = {}
    for name, parameter in parameters.items():
        split = kernel_split(parameter)
        if split is not None and split[0] == 1:
            last = 1 + split[1]
            found[name] = MuonDimensionNumbers(
                tuple(range(1, last)), tuple(range(last, len(parameter.shape)))
            )
    return found
