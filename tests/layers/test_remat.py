"""Recomputed layers: the same gradients from less that is kept."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract
from mammoth_jax.layers.remat import Remat, with_remat
from mammoth_jax.layers.stack import unstack_layers
from mammoth_jax.models.backbone.decoder import Decoder, Taps
from tests.tiny_model import random_weights, tiny_config

POLICIES = {
    "full": Remat(),
    "saved": Remat(save=("attention",)),
    "offloaded": Remat(save=("attention",), offload=("layer_input",)),
}


@pytest.fixture(scope="module")
def decoder():
    config = tiny_config().backbone.decoder
    return random_weights(abstract(lambda: Decoder(config)), 0, single_device_mesh())


def loss(decoder, ids):
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), (3, *ids.shape))
    out = decoder(ids, positions, taps=Taps((-2,)))
    return jnp.sum(jnp.square(out.hidden)) + jnp.sum(jnp.square(out.features))


def kept(decoder, ids):
    """Numbers that the backward pass is given besides the weights."""
    _, backward = jax.vjp(lambda d: loss(d, ids), decoder)
    return sum(x.size for x in jax.tree.leaves(backward))


def test_gradients_do_not_depend_on_what_is_kept(decoder):
    ids = jnp.asarray(np.random.default_rng(0).integers(0, 1100, (2, 16)))
    gradient = jax.jit(jax.grad(loss))
    plain = gradient(decoder, ids)
    for policy in POLICIES.values():
        again = gradient(with_remat(decoder, policy), ids)
        chex.assert_trees_all_close(jax.tree.leaves(again), jax.tree.leaves(plain), rtol=1e-6, atol=1e-6)


def test_less_is_kept_the_more_is_computed_again(decoder):
    ids = jnp.ones((2, 64), jnp.int32)
    everything = kept(decoder, ids)
    full, saved = (kept(with_remat(decoder, POLICIES[name]), ids) for name in ("full", "saved"))
    assert full < saved < everything
    layers, width = decoder.config.num_layers, decoder.config.num_heads * decoder.config.head_dim
    assert saved - full == layers * ids.size * width


def test_only_stacks_have_a_policy_and_layers_taken_out_keep_it(decoder):
    copy = with_remat(decoder, Remat())
    assert [stack.remat for stack in copy.segments] == [Remat()] * len(copy.segments)
    assert not hasattr(copy, "remat") and not hasattr(copy.embed, "remat")
    assert not hasattr(decoder.segments[0], "remat")
    assert unstack_layers(copy.segments[0])[0].remat == Remat()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"save": ("ffn",)}, "no value is named 'ffn'; known: layer_input, attention"),
        ({"save": ("attention",), "offload": ("attention",)}, "cannot be both"),
    ],
)
def test_bad_policies_are_named(options, words):
    with pytest.raises(InputError, match=words):
        Remat(**options)
