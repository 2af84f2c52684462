"""The recorded cases: they pass as they are, and each misses once a single weight is one percent off.

The small sets that the repository holds are always run.  ``MAMMOTH_VECTORS=FOLDER[:FOLDER...] pytest -m slow`` does
the same for every known case of whole sets.
"""

import fnmatch
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mammoth_jax.evals.vectors.case import Case
from mammoth_jax.evals.vectors.verify import check_case, known_runners, read_set

HERE = Path(__file__).resolve().parent.parent / "vectors"
SMALL = [case for name in ("text", "mammothtok") for case in read_set(HERE / name)]
GIVEN = [Path(folder) for folder in os.environ.get("MAMMOTH_VECTORS", "").split(os.pathsep) if folder]
WHOLE = [case for folder in GIVEN for case in read_set(folder)]

SEEN = (
    "*language_model.layers.0.mlp.down_proj.weight",
    "*x_embedder.weight",
    "*layers.0.cross_attn.out_proj.weight",
    "encoder.conv_out.weight",
    "post_quant_conv.weight",
    "quant_conv.weight",
    "embedding.weight",
)
"""Weights that move an output: not the input of a normalisation.  The first pattern that a case's weights match."""
TOWER = "*visual.blocks.0.attn.proj.weight"
"""The weight to scale in the towers' cases, whose files hold a decoder too."""


@pytest.fixture(scope="module")
def known():
    """Runners and required leaves by case name."""
    return known_runners()


def run(case, known):
    """The report of a case."""
    runners, compared = known
    return check_case(case, runners[case.name], compared.get(case.name))


def with_scaled_weight(case: Case, folder: Path, factor: float) -> Case:
    """A copy of the case's set in ``folder`` in which one weight is multiplied by ``factor``."""
    copy = folder / "set"
    shutil.copytree(case.root, copy, copy_function=shutil.copyfile)
    path = copy / case.entry["weights"]
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    for pattern in (TOWER,) if "vision_tower" in case.name else SEEN:
        for file in files:
            tensors = load_file(file)
            for name in fnmatch.filter(tensors, pattern):
                tensors[name] = (tensors[name] * np.float32(factor)).astype(tensors[name].dtype)
                save_file(tensors, file)
                return Case(copy, case.entry)
    raise AssertionError(f"{case.name}: none of {SEEN} is among its weights")


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_a_recorded_case_passes_and_misses_with_one_weight_scaled(case, known, tmp_path):
    report = run(case, known)
    assert report.passed, (report.problem, report.worst)
    scaled = run(with_scaled_weight(case, tmp_path, 1.01), known)
    assert scaled.problem is None and not scaled.passed


@pytest.mark.slow
@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.name)
def test_every_known_case_of_the_given_sets_passes_and_misses_with_one_weight_scaled(case, known, tmp_path):
    if case.name not in known[0]:
        return  # verify reports it as not run
    report = run(case, known)
    assert report.passed, (report.problem, report.worst)
    if "weights" in case.entry:
        scaled = run(with_scaled_weight(case, tmp_path, 1.01), known)
        assert scaled.problem is None and not scaled.passed
