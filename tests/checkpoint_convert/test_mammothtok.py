"""The tokenizer's table covers it exactly both ways, and its sizes are read from shapes or released arguments."""

import dataclasses

import numpy as np
import pytest

from checkpoint_convert import mammothtok
from checkpoint_convert.load import load_arrays
from checkpoint_convert.rules import expand
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.models.mammothtok import (
    CNNDecoderConfig,
    EncoderConfig,
    MammothTok,
    MammothTokConfig,
    ViTDecoderConfig,
)

CONFIG = MammothTokConfig(
    encoder=EncoderConfig(patch_size=14, width=128, mlp_width=20, num_layers=2, num_heads=1),
    codebook_size=40,
    code_dim=4,
    z_channels=128,
    vit=ViTDecoderConfig(width=64, num_layers=5, num_heads=1, distill_depth=3, semantic_width=6),
    cnn=CNNDecoderConfig(channels=32, multipliers=(2, 1, 1, 1, 2), num_res_blocks=1),
)
NANO = dataclasses.replace(
    CONFIG,
    encoder=dataclasses.replace(CONFIG.encoder, patch_size=8),
    vit=dataclasses.replace(CONFIG.vit, num_layers=3),
    cnn=CNNDecoderConfig(channels=4, multipliers=(1, 2, 2, 1), num_res_blocks=2, norm_groups=2, upsampling=8),
)


def released_tensors(config: MammothTokConfig, parts: frozenset[str] | None = None) -> dict[str, np.ndarray]:
    targets = named_parameters(abstract(lambda: MammothTok(config)))
    rng = np.random.default_rng(0)
    return {
        e.source: rng.standard_normal(
            e.transform.source_shape(e.layer_shape(targets[e.target].shape)), np.float32
        )
        for e in expand(mammothtok.rules(config))
        if parts is None or e.part in parts
    }


def shapes(tensors: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: x.shape for name, x in tensors.items()}


@pytest.mark.parametrize("config", [CONFIG, NANO])
def test_every_tensor_goes_in_and_comes_out_unchanged(config):
    tensors = released_tensors(config)
    module = abstract(lambda: MammothTok(config))
    loaded = named_parameters(load_arrays(module, mammothtok.rules(config), tensors, "test"))
    for entry in expand(mammothtok.rules(config)):
        array = np.asarray(loaded[entry.target][...])
        back = entry.transform.backward(array if entry.layer is None else array[entry.layer])
        np.testing.assert_array_equal(back, tensors[entry.source], err_msg=entry.source)


def test_blocks_are_stacked_below_and_above_the_semantic_head():
    found = {n: p.shape for n, p in named_parameters(abstract(lambda: MammothTok(CONFIG))).items()}
    assert found["encoder.blocks.qkv.kernel"] == (2, 128, 3, 1, 128)
    assert found["decoder.vit.lower.query.kernel"] == (3, 64, 1, 64)
    assert found["decoder.vit.upper.query.kernel"] == (2, 64, 1, 64)


def test_sizes_are_read_from_the_shapes():
    assert mammothtok.config_from_shapes(shapes(released_tensors(CONFIG))) == CONFIG


def test_released_sizes_are_read_from_the_released_shapes():
    config = MammothTokConfig()
    targets = named_parameters(abstract(lambda: MammothTok(config)))
    found = {
        e.source: tuple(e.transform.source_shape(e.layer_shape(targets[e.target].shape)))
        for e in expand(mammothtok.rules(config))
    }
    assert mammothtok.config_from_shapes(found) == config
    decoder = {
        name: shape for name, shape in found.items() if not name.startswith(("encoder.", "quant_conv."))
    }
    assert mammothtok.config_from_shapes(decoder) == config


def test_a_codebook_alone_gives_its_own_sizes_and_the_releases_for_the_rest():
    config = mammothtok.config_from_shapes({"quantize.embedding.weight": (32, 6)})
    assert config == dataclasses.replace(MammothTokConfig(), codebook_size=32, code_dim=6)


def test_shapes_that_do_not_tell_the_sizes_are_one_error():
    tensors = shapes(released_tensors(CONFIG))
    del tensors["s2ddecoder.decoder_embed.weight"]
    with pytest.raises(InputError, match="gen_tokenizer_config"):
        mammothtok.config_from_shapes(tensors)


def test_variants_that_no_release_uses_are_refused():
    released = {
        "args": {"use_attn": True},
        "aimv2_encoder": {},
        "vit_decoder_2d": {},
        "cnn_decoder": {},
    }
    with pytest.raises(InputError, match="use_attn=True"):
        mammothtok.config_from_released(released)
