"""Training runs on disk: what they were told, and the weights of their checkpoints."""

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from mammoth_jax.core.config import decode, dump_yaml, encode, load_yaml
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.files import prepare_output_folder, write_text_whole
from mammoth_jax.core.parameters import named_parameters, with_parameters
from mammoth_jax.training.checkpoint import FOLDER, complete_steps
from mammoth_jax.training.hosts import gather
from mammoth_jax.training.lora import A, AdapterWeights, B, LoRA
from mammoth_jax.training.state import parameter_shardings

CONFIG, FROZEN = "config.yaml", "frozen"
_FREE = {
    "run": {
        "log_interval",
        "checkpoint_interval",
        "keep_last",
        "keep_every",
        "loggers",
        "profile_steps",
        "rules",
    }
}
"""Settings that may change from one start of a run to the next; the others decide what it computes."""


def is_run(path: Path | str) -> bool:
    """Whether ``RUN`` or ``RUN@STEP`` names a training run."""
    return (split_step(path)[0] / CONFIG).is_file() and (split_step(path)[0] / FOLDER).is_dir()


def split_step(path: Path | str) -> tuple[Path, int | None]:
    """``RUN@STEP`` as folder and step; ``RUN`` has step ``None``, its newest checkpoint."""
    found = re.fullmatch(r"(.+)@(\d+)", str(path))
    return (Path(found.group(1)), int(found.group(2))) if found else (Path(path), None)


def with_step(path: Path | str) -> str:
    """``RUN@STEP`` for ``RUN``, by its newest checkpoint.

    Raises:
      InputError: there is no such checkpoint.
    """
    return f"{split_step(path)[0]}@{_checkpoint(path).parent.name}"


def recorded_rules(run: Path) -> str | None:
    """The sharding rules that a run was last started with; None where none were given, or there is no run.

    Raises:
      InputError: its configuration is damaged.
    """
    return (load_yaml(run / CONFIG).get("run") or {}).get("rules") if (run / CONFIG).exists() else None


def open_run(run: Path, config: Any) -> None:
    """Makes a run's folder and writes its resolved configuration; of a run that is there, checks that it is the same
    but for settings that may change, and writes those.

    Of several hosts the first one does; all learn what it found.

    Raises:
      InputError: the folder cannot be written, or holds a run of another configuration.
    """
    problem = None
    if jax.process_index() == 0:
        try:
            _open_run(run, config)
        except InputError as error:
            problem = str(error)
    problem = gather(problem)[0]
    if problem is not None:
        raise InputError(problem)


def _open_run(run: Path, config: Any) -> None:
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
        if before.get(key) != now.get(key) and key.split("[")[0] not in free and _is_read(key, now)
    ]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise InputError(
            f"{run} is a run of another configuration: {'; '.join(changed[:3])}{more}; take a new --out, with "
            f"--init {run} to start from its weights"
        )
    if before != now:
        write_text_whole(file, dump_yaml(config))


def _with_defaults(data: dict[str, Any], kind: type) -> dict[str, Any]:
    """A configuration as written, and the defaults of settings that did not exist when it was."""
    try:
        return encode(decode(kind, data))
    except InputError:  # of settings that exist no more
        return data


