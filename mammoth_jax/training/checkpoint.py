"""Checkpoints of a run: the state, the position in the data, and nothing half written.

A thin wrapper of Orbax: saves run in the background and appear under their step by a rename; what a killed process left
is removed at the next start.  A step is a folder ``checkpoints/STEP`` with the items ``state`` and ``data``.  Whoever
only reads a run looks for :func:`complete_steps`: its trainer may be writing the next one meanwhile.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.files import disk_reason
from mammoth_jax.training.state import TrainState

FOLDER = "checkpoints"


class SaveFailed(Exception):
    """A checkpoint could not be written; the complete ones are untouched."""


def complete_steps(run: Path) -> list[int]:
    """The steps of a run that can be read, oldest first; nothing in its folder is touched."""
    return sorted(int(folder.name) for folder in (run / FOLDER).glob("*") if folder.name.isdigit())


class Checkpoints:
    """The checkpoints of one run, for whoever trains it: to open them removes what another is writing.

    Args:
      run: the run's folder.
      keep_last: how many of the newest are kept.
      keep_every: steps that are multiples of it are kept for good; None keeps none of them.
    """

    def __init__(self, run: Path, *, keep_last: int = 2, keep_every: int | None = None):
        folder = (run / FOLDER).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(
            folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep_last, keep_period=keep_every, cleanup_tmp_directories=True
            ),
            item_handlers={"state": ocp.StandardCheckpointHandler(), "data": ocp.JsonCheckpointHandler()},
        )

    def latest(self) -> int | None:
        """The newest complete step, ``None`` if there is none."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """All complete steps, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: TrainState, data: dict[str, Any]) -> None:
        """Starts a save; returns when the arrays may change again.  A step that is there already is left alone.

        Raises:
          SaveFailed: this save could not begin, or the one before it did not end.
        """
        if step in self._manager.all_steps():
            return
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(as_tree(state)), data=ocp.args.JsonSave(data)
        )
        with self._writing():
            self._manager.save(step, args=arguments, force=True)

    def close(self) -> None:
        """Finishes what is under way and frees the threads.

        Raises:
          SaveFailed: what was under way could not be written.
        """
        with self._writing():  # both: of two writes that failed, each may raise its own error
            try:
                self._manager.wait_until_finished()
            finally:
                self._manager.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # TensorStore raises the latter, whatever the disk says
            kept = self.steps()
            last = f"the last complete one is of step {kept[-1]}" if kept else "there is none yet"
            raise SaveFailed(
                f"a checkpoint could not be written: {disk_reason(error)}; {last}. Make room, then the same "
                "command goes on from it"
            ) from error

    def restore(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The state (arrays where those of ``like`` lie, on whatever mesh it was saved) and the position in the data.

        Raises:
          InputError: no such step, or its arrays are not those of this configuration.
        """
        if step not in self._manager.all_steps():
            raise InputError(f"no checkpoint of step {step}; there are {self.steps() or 'none'}")
        target = jax.tree.map(_abstract, as_tree(like))
        self._compare(step, target)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardRestore(target), data=ocp.args.JsonRestore()),
        )
        return TrainState(**restored["state"]), restored["data"]

    def _compare(self, step: int, target: Any) -> None:
        saved = _shapes(self._manager.item_metadata(step)["state"].tree)
        wanted = _shapes(target)
        problems = [
            f"{name}: saved {saved.get(name, 'nothing')}, this configuration {wanted.get(name, 'nothing')}"
            for name in sorted(saved.keys() | wanted.keys())
            if saved.get(name) != wanted.get(name)
        ]
        if problems:
            more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise InputError(
                f"checkpoint {step} is of another configuration: {'; '.join(problems[:3])}{more}; resume with the "
                "config.yaml of the run, or start a new run with --init"
            )


def as_tree(state: TrainState) -> dict[str, Any]:
    """The state as nested dictionaries, the form in which it is stored."""
    tree = {
        "step": state.step,
        "params": state.params,
        "optimizer": state.optimizer,
        "ema": state.ema,
        "carried": state.carried,
    }
    return tree | ({"guard": state.guard} if state.guard else {})


def _abstract(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _shapes(tree: Any) -> dict[str, str]:
    """Shape and dtype of every array by path, the same for a tree of arrays and for Orbax's account of one."""
    out = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        keys = [str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path]
        out["/".join(keys)] = f"{leaf.dtype}{list(leaf.shape)}"
    return out
