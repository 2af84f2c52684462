"""Scans over stacks: parts that stay in the stack come whole, with the number of the layer."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mammoth_jax.layers.linear import Linear
from mammoth_jax.layers.norm import RMSNorm
from mammoth_jax.layers.stack import InStack, scan_layers, stack_layers

LAYERS, WIDTH = 3, 4


class Block(nnx.Module):
    def __init__(self):
        self.norm = RMSNorm(WIDTH, eps=1e-6)
        self.maps = nnx.List([Linear(WIDTH, WIDTH, axes=("embed", "mlp"))])


def stack() -> Block:
    blocks = stack_layers(Block, LAYERS)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape, np.float32)), blocks)


def test_a_part_in_the_stack_is_given_whole_and_its_own_is_the_layer_s():
    blocks = stack()
    kept = jax.tree.map(lambda x: x, blocks)
    kept.maps = nnx.List([InStack(m) for m in blocks.maps])

    def plain(x, block, scale):
        return block.maps[0](block.norm(x)) * scale, None

    def in_stack(x, block, scale):
        (part,) = block.maps
        assert part.stack.kernel.shape == (LAYERS, WIDTH, WIDTH) and part.layer.shape == ()
        assert block.norm.scale.shape == (WIDTH,)
        return part.own()(block.norm(x)) * scale, part.layer

    x, scales = jnp.arange(8.0).reshape(2, WIDTH), jnp.asarray([1.0, 2.0, 3.0])
    wanted, _ = jax.jit(lambda b: scan_layers(plain, x, b, scales))(blocks)
    got, numbers = jax.jit(lambda b: scan_layers(in_stack, x, b, scales))(kept)
    assert np.array_equal(got, wanted) and numbers.tolist() == [0, 1, 2]