def _is_read(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a run reads a setting: one of a tokenizer reads, of the model, its own section alone."""
    own = f"model.{config.get('task')}."
    return not key.startswith("model.") or key.startswith(own) or not any(k.startswith(own) for k in config)


def _flat(data: Any, path: str = "") -> dict[str, Any]:
    if isinstance(data, dict):
        return {
            k: v for key, x in data.items() for k, v in _flat(x, f"{path}.{key}" if path else key).items()
        }
    if isinstance(data, (list, tuple)) and any(isinstance(x, (dict, list)) for x in data):
        return {k: v for i, x in enumerate(data) for k, v in _flat(x, f"{path}[{i}]").items()}
    return {path: list(data) if isinstance(data, tuple) else data}


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
    wanted = {name: tuple(p.shape) for name, p in named_parameters(template).items()}
    found = held_shapes(path, player)
    if found != wanted:
        differ = sorted(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))
        name = differ[0]
        raise InputError(
            f"{path} does not hold this model: {len(differ)} parameters differ, e.g. {name} is "
            f"{found.get(name, 'absent')}, expected {wanted.get(name, 'absent')}"
        )
    return with_parameters(template, read_arrays(path, abstract_arrays(template, mesh), player))


def abstract_arrays(
    template: nnx.Module, mesh: Mesh, dtype: DTypeLike = np.float32
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and place of every parameter of a module, in one dtype."""
    places = parameter_shardings(template, mesh)
    return {
        name: jax.ShapeDtypeStruct(p.shape, dtype, sharding=places[name])
        for name, p in named_parameters(template).items()
    }


def held_shapes(path: Path | str, player: str = "model") -> dict[str, tuple[int, ...]]:
    """Shapes of a player's weights in a run: those that it trains, and those that it was given and keeps.

    Raises:
      InputError: there is no such checkpoint.
    """
    run = split_step(path)[0]
    saved = _weights(_checkpoint(path), player)[1]
    if player == "model" and (run / FROZEN).is_dir():
        saved = {**_metadata((run / FROZEN).resolve()), **saved}
    return {name: tuple(x.shape) for name, x in saved.items() if not _is_factor(name)}


def trained_names(path: Path | str) -> frozenset[str]:
    """The parameters of the model that a run changes: those that it trains, or the kernels that its adapters change.

    Raises:
      InputError: there is no such checkpoint.
    """
    saved = _weights(_checkpoint(path), "model")[1]
    return frozenset(name.removesuffix(A).removesuffix(B) for name in saved)


def read_arrays(
    path: Path | str, wanted: Mapping[str, jax.ShapeDtypeStruct], player: str = "model"
) -> dict[str, jax.Array]:
    """Those of the wanted arrays that a run holds, each where it is wanted; adapters are merged into their kernels.

    Raises:
      InputError: there is no such checkpoint, or an array has another shape in it.
    """
    run, folder = split_step(path)[0], _checkpoint(path)
    with ocp.PyTreeCheckpointer() as reader:
        kept, saved = _weights(folder, player)
        own = {name: x for name, x in wanted.items() if name in saved}
        _check_shapes(path, own, saved)
        out = _partly(reader, folder, {kept: {player: own}})[kept][player] if own else {}
    if player != "model":
        return out
    adapted = {name: x for name, x in wanted.items() if name + A in saved}
    exact = {n: jax.ShapeDtypeStruct(x.shape, np.float32, sharding=x.sharding) for n, x in adapted.items()}
    out |= read_frozen(run, {n: exact.get(n, x) for n, x in wanted.items() if n not in own})
    if adapted:
        mesh = next(iter(adapted.values())).sharding.mesh
        merged = read_adapters(path, mesh, adapted).merged({n: out[n] for n in adapted if n in out})
        out |= {name: x.astype(wanted[name].dtype) for name, x in merged.items()}
    return out


def read_carried(path: Path | str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What objectives of a run kept from step to step (``TrainState.carried``), the wanted arrays by their names alone.

    Raises:
      InputError: there is no such checkpoint.
    """
    with ocp.PyTreeCheckpointer() as reader:
        return _partly(reader, _checkpoint(path), {"carried": dict(wanted)})["carried"]


def read_adapters(path: Path | str, mesh: Mesh, kernels: Iterable[str] | None = None) -> AdapterWeights:
    """The adapters of a run (of these kernels; None is all), float32, on every device.

    Raises:
      InputError: there is no such checkpoint, or the run trains whole parameters.
    """
    told = load_yaml(split_step(path)[0] / CONFIG).get("lora")
    if told is None:
        raise InputError(f"{path} is a run without adapters (lora); give it as --model")
    everywhere = NamedSharding(mesh, PartitionSpec())
    folder = _checkpoint(path)
    with ocp.PyTreeCheckpointer() as reader:
        kept, saved = _weights(folder, "model")
        names = list(saved) if kernels is None else [name + suffix for name in kernels for suffix in (A, B)]
        wanted = {
            name: jax.ShapeDtypeStruct(tuple(saved[name].shape), np.float32, sharding=everywhere)
            for name in names
        }
        factors = _partly(reader, folder, {kept: {"model": wanted}})[kept]["model"]
    config = decode(LoRA, told, "lora")
    return AdapterWeights(factors, config.rank, config.alpha)


def save_frozen(run: Path, arrays: Mapping[str, jax.Array]) -> None:
    """Writes the weights that a run reads and never trains, in place of an earlier start's; checkpoints lack them."""
    folder = (run / FROZEN).resolve()
    if arrays:
        with ocp.PyTreeCheckpointer() as writer:
            writer.save(folder, dict(arrays), force=True)
    elif jax.process_index() == 0:
        shutil.rmtree(folder, ignore_errors=True)


def read_frozen(run: Path, wanted: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Those of the wanted arrays that the run was given and keeps.

    Raises:
      InputError: an array has another shape there.
    """
    folder = (run / FROZEN).resolve()
    if not folder.is_dir():
        return {}
    with ocp.PyTreeCheckpointer() as reader:
        saved = _metadata(folder)
        own = {name: x for name, x in wanted.items() if name in saved}
        _check_shapes(run, own, saved)
        return _partly(reader, folder, own) if own else {}


def _checkpoint(path: Path | str) -> Path:
    """The folder of a checkpoint's state."""
    run, step = split_step(path)
    steps = complete_steps(run)
    step = step if step is not None else (steps[-1] if steps else None)
    if step not in steps:
        raise InputError(
            f"{path}: no checkpoint{'' if step is None else f' of step {step}'}; there are {steps or 'none'}"
        )
    return (run / FOLDER / str(step) / "state").resolve()


def _metadata(folder: Path) -> Any:
    """The tree of a saved folder, as shapes; by the handler, for the checkpointer warns of a file that steps lack."""
    return ocp.PyTreeCheckpointHandler().metadata(folder).tree


def _weights(folder: Path, player: str) -> tuple[str, Mapping[str, Any]]:
    """Where a checkpoint has a player's weights, and their metadata by name."""
    held = _metadata(folder)
    kept = "ema" if held["ema"] and player in held["ema"] else "params"
    return kept, held[kept].get(player, {})


def _is_factor(name: str) -> bool:
    return name.endswith((A, B))


def _check_shapes(path: Path | str, wanted: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    for name, x in wanted.items():
        if tuple(saved[name].shape) != tuple(x.shape):
            raise InputError(
                f"{path}: {name} is {tuple(saved[name].shape)}, expected {tuple(x.shape)}; it is of another model"
            )


def _partly(reader: Any, folder: Path, target: Any) -> Any:
    """The arrays of ``target`` alone out of a saved tree."""
    arguments = ocp.checkpoint_utils.construct_restore_args(target)
    return reader.restore(
        folder, args=ocp.args.PyTreeRestore(item=target, restore_args=arguments, partial_restore=True)
    )
