"""Low-rank adapters as a folder in PEFT's layout: ``adapter_config.json`` and ``adapter_model.safetensors``.

Of a released weight ``[out, in]`` of the module ``NAME`` the factors are ``base_model.model.NAME.lora_A.weight``
``[rank, in]`` and ``base_model.model.NAME.lora_B.weight`` ``[out, rank]``; its change is ``lora_alpha / r`` times B A.
Ours are ``[layers?, *inputs, rank]`` and ``[layers?, rank, *outputs]``: the same numbers, turned over as the weight is.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpoint_convert.folder import read_json
from checkpoint_convert.model import model_rules
from checkpoint_convert.new_folder import new_folder
from checkpoint_convert.rules import Entry, Kernel, Shape, expand
from checkpoint_convert.safetensors_file import ShardedWriter, Spec
from checkpoint_convert.source import FolderSource
from checkpoint_convert.stream import by_target
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.core.precision import parse_dtype
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.mammoth import Mammoth

CONFIG, STEM = "adapter_config.json", "adapter_model"
Factors = dict[str, tuple[np.ndarray, np.ndarray]]
"""A and B of each kernel, by our parameter's name."""

_PREFIX = "base_model.model."
_NAME = re.compile(rf"{re.escape(_PREFIX)}(.+)\.lora_([AB])\.weight")
_NEUTRAL = {
    "use_rslora": False,
    "use_dora": False,
    "fan_in_fan_out": False,
    "rank_pattern": {},
    "alpha_pattern": {},
}
"""Settings of PEFT's that would mean another product, with the values that change nothing."""


def is_adapter_folder(path: Path | str) -> bool:
    """Whether a folder holds adapters and no model."""
    return (Path(path) / CONFIG).is_file()


def save_adapters(
    dst: Path | str,
    config: MammothConfig,
    factors: Mapping[str, tuple[Any, Any]],
    alpha: float,
    base: str | None,
    dtype: str = "float32",
) -> None:
    """Writes adapters.

    Args:
      dst: a folder that does not exist yet.
      config: of the model.
      factors: A and B of each kernel, all of one rank.
      alpha: their change is scaled by ``alpha / rank``.
      base: what model they belong to, for a reader.
      dtype: ``float32`` or ``bfloat16``.

    Raises:
      InputError: a kernel has no released counterpart, or ``dst`` exists or cannot be written.
    """
    groups = _groups(config, factors)
    (rank,) = {a.shape[-1] for a, _ in factors.values()}
    tensors = [x for name, group in groups.items() for x in _released(group, *map(np.asarray, factors[name]))]
    told = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [_module(entry) for group in groups.values() for entry in group],
        "task_type": None,
        "inference_mode": True,
        **_NEUTRAL,
    }
    kind = np.dtype(parse_dtype(dtype))
    with new_folder(dst) as folder:
        specs = {name: Spec(x.shape, kind) for name, x in tensors}
        writer = ShardedWriter(folder, specs, None, STEM)
        for name, x in tensors:
            writer.write(name, x.astype(kind, copy=False))
        writer.close()
        (folder / CONFIG).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def load_adapters(path: Path | str, config: MammothConfig) -> tuple[Factors, int, float]:
    """Adapters of a model of this configuration: factors, rank and alpha.  Layers without one get zeros.

    Raises:
      InputError: the folder is damaged, asks for more than plain adapters, or belongs to another model.
    """
    path = Path(path)
    told = read_json(path / CONFIG)
    _check_settings(path, told)
    source, rank = FolderSource(path), int(told["r"])
    found: dict[str, dict[str, str]] = {}
    for name in source.specs:
        match = _NAME.fullmatch(name)
        if match is None:
            raise InputError(
                f"{path}: {name} is no factor of an adapter; expected {_PREFIX}MODULE.lora_A.weight"
            )
        found.setdefault(match.group(1), {})[match.group(2)] = name
    entries = {_module(e): e for e in expand(model_rules(config)) if isinstance(e.transform, Kernel)}
    shapes = {n: tuple(p.shape) for n, p in named_parameters(abstract(lambda: Mammoth(config))).items()}
    out: Factors = {}
    for module, names in found.items():
        entry = entries.get(module)
        if entry is None or len(names) != 2:
            wrong = "is no linear map of this model" if entry is None else "lacks one of its two factors"
            raise InputError(
                f"{path}: {module} {wrong}; the adapters belong to another model, or are damaged"
            )
        shape = shapes[entry.target]
        if entry.target not in out:
            out[entry.target] = _zeros(entry, shape, rank)
        a, b = (np.asarray(source.read(names[side]), np.float32) for side in "AB")
        _fill(out[entry.target], entry, a, b, f"{path}: {module}")
    return out, rank, float(told["lora_alpha"])


