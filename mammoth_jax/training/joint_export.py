"""A run of joint training as the folder that the released code reads, and its adapters as one of their own.

Whatever the run did not change is written in the dtype that it came in, bit for bit; adapters are merged.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from checkpoint_convert.adapter_folder import save_adapters
from checkpoint_convert.folder import read_json
from checkpoint_convert.init_checkpoint import image_processor, placeholder_ranks, write_json, write_tokenizer
from checkpoint_convert.model import model_rules
from checkpoint_convert.new_folder import new_folder
from checkpoint_convert.released_config import config_from_released, config_to_released
from checkpoint_convert.rules import expand
from checkpoint_convert.safetensors_file import Spec
from checkpoint_convert.stream import by_target
from checkpoint_convert.to_jax import side_files
from checkpoint_convert.to_torch import PART_PREFIXES, released_specs, write_released
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.processing.vision import PREPROCESSOR_FILE
from mammoth_jax.training.lora import A, B
from mammoth_jax.training.origin import folder_dtypes, kept_dtypes, read_origin
from mammoth_jax.training.runs import abstract_arrays, is_run, read_adapters, read_arrays
from mammoth_jax.training.trained_model import JointRun

_AT_ONCE = 2**30
"""Bytes of arrays that are read together, if there are several."""

_PLAIN_RANKS = 256 + 9 * 256
"""The ranks of a vocabulary without files that no text meets beyond its bytes: pairs with a control character."""


def export_joint(run: JointRun, dst: Path | str, dtype: str = "float32") -> str:
    """Writes a run's model in the released format, with the tokenizers that it was trained with.

    Args:
      run: adapters are merged, the moving average is taken where one is kept.
      dst: a folder that does not exist yet.
      dtype: of the tensors that were trained.

    Returns:
      The parts that were written.

    Raises:
      InputError: a checkpoint or tokenizer is not there, or ``dst`` exists or cannot be written.
    """
    mesh, config = single_device_mesh(), run.config.model
    held = run.template()
    tokenizers = {part: m for part in PART_PREFIXES if (m := run.tokenizer(part, mesh)) is not None}
    parameters = dict(named_parameters(held))
    beside = {
        f"{part}.{n}": p for part, module in tokenizers.items() for n, p in named_parameters(module).items()
    }
    groups = by_target(expand(model_rules(config)), [*parameters, *beside])
    specs = released_specs(groups, {**parameters, **beside})
    kept = kept_dtypes(run.path, config)
    kept = {
        n: x for n, x in kept.items() if not n.startswith(tuple(PART_PREFIXES.values()))
    } | _tokenizer_dtypes(run)
    trained = {entry.source for entry in expand(model_rules(config)) if entry.target in run.trained}
    for name, spec in specs.items():
        specs[name] = Spec(spec.shape, jnp.dtype(dtype) if name in trained else kept.get(name, spec.dtype))

    def arrays() -> Iterator[tuple[str, jax.Array]]:
        for some in _portions(abstract_arrays(held, mesh)):
            yield from read_arrays(run.path, some).items()
        for name, parameter in beside.items():
            yield name, parameter[...]

    with new_folder(dst) as folder:
        write_released(folder, groups, specs, arrays())
        _write_side_files(folder, config, run.words, dtype)
    return ", ".join(sorted(held.parts | set(tokenizers)))


def export_adapters(run: JointRun, dst: Path | str, dtype: str) -> str:
    """Writes a run's adapters alone, in PEFT's layout and this dtype.

    Raises:
      InputError: it has none, or ``dst`` exists or cannot be written.
    """
    adapters = read_adapters(run.path, single_device_mesh())
    factors = {name: (adapters.factors[name + A], adapters.factors[name + B]) for name in adapters.kernels}
    save_adapters(dst, run.config.model, factors, adapters.alpha, read_origin(run.path).init, dtype)
    return f"adapters of {len(factors)} kernels, rank {adapters.rank}"


def _portions(wanted: Mapping[str, jax.ShapeDtypeStruct]) -> Iterator[dict[str, jax.ShapeDtypeStruct]]:
    """The arrays in their order, as many at a time as fit :data:`_AT_ONCE`."""
    some: dict[str, jax.ShapeDtypeStruct] = {}
    size = 0
    for name, x in wanted.items():
        own = int(np.prod(x.shape)) * x.dtype.itemsize
        if some and size + own > _AT_ONCE:
            yield some
            some, size = {}, 0
        some[name], size = x, size + own
    if some:
        yield some


def _tokenizer_dtypes(run: JointRun) -> dict[str, np.dtype]:
    """Dtypes of the released tensors of MammothTok and the VAE where they come from a folder."""
    out: dict[str, np.dtype] = {}
    for part, path in run.tokenizer_paths().items():
        if path is None or is_run(path):
            continue
        prefix = PART_PREFIXES[part]
        held = folder_dtypes(path)
        out |= {name if name.startswith(prefix) else prefix + name: x for name, x in held.items()}
    return out


def _write_side_files(folder: Path, config: MammothConfig, words: Path | None, dtype: str) -> None:
    """Configurations and tokenizer: what the run was given, and for the rest its own."""
    given = [] if words is None else side_files(words)
    for file in given:
        shutil.copyfile(file, folder / file.name)
    if words is None:
        ranks = placeholder_ranks(config)
        if len(ranks) > _PLAIN_RANKS:
            raise InputError(
                f"words of this run are bytes, which a vocabulary of {len(ranks)} ranks cannot say; train with "
                "frozen.words"
            )
        write_tokenizer(folder, config, ranks)
    if not (folder / PREPROCESSOR_FILE).exists():
        write_json(folder / PREPROCESSOR_FILE, image_processor(config).to_released())
    if not _says(folder / "config.json", config):
        write_json(folder / "config.json", config_to_released(config, dtype))


def _says(file: Path, config: MammothConfig) -> bool:
    """Whether a released configuration is that of this model."""
    if not file.is_file():
        return False
    try:
        shapes = {n: spec.shape for n, spec in _specs(config).items()}
        return config_from_released(read_json(file), shapes) == config
    except InputError:
        return False


def _specs(config: MammothConfig) -> Mapping[str, Spec]:
    parameters = named_parameters(abstract(lambda: Mammoth(config)))
    return released_specs(by_target(expand(model_rules(config)), parameters), parameters)
