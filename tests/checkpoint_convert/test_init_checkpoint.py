"""``init`` writes a folder that the whole chain reads."""

import pytest

from checkpoint_convert.folder import ModelFolder
from checkpoint_convert.init_checkpoint import init_checkpoint
from checkpoint_convert.model import model_rules
from checkpoint_convert.source import FolderSource
from checkpoint_convert.stream import fit
from checkpoint_convert.to_jax import to_jax
from checkpoint_convert.to_torch import to_torch
from mammoth_jax.models.mammoth import PARTS
from mammoth_jax.processing.generation_config import GenerationSettings
from tests.checkpoint_convert.folders import tiny


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_init_folder_is_complete_and_round_trips(tmp_path, family, dtype):
    config = tiny(family)
    init_checkpoint(config, tmp_path / "init", seed=3, dtype=dtype)
    opened = ModelFolder.open(tmp_path / "init")
    assert opened.config == config
    assert opened.model.parts == frozenset(PARTS)
    fit(opened.model, model_rules(config), opened.source)
    settings = GenerationSettings.from_folder(tmp_path / "init", 1024 + 1040)
    assert settings.visual_end - settings.visual_start == config.mammothtok.codebook_size
    to_jax(tmp_path / "init", tmp_path / "jax")
    to_torch(tmp_path / "jax", tmp_path / "back")
    a, b = FolderSource(tmp_path / "init"), FolderSource(tmp_path / "back")
    assert dict(a.specs) == dict(b.specs)
    assert {str(spec.dtype) for spec in a.specs.values()} == {dtype}
    assert all(a.read(name).tobytes() == b.read(name).tobytes() for name in a.specs)


def test_seed_decides_the_weights(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        init_checkpoint(tiny("qwen3_vl"), tmp_path / name, seed=seed)
    a, b, c = (FolderSource(tmp_path / name) for name in "abc")
    kernel = "gen_transformer.layers.0.attn.to_q.weight"
    assert (a.read(kernel) == b.read(kernel)).all() and (a.read(kernel) != c.read(kernel)).any()
