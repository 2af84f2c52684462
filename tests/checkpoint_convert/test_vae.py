"""The autoencoder's table covers it exactly both ways, and its configuration survives the released form."""

import numpy as np
import pytest

from checkpoint_convert import vae
from checkpoint_convert.load import load_arrays
from checkpoint_convert.rules import expand
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.models.vae import VAE, VAEConfig

NANO = VAEConfig(latent_channels=4, block_out_channels=(4, 8, 8), layers_per_block=1, norm_groups=2)
PLAIN = VAEConfig(
    latent_channels=2, block_out_channels=(4, 4, 8, 6), layers_per_block=2, norm_groups=2, mid_attention=False
)


@pytest.mark.parametrize("config", [NANO, PLAIN])
def test_every_tensor_goes_in_and_comes_out_unchanged(config):
    module = abstract(lambda: VAE(config))
    targets, entries = named_parameters(module), expand(vae.rules(config))
    rng = np.random.default_rng(0)
    tensors = {
        e.source: rng.standard_normal(
            e.transform.source_shape(e.layer_shape(targets[e.target].shape)), np.float32
        )
        for e in entries
    }
    loaded = named_parameters(load_arrays(module, vae.rules(config), tensors, "test"))
    for entry in entries:
        array = np.asarray(loaded[entry.target][...])
        back = entry.transform.backward(array if entry.layer is None else array[entry.layer])
        np.testing.assert_array_equal(back, tensors[entry.source], err_msg=entry.source)


@pytest.mark.parametrize("config", [NANO, PLAIN, VAEConfig()])
def test_configuration_survives_the_released_form(config):
    assert vae.config_from_released(vae.config_to_released(config)) == config


@pytest.mark.parametrize(
    "change",
    [{"use_quant_conv": True}, {"act_fn": "gelu"}, {"down_block_types": ["AttnDownEncoderBlock2D"] * 3}],
)
def test_other_autoencoders_are_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        vae.config_from_released({**vae.config_to_released(NANO), **change})
