"""Host memory of conversion: peak resident size of fresh processes on a synthetic checkpoint.

``python -m mammoth_jax.benchmarks.convert_memory --out DIR`` writes a checkpoint (2 GB, stacks of a tenth of it),
then runs to-jax, to-torch, and loading onto the device from both kinds of folder, each in a process of its own.  From
the peak (``ru_maxrss``) it takes what the process had after its imports and the arrays that it was asked to hold.
"""

import argparse
import dataclasses
import json
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flax import nnx

from checkpoint_convert.rules import Rule, expand, linear
from checkpoint_convert.safetensors_file import ShardedWriter, Spec
from mammoth_jax.core.parameters import abstract
from mammoth_jax.layers.linear import Linear
from mammoth_jax.layers.stack import stack_layers

_FLOAT = np.dtype(np.float32)


@dataclasses.dataclass(frozen=True)
class Synthetic:
    """A model of ``num_stacks`` stacks of ``num_layers`` square maps: the shape of a decoder, without its meaning."""

    num_stacks: int = 11
    num_layers: int = 12
    width: int = 2048

    @property
    def stack_bytes(self) -> int:
        """Size of a stack, the largest array."""
        return self.num_layers * self.width**2 * _FLOAT.itemsize

    @property
    def total_bytes(self) -> int:
        """Size of the checkpoint."""
        return self.num_stacks * self.stack_bytes

    def module(self) -> nnx.Module:
        """Shapes only."""

        def layer() -> Linear:
            return Linear(self.width, self.width, axes=("embed", "mlp"))

        def build() -> nnx.Module:
            return nnx.List([stack_layers(layer, self.num_layers) for _ in range(self.num_stacks)])

        return abstract(build)

    def rules(self) -> list[Rule]:
        """The table, transposing every kernel as the real one does."""
        layers = range(self.num_layers)
        return [
            r
            for i in range(self.num_stacks)
            for r in linear("all", f"stacks.{i}.{{layer}}", str(i), layers=layers)
        ]

    def write(self, folder: Path) -> None:
        """Writes random weights (constant ones would compress) in shards of 500 MB."""
        folder.mkdir(parents=True)
        names = [entry.source for entry in expand(self.rules())]
        spec = Spec((self.width, self.width), _FLOAT)
        writer = ShardedWriter(folder, dict.fromkeys(names, spec), 500 * 10**6)
        generator = np.random.default_rng(0)
        for name in names:
            writer.write(name, generator.standard_normal(spec.shape, np.float32))
        writer.close()


def _to_jax(model: Synthetic, folder: Path) -> int:
    from checkpoint_convert.source import FolderSource
    from checkpoint_convert.to_jax import write_converted

    (folder / "converted").mkdir()
    write_converted(folder / "converted", model.module(), model.rules(), FolderSource(folder / "released"))
    return 0


def _to_torch(model: Synthetic, folder: Path) -> int:
    from checkpoint_convert.converted import ConvertedFolder
    from checkpoint_convert.stream import by_target
    from checkpoint_convert.to_torch import write_released

    converted = ConvertedFolder.open(folder / "converted")
    groups = by_target(expand(model.rules()), converted.targets)
    (folder / "back").mkdir()
    write_released(folder / "back", groups, converted.released, converted.arrays(groups))
    return 0


def _load_released(model: Synthetic, folder: Path) -> int:
    from checkpoint_convert.source import FolderSource
    from checkpoint_convert.stream import load_onto
    from mammoth_jax.core.mesh import single_device_mesh

    load_onto(model.module(), model.rules(), FolderSource(folder / "released"), single_device_mesh())
    return model.total_bytes


def _load_converted(model: Synthetic, folder: Path) -> int:
    from checkpoint_convert.to_jax import load_converted
    from mammoth_jax.core.mesh import single_device_mesh

    load_converted(model.module(), folder / "converted", single_device_mesh())
    return model.total_bytes


STEPS: dict[str, Callable[[Synthetic, Path], int]] = {
    "to-jax": _to_jax,
    "load converted": _load_converted,
    "to-torch": _to_torch,
    "load released": _load_released,
}
"""Each returns how many bytes it was asked to hold."""


def _import_all() -> None:
    """Everything that a step imports, so that the baseline holds it, and a started backend."""
    import jax
    import orbax.checkpoint

    import mammoth_jax.core.mesh  # noqa: F401

    orbax.checkpoint.PyTreeCheckpointer().close()
    jax.block_until_ready(jax.numpy.zeros(1))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(step: str, model: Synthetic, folder: Path) -> dict[str, float]:
    """Runs one step in a fresh process; sizes in bytes, ``stacks`` in units of the largest array."""
    arguments = [
        sys.executable,
        "-m",
        "mammoth_jax.benchmarks.convert_memory",
        "--out",
        str(folder),
        "--step",
        step,
    ]
    for field in dataclasses.fields(model):
        arguments += [f"--{field.name.replace('_', '-')}", str(getattr(model, field.name))]
    done = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _run_step(step: str, model: Synthetic, folder: Path) -> dict[str, float]:
    _import_all()
    model.module()
    before, start = _peak(), time.perf_counter()
    held = STEPS[step](model, folder)
    extra = _peak() - before - held
    return {
        "extra": extra,
        "held": held,
        "stacks": extra / model.stack_bytes,
        "seconds": time.perf_counter() - start,
    }


def main() -> None:
    """Measures every step and prints a line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="scratch folder; must not exist")
    parser.add_argument("--step", choices=sorted(STEPS), help=argparse.SUPPRESS)
    for field in dataclasses.fields(Synthetic):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=int, default=field.default)
    args = parser.parse_args()
    model = Synthetic(args.num_stacks, args.num_layers, args.width)
    if args.step:
        print(json.dumps(_run_step(args.step, model, args.out)))
        return
    import jax
    import orbax.checkpoint

    print(
        f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, jax {jax.__version__}, "
        f"orbax {orbax.checkpoint.__version__}, {jax.default_backend()}; checkpoint {model.total_bytes / 1e9:.2f} GB, "
        f"largest array {model.stack_bytes / 1e6:.0f} MB"
    )
    try:
        model.write(args.out / "released")
        for step in STEPS:
            r = measure(step, model, args.out)
            print(
                f"{step}: {r['extra'] / 1e6:.0f} MB = {r['stacks']:.2f} arrays, {r['seconds']:.1f} s",
                flush=True,
            )
    finally:
        shutil.rmtree(args.out, ignore_errors=True)


if __name__ == "__main__":
    main()
