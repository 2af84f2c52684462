"""Training runs on disk: what they were told, and the weights of their checkpoints."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import Mesh

from mammoth_jax.core.config import decode, dump_yaml, encode, load_yaml
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.files import prepare_output_folder, write_text_whole
from mammoth_jax.core.parameters import named_parameters, with_parameters
from mammoth_jax.training.checkpoint import FOLDER, Checkpoints
from mammoth_jax.training.state import parameter_shardings

CONFIG = "config.yaml"
_FREE = {
    "run": {"log_interval", "checkpoint_interval", "keep_last", "keep_every", "loggers", "profile_steps"}
}
"""Settings that may change from one start of a run to the next; the others decide what it computes."""


def is_run(path: Path | str) -> bool:
    """Whether ``RUN`` or ``RUN@STEP`` names a training run."""
    return (split_step(path)[0] / CONFIG).is_file() and (split_step(path)[0] / FOLDER).is_dir()


def split_step(path: Path | str) -> tuple[Path, int | None]:
    """``RUN@STEP`` as folder and step; ``RUN`` has step ``None``, its newest checkpoint."""
    found = re.fullmatch(r"(.+)@(\d+)", str(path))
    return (Path(found.group(1)), int(found.group(2))) if found else (Path(path), None)


def open_run(run: Path, config: Any) -> None:
    """Makes a run's folder and writes its resolved configuration, or checks that it is the same run.

    Raises:
      InputError: the folder cannot be written, or holds a run of another configuration.
    """
    prepare_output_folder(run)
    file = run / CONFIG
    if not file.exists():
        if any(run.iterdir()):
            raise InputError(f"{run} holds files but no run; choose an empty or a new folder")
        write_text_whole(file, dump_yaml(config))
        return
    before, now = _flat(_with_defaults(load_yaml(file), type(config))), _flat(encode(config))
    free = {f"{section}.{name}" for section, names in _FREE.items() for name in names}
    changed = [
        f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key.split("[")[0] not in free
    ]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise InputError(
            f"{run} is a run of another configuration: {'; '.join(changed[:3])}{more}; take a new --out, with "
            f"--init {run} to start from its weights"
        )


def _with_defaults(data: dict[str, Any], kind: type) -> dict[str, Any]:
    """A configuration as written, and the defaults of settings that did not exist when it was."""
    try:
        return encode(decode(kind, data))
    except InputError:  # of settings that exist no more
        return data


def _flat(data: Any, path: str = "") -> dict[str, Any]:
    if isinstance(data, dict):
        return {
            k: v for key, x in data.items() for k, v in _flat(x, f"{path}.{key}" if path else key).items()
        }
    if isinstance(data, (list, tuple)) and any(isinstance(x, (dict, list)) for x in data):
        return {k: v for i, x in enumerate(data) for k, v in _flat(x, f"{path}[{i}]").items()}
    return {path: list(data) if isinstance(data, tuple) else data}


def read_config(path: Path | str, kind: type) -> Any:
    """The resolved configuration of a run.

    Raises:
      InputError: there is none, or it is of another kind of training.
    """
    return decode(kind, load_yaml(split_step(path)[0] / CONFIG))


def load_weights(path: Path | str, template: nnx.Module, mesh: Mesh, player: str = "model") -> nnx.Module:
    """A player's weights out of a run, its moving average where one was kept; nothing else is read.

    Args:
      path: ``RUN`` or ``RUN@STEP``.
      template: the module's structure.
      mesh: devices.
      player: whose weights.

    Raises:
      InputError: there is no such checkpoint, or it is of another module.
    """
    run, step = split_step(path)
    checkpoints = Checkpoints(run)
    steps = checkpoints.steps()
    checkpoints.close()
    step = step if step is not None else (steps[-1] if steps else None)
    if step not in steps:
        raise InputError(
            f"{path}: no checkpoint{'' if step is None else f' of step {step}'}; there are {steps or 'none'}"
        )
    folder = (run / FOLDER / str(step) / "state").resolve()
    with ocp.PyTreeCheckpointer() as reader:
        held = reader.metadata(folder).item_metadata.tree
        kept = "ema" if held["ema"] and player in held["ema"] else "params"
        saved = held[kept].get(player, {})
        places = parameter_shardings(template, mesh)
        wanted = {name: tuple(p.shape) for name, p in named_parameters(template).items()}
        found = {name: tuple(x.shape) for name, x in saved.items()}
        if found != wanted:
            differ = sorted(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))
            name = differ[0]
            raise InputError(
                f"{path} does not hold this model: {len(differ)} parameters differ, e.g. {name} is "
                f"{found.get(name, 'absent')}, expected {wanted.get(name, 'absent')}"
            )
        target = {
            kept: {
                player: {
                    name: jax.ShapeDtypeStruct(shape, np.float32, sharding=places[name])
                    for name, shape in wanted.items()
                }
            }
        }
        arguments = ocp.checkpoint_utils.construct_restore_args(target)
        restored = reader.restore(
            folder, args=ocp.args.PyTreeRestore(item=target, restore_args=arguments, partial_restore=True)
        )
    return with_parameters(template, restored[kept][player])
