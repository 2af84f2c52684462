"""What encodes pictures while training: the models' own codes and latents, little memory."""

import dataclasses
import gc
import weakref
from pathlib import Path

import numpy as np
import pytest

from mammoth_jax.core.parameters import abstract, initialize, num_parameters
from mammoth_jax.data.packing.pictures import ToEncode
from mammoth_jax.data.precomputed import Precomputed
from mammoth_jax.models.mammothtok.model import MammothTok
from mammoth_jax.models.vae.model import VAE
from mammoth_jax.objectives.tokenizer import as_float
from mammoth_jax.training.config_file import load_training
from mammoth_jax.training.picture_encoder import FrozenEncoder, encoding_bytes, local_mesh, rows_at_once
from tests.tiny_model import tiny_config

CONFIG = tiny_config()


@pytest.fixture(scope="module")
def models():
    mesh = local_mesh()
    return (
        initialize(lambda: MammothTok(CONFIG.mammothtok), 3, mesh),
        initialize(lambda: VAE(CONFIG.vae), 4, mesh),
    )


def pictures(count, side):
    return np.random.default_rng(side).integers(0, 256, (count, side, side, 3), np.uint8)


def test_codes_and_posteriors_are_the_models_own_in_any_order_of_sizes(models):
    mammothtok, vae = models
    patch = CONFIG.mammothtok.encoder.patch_size
    small, large = pictures(9, 4 * patch), pictures(2, 6 * patch)
    cells = pictures(3, 2 * CONFIG.vae.factor)
    asked = [ToEncode(x, None) for x in (large[0], *small, large[1])] + [ToEncode(None, x) for x in cells]
    made = FrozenEncoder(mammothtok, vae).encode(asked)
    np.testing.assert_array_equal([made[0].codes, made[10].codes], mammothtok.encode(as_float(large)))
    np.testing.assert_array_equal([x.codes for x in made[1:10]], mammothtok.encode(as_float(small)))
    assert all(x.mean is None for x in made[:11]) and all(x.codes is None for x in made[11:])
    expected = vae.encode(as_float(cells))
    np.testing.assert_allclose([x.mean for x in made[11:]], expected.mean, atol=1e-5)
    np.testing.assert_allclose([x.logvar for x in made[11:]], expected.logvar, atol=1e-5)


def test_decoders_are_given_back():
    mammothtok = initialize(lambda: MammothTok(CONFIG.mammothtok), 3, local_mesh())
    decoder = weakref.ref(mammothtok.decoder)
    encoder = FrozenEncoder(mammothtok, None)
    del mammothtok
    gc.collect()
    assert decoder() is None and encoder.encode([]) == []


def test_large_pictures_are_encoded_few_at_a_time():
    assert [rows_at_once(n, n) for n in (64, 256, 512, 1024, 2048)] == [8, 8, 4, 1, 1]


def with_all_precomputed(data):
    def pool(own):
        there = Precomputed(path="there")
        return dataclasses.replace(
            own, sources=tuple(dataclasses.replace(s, encoded=there) for s in own.sources)
        )

    return dataclasses.replace(data, pools=tuple(map(pool, data.pools)))


def test_a_plan_counts_what_encodes_and_its_work_unless_all_is_precomputed():
    config = load_training(Path("nano/pre_stage2"), None, [])
    mammothtok = abstract(lambda: MammothTok(config.model.mammothtok))
    vae = abstract(lambda: VAE(config.model.vae))
    weights = 4 * sum(num_parameters(part) for part in (*mammothtok.encoding(), vae.encoder))
    trained = dataclasses.replace(config, data=with_all_precomputed(config.data))
    every = dataclasses.replace(trained, evaluation=with_all_precomputed(config.evaluation))
    assert encoding_bytes(every) == weights < encoding_bytes(trained) == encoding_bytes(config)
    tokens_alone = encoding_bytes(load_training(Path("nano/pre_stage1"), None, []))
    assert encoding_bytes(config) - tokens_alone == 4 * num_parameters(vae.encoder)
    assert encoding_bytes(load_training(Path("nano/understanding"), None, [])) == 0