def _groups(config: MammothConfig, factors: Mapping[str, Any]) -> dict[str, list[Entry]]:
    groups = by_target(expand(model_rules(config)), factors)
    for name, group in groups.items():
        if not group or not all(isinstance(entry.transform, Kernel) for entry in group):
            raise InputError(f"{name} is no linear map in the released format; its adapter cannot be written")
    return groups


def _module(entry: Entry) -> str:
    """The name of the module that a released weight belongs to."""
    return entry.source.removesuffix(".weight")


def _released(group: Sequence[Entry], a: np.ndarray, b: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The released factors of one kernel, layer by layer."""
    rank = a.shape[-1]
    for entry in group:
        own_a, own_b = (x if entry.layer is None else x[entry.layer] for x in (a, b))
        inputs, ones = _kernel_shape(entry)
        down = own_a.reshape(-1, rank).T
        up = own_b.reshape(rank, -1).T
        yield f"{_PREFIX}{_module(entry)}.lora_A.weight", down.reshape(rank, *inputs) if inputs else down
        yield f"{_PREFIX}{_module(entry)}.lora_B.weight", up.reshape(*up.shape, *ones)


def _kernel_shape(entry: Entry) -> tuple[Shape, Shape]:
    """Of a convolution: the shape of its inputs, and the ones behind B's two dimensions; nothing of a linear layer."""
    assert isinstance(entry.transform, Kernel)
    source = entry.transform.source
    return ((), ()) if source is None or len(source) == 2 else (source[1:], (1,) * (len(source) - 2))


def _zeros(entry: Entry, shape: Shape, rank: int) -> tuple[np.ndarray, np.ndarray]:
    assert isinstance(entry.transform, Kernel)
    first = 0 if entry.layer is None else 1
    last = first + entry.transform.num_inputs
    return (
        np.zeros((*shape[:last], rank), np.float32),
        np.zeros((*shape[:first], rank, *shape[last:]), np.float32),
    )


def _fill(
    ours: tuple[np.ndarray, np.ndarray], entry: Entry, a: np.ndarray, b: np.ndarray, where: str
) -> None:
    """Writes the released factors of one layer into ours."""
    own = [x if entry.layer is None else x[entry.layer] for x in ours]
    rank = own[0].shape[-1]
    inputs, outputs = own[0].size // rank, own[1].size // rank
    down, up = a.reshape(len(a), -1), b.reshape(len(b), -1)
    if down.shape != (rank, inputs) or up.shape != (outputs, rank):
        raise InputError(
            f"{where} has factors {list(a.shape)} and {list(b.shape)}, expected [{rank}, {inputs}] and "
            f"[{outputs}, {rank}]; they belong to another model"
        )
    own[0][...] = down.T.reshape(own[0].shape)
    own[1][...] = up.T.reshape(own[1].shape)


def _check_settings(path: Path, told: Mapping[str, Any]) -> None:
    if told.get("peft_type") != "LORA" or not isinstance(told.get("r"), int) or told["r"] < 1:
        raise InputError(
            f"{path / CONFIG}: peft_type {told.get('peft_type')!r}, r {told.get('r')!r}: expected LORA and a rank"
        )
    alpha = told.get("lora_alpha")
    if not isinstance(alpha, int | float) or not 0 < alpha < math.inf:
        raise InputError(f"{path / CONFIG}: lora_alpha {alpha!r}: expected a number above 0")
    for key, neutral in _NEUTRAL.items():
        if told.get(key, neutral) not in (neutral, None):
            raise InputError(
                f"{path / CONFIG}: {key} {told[key]!r} is not supported; merge the adapters with their own tool"
            )
