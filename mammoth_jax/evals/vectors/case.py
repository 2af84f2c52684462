"""One recorded case of a vector set: its configuration, weights, inputs and expected outputs, read lazily."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from mammoth_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class Case:
    """A case of the file ``cases.json`` in ``root``; ``entry`` is its record there."""

    root: Path
    entry: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The case's name, which selects the code that runs it."""
        return self.entry["name"]

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The case's ``config.json``."""
        return json.loads((self.root / self.entry["config"]).read_text(encoding="utf-8"))

    @functools.cached_property
    def inputs(self) -> dict[str, np.ndarray]:
        """Input tensors by name (empty for JSON-only cases)."""
        return self._tensors("inputs.safetensors")

    @functools.cached_property
    def expected(self) -> dict[str, np.ndarray]:
        """Recorded output tensors by name."""
        return self._tensors("outputs.safetensors")

    @property
    def tolerances(self) -> dict[str, float]:
        """Absolute tolerance of each output; 0 is exact."""
        return {name: float(spec["tolerance"]) for name, spec in self.entry["outputs"].items()}

    @property
    def weights_path(self) -> Path:
        """The weights' file, or the checkpoint folder."""
        if "weights" not in self.entry:
            raise InputError(f"case {self.name}: no weights are recorded")
        return self.root / self.entry["weights"]

    @functools.cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """Released-name tensors; a checkpoint folder is read whole."""
        path = self.weights_path
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        files = [f for f in files if f.name not in ("inputs.safetensors", "outputs.safetensors")]
        return {name: array for file in files for name, array in load_file(file).items()}

    def _tensors(self, file: str) -> dict[str, np.ndarray]:
        path = self.root / self.name / file
        return load_file(path) if path.is_file() else {}


Runner = Callable[[Case], dict[str, Any]]
"""Runs our code on a case: recorded output name to array; ``@a.b.0.c`` names a leaf of the case's ``config.json``."""
