"""MammothTok by itself, also where a checkpoint holds only some of its parts."""

import numpy as np
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import initialize
from mammoth_jax.models.mammothtok.config import PARTS
from mammoth_jax.models.mammothtok.model import MammothTok
from mammoth_jax.pipelines.tokens import Tokens
from tests.tiny_model import tiny_config


def without(part: str) -> Tokens:
    config = tiny_config().mammothtok
    model = initialize(lambda: MammothTok(config, parts=PARTS - {part}), 0, single_device_mesh())
    return Tokens(model, config.encoder.patch_size)


def test_pictures_are_encoded_without_the_decoder_and_decoding_names_it():
    tokens, config = without("mammothtok_decoder"), tiny_config().mammothtok
    side = config.encoder.patch_size
    picture = np.random.default_rng(0).integers(0, 256, (2 * side, 3 * side, 3), np.uint8)
    codes = tokens.encode(picture)
    assert codes.shape == (2, 3) and (codes >= 0).all() and (codes < config.codebook_size).all()
    with pytest.raises(InputError, match="does not hold the MammothTok decoder and codebook needed to turn"):
        tokens.decode(codes)


def test_encoding_names_the_encoder_that_is_not_there():
    tokens = without("mammothtok_encoder")
    with pytest.raises(InputError, match="does not hold the MammothTok encoder and codebook needed to turn"):
        tokens.encode(np.zeros((tokens.patch_size, tokens.patch_size, 3), np.uint8))
