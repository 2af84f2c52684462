"""The weights that joint training starts from: a released or converted folder, a run, or random numbers.

Whatever the source lacks is drawn at random, each array directly into its shards; generation experts then start as
copies of the text experts (paper section 3.1.1).
"""

import re
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from checkpoint_convert.converted import is_converted
from checkpoint_convert.folder import ModelFolder, abstract_model
from checkpoint_convert.source import FolderSource
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import initial_value, named_parameters, with_parameters
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.training.runs import abstract_arrays, held_shapes, is_run, read_arrays
from mammoth_jax.training.state import parameter_shardings

_GENERATION = re.compile(r"(.*\.(?:ffn|attention\.experts))\.[1-9]\d*\.(.*)")


def start_weights(
    config: MammothConfig, template: Mammoth, mesh: Mesh, seed: int, init: Path | str | None = None
) -> Mammoth:
    """The model of ``template``'s structure in float32, on the mesh.

    Args:
      config: of the whole model.
      template: the parts that are wanted, as shapes.
      mesh: devices.
      seed: of what is drawn at random.
      init: a model folder, or a run (``RUN`` or ``RUN@STEP``).

    Raises:
      InputError: ``init`` is neither, or holds arrays of other shapes.
    """
    found = {} if init is None else _read(config, template, mesh, init)
    wanted = named_parameters(template)
    misfits = [n for n, x in found.items() if n in wanted and tuple(wanted[n].shape) != tuple(x.shape)]
    if misfits:
        name = misfits[0]
        raise InputError(
            f"--init {init}: {len(misfits)} parameters are of another shape than the configuration's model, e.g. "
            f"{name} is {tuple(found[name].shape)}, expected {tuple(wanted[name].shape)}"
        )
    places = parameter_shardings(template, mesh)
    values = {n: x for n, x in found.items() if n in wanted}
    for name, parameter in wanted.items():
        if name in values:
            continue
        text = _text_expert(name)
        if text is not None and text in wanted:
            continue  # a copy, below
        array = initial_value(name, parameter, seed)
        values[name] = jax.make_array_from_callback(
            array.shape, places[name], lambda index, x=array: x[index]
        )
    for name in wanted.keys() - values.keys():
        values[name] = jnp.copy(values[str(_text_expert(name))])
    return with_parameters(template, values)


def parts_of(init: Path | str) -> frozenset[str]:
    """The parts of the model that a folder or a run holds.

    Raises:
      InputError: it is neither.
    """
    if not is_run(init):
        return ModelFolder.open(init).model.parts
    names = held_shapes(init)
    return frozenset(part for part, prefix in _PREFIXES.items() if any(n.startswith(prefix) for n in names))


_PREFIXES = {
    "text_decoder": "decoder.embed.",
    "generation_experts": "decoder.gen_embed.",
    "vision_tower": "vision.",
    "dit": "dit.",
    "refiner": "refiner.",
}


def _text_expert(name: str) -> str | None:
    """The text parameter that a generation expert's starts as a copy of."""
    found = _GENERATION.fullmatch(name)
    return None if found is None else f"{found.group(1)}.0.{found.group(2)}"


def _read(config: MammothConfig, template: Mammoth, mesh: Mesh, init: Path | str) -> Mapping[str, jax.Array]:
    if is_run(init):
        return read_arrays(init, abstract_arrays(template, mesh))
    if is_converted(Path(init)):
        folder = ModelFolder.open(init, template.parts)
    else:  # by the wanted configuration: a backbone's own has no experts, and cuts its layers otherwise
        source = FolderSource(Path(init))
        folder = ModelFolder(Path(init), config, abstract_model(config, source, template.parts), source)
    return {name: p[...] for name, p in named_parameters(folder.load(mesh, "float32")).items()}
