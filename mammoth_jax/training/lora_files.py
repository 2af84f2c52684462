"""Adapters from wherever they are, merged into a model."""

from pathlib import Path
from typing import TypeVar

import jax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from checkpoint_convert import adapter_folder
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import abstract, named_parameters, with_parameters
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.training.lora import A, AdapterWeights, B
from mammoth_jax.training.runs import is_run, read_adapters

M = TypeVar("M", bound=nnx.Module)


def load_adapters(path: Path | str, config: MammothConfig, mesh: Mesh) -> AdapterWeights:
    """Adapters of a model of this configuration: of a run (``RUN`` or ``RUN@STEP``), or of a folder in PEFT's layout.

    Raises:
      InputError: it is neither, holds none, or they belong to a model of other sizes.
    """
    if is_run(path):
        adapters = read_adapters(path, mesh)
    elif adapter_folder.is_adapter_folder(path):
        factors, rank, alpha = adapter_folder.load_adapters(path, config)
        everywhere = NamedSharding(mesh, PartitionSpec())
        named = {name + s: x for name, pair in factors.items() for s, x in zip((A, B), pair, strict=True)}
        adapters = AdapterWeights(jax.device_put(named, everywhere), rank, alpha)
    else:
        raise InputError(
            f"--lora {path}: expected a run with adapters (RUN or RUN@STEP), or a folder with {adapter_folder.CONFIG}"
        )
    shapes = {n: tuple(p.shape) for n, p in named_parameters(abstract(lambda: Mammoth(config))).items()}
    for name in adapters.kernels:
        a, b = (tuple(adapters.factors[name + suffix].shape) for suffix in (A, B))
        layers = len(a) + len(b) - 2 - len(shapes.get(name, ()))
        if name not in shapes or (*a[:-1], *b[layers + 1 :]) != shapes[name]:
            raise InputError(
                f"--lora {path}: {name} has factors {list(a)} and {list(b)}, but in this model it is "
                f"{list(shapes.get(name, ())) or 'absent'}; give the model that they were trained on"
            )
    return adapters


def with_adapters(model: M, adapters: AdapterWeights) -> M:
    """The model with the adapters of its parts merged into their kernels; those of parts that it lacks are left out.

    The model that is given is given away with the kernels that change.
    """
    values = {name: p[...] for name, p in named_parameters(model).items()}
    return with_parameters(model, adapters.merged(values))
