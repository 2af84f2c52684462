"""Random weights as the modules declare them, one array at a time."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from flax import nnx

from mammoth_jax.core.parameters import abstract, initial_value, named_parameters


def random_arrays(
    build: Callable[[], nnx.Module], names: Sequence[str], seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """The named float32 parameters of the module that ``build`` declares, in the given order.

    A parameter's values depend on its name and the seed alone.
    """
    parameters = named_parameters(abstract(build))
    for name in names:
        yield name, initial_value(name, parameters[name], seed)
