"""What a joint run began from, written down in its folder (``origin.json``) before the first step.

``--init`` is part of a command and not of a configuration, but those who read the run need it: MammothTok and the VAE
may be in that folder, and a tensor that was not trained goes back to the released format in the dtype it had there.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from checkpoint_convert.converted import ConvertedFolder, is_converted
from checkpoint_convert.model import model_rules
from checkpoint_convert.rules import expand
from checkpoint_convert.source import FolderSource
from mammoth_jax.core.config import decode, load_yaml
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.files import write_text_whole
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.training.checkpoint import complete_steps
from mammoth_jax.training.joint_config import FrozenFiles
from mammoth_jax.training.runs import CONFIG, is_run, split_step, trained_names, with_step
from mammoth_jax.training.start_weights import parts_of
from mammoth_jax.training.tokenizer_kinds import KINDS

FILE = "origin.json"


@dataclasses.dataclass(frozen=True)
class Origin:
    """Attributes:

    init: the folder or ``RUN@STEP`` of ``--init``, absolute; None for random weights.
    dtypes: of the released tensors that came from a folder, where they are not float32.
    """

    init: str | None = None
    dtypes: Mapping[str, str] = dataclasses.field(default_factory=dict)


def keep_origin(run: Path, init: Path | str | None, config: MammothConfig) -> None:
    """Writes what the run begins from, in place of an earlier start's; of several hosts the first one does."""
    if jax.process_index() != 0:
        return
    origin = Origin()
    if init is not None:
        path, step = split_step(with_step(init) if is_run(init) else init)
        where = f"{path.resolve()}" + ("" if step is None else f"@{step}")
        held = kept_dtypes(init, config) if is_run(init) else folder_dtypes(init)
        origin = Origin(where, {name: str(x) for name, x in held.items() if x != np.float32})
    write_text_whole(run / FILE, json.dumps(dataclasses.asdict(origin)) + "\n")


def read_origin(run: Path | str) -> Origin:
    """What a run began from; nothing is known of one that has no such file.

    Raises:
      InputError: the file is damaged.
    """
    file = split_step(run)[0] / FILE
    if not file.is_file():
        return Origin()
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        return Origin(data["init"], dict(data["dtypes"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged ({error!r}); copy the run again") from error


def start_of(run: Path, init: str | None) -> str | None:
    """What a run starts from: ``init``, until it has a checkpoint; from then on what it began with, if that is there.

    Raises:
      InputError: the run goes on, and ``init`` is another place than the one that it began with.
    """
    if not complete_steps(run) or not (run / FILE).is_file():
        return init
    began = read_origin(run).init
    if init is None:
        return began if began is not None and split_step(began)[0].exists() else None
    if began is None or not _is_same(init, began):
        raise InputError(
            f"--init {init}: {run} has a checkpoint to go on from, and began with {began or 'random weights'}; give "
            f"that or no --init, or take a new --out (if that folder was moved, say where to in {run / FILE})"
        )
    return began


def _is_same(init: str, began: str) -> bool:
    """Whether ``init`` names what is written down; a run without a step does, whatever its newest one is by now."""
    (folder, step), (kept, kept_step) = split_step(init), split_step(began)
    return folder.resolve() == kept and step in (None, kept_step)


def folder_dtypes(path: Path | str) -> dict[str, np.dtype]:
    """Dtype of every released tensor of a model folder."""
    specs = ConvertedFolder.open(path).released if is_converted(path) else FolderSource(path).specs
    return {name: spec.dtype for name, spec in specs.items()}


def kept_dtypes(run: Path | str, config: MammothConfig) -> dict[str, np.dtype]:
    """Dtypes of the released tensors that a run was given and has not trained, where they are not float32."""
    trained = trained_names(run)
    changed = {entry.source for entry in expand(model_rules(config)) if entry.target in trained}
    return {n: jnp.dtype(dtype) for n, dtype in read_origin(run).dtypes.items() if n not in changed}


def tokenizer_paths(files: FrozenFiles, init: str | None) -> dict[str, str | None]:
    """Where MammothTok and the VAE are, ``None`` where nobody says: as configured, else the folder of ``--init``.

    Raises:
      InputError: ``init`` is no model folder.
    """
    held = frozenset() if init is None or is_run(init) else parts_of(init)
    return {
        "mammothtok": files.mammothtok or (init if "mammothtok_encoder" in held else None),
        "vae": files.vae or (init if "vae" in held else None),
    }


def tokenizer_source(path: Path | str, part: str) -> str:
    """Where a tokenizer itself is: the path, or for a run of joint training where that run found it.

    Raises:
      InputError: such a run names none, or its configuration is damaged.
    """
    told = load_yaml(split_step(path)[0] / CONFIG) if is_run(path) else None
    if told is None or told.get("task") in KINDS:
        return str(path)
    files = decode(FrozenFiles, told.get("frozen") or {}, "frozen")
    named = tokenizer_paths(files, read_origin(path).init)[part]
    if named is None:
        raise InputError(f"{path} names no {part} (frozen.{part}); give a run or folder that has one")
    return tokenizer_source(named, part)
