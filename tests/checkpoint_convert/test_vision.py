"""Vision tables cover both towers exactly, and their configurations survive the released form."""

import numpy as np
import pytest

from checkpoint_convert import vision
from checkpoint_convert.load import load_arrays
from checkpoint_convert.rules import expand
from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.models.backbone.vision_config import Qwen3VLVisionConfig, Qwen25VLVisionConfig
from mammoth_jax.models.backbone.vision_qwen3 import Qwen3VLVision
from mammoth_jax.models.backbone.vision_qwen25 import Qwen25VLVision

QWEN3 = Qwen3VLVisionConfig(
    num_layers=3,
    hidden_size=8,
    intermediate_size=12,
    num_heads=2,
    out_hidden_size=6,
    num_position_embeddings=16,
    deepstack_visual_indexes=(0, 2),
    patch_size=4,
)
QWEN25 = Qwen25VLVisionConfig(
    num_layers=3,
    hidden_size=8,
    intermediate_size=12,
    num_heads=2,
    out_hidden_size=6,
    fullatt_block_indexes=(1,),
    patch_size=4,
)


@pytest.mark.parametrize(("config", "tower"), [(QWEN3, Qwen3VLVision), (QWEN25, Qwen25VLVision)])
def test_vision_table_fills_every_parameter_and_inverts(config, tower):
    module = abstract(lambda: tower(config))
    targets = named_parameters(module)
    entries = expand(vision.rules(config))
    rng = np.random.default_rng(0)
    tensors = {
        e.source: rng.standard_normal(
            e.transform.source_shape(e.layer_shape(targets[e.target].shape)), np.float32
        )
        for e in entries
    }
    loaded = named_parameters(load_arrays(module, vision.rules(config), tensors, "test"))
    for entry in entries:
        array = np.asarray(loaded[entry.target][...])
        back = entry.transform.backward(array if entry.layer is None else array[entry.layer])
        np.testing.assert_array_equal(back, tensors[entry.source], err_msg=entry.source)


def test_qwen3_layers_and_taps_are_stacked():
    shapes = {name: p.shape for name, p in named_parameters(abstract(lambda: Qwen3VLVision(QWEN3))).items()}
    assert shapes["layers.attention.qkv.kernel"] == (3, 8, 3, 2, 4)
    assert shapes["deepstack_mergers.norm.scale"] == (2, 32)
    assert shapes["patch_embed.kernel"] == (3 * 2 * 4 * 4, 8)


@pytest.mark.parametrize("config", [QWEN3, QWEN25])
def test_vision_config_survives_the_released_form(config):
    assert vision.config_from_released(vision.config_to_released(config)) == config
