"""The discriminator of patches: sizes, independence of pictures, locality, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.config import decode, encode
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract, initialize, named_parameters
from mammoth_jax.models.discriminator import Discriminator, DiscriminatorConfig

TINY = DiscriminatorConfig(channels=4, num_downsamplings=2, max_multiplier=2, norm_groups=2)


def build(config: DiscriminatorConfig) -> Discriminator:
    return initialize(lambda: Discriminator(config), 0, single_device_mesh())


def noise(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize(
    ("rows", "cols", "patches"),
    [(64, 64, (6, 6)), (1024, 1024, (126, 126)), (75, 130, (7, 14)), (24, 24, (1, 1))],
)
def test_any_sides_have_patches(rows, cols, patches):
    model = abstract(lambda: Discriminator(DiscriminatorConfig()))
    picture = jax.ShapeDtypeStruct((2, rows, cols, 3), jnp.bfloat16)
    logits = jax.eval_shape(lambda m, x: m(x), model, picture)
    assert (logits.shape, logits.dtype) == ((2, *patches), jnp.bfloat16)


def test_a_picture_without_a_patch_is_refused():
    model = abstract(lambda: Discriminator(DiscriminatorConfig()))
    with pytest.raises(InputError, match=r"24x23 pixels.*at least 24"):
        jax.eval_shape(lambda m, x: m(x), model, jax.ShapeDtypeStruct((1, 23, 24, 3), jnp.float32))


def test_pictures_of_a_batch_do_not_depend_on_each_other():
    model, picture = build(TINY), noise(2, 16, 16, 3)
    changed = picture.at[1].set(picture[1, ::-1])
    first, second = jax.jit(lambda m, x: m(x))(model, picture), jax.jit(lambda m, x: m(x))(model, changed)
    np.testing.assert_allclose(first[0], second[0], atol=1e-6)
    assert np.abs(first[1] - second[1]).max() > 1e-4


def test_without_a_norm_a_patch_sees_its_neighbourhood_only():
    model = build(DiscriminatorConfig(channels=4, num_downsamplings=2, max_multiplier=2, norm_groups=None))
    picture = noise(1, 64, 64, 3)
    judge = jax.jit(lambda m, x: m(x))
    difference = np.abs(judge(model, picture) - judge(model, picture.at[0, 0, 0].add(5.0)))[0]
    assert difference[0, 0] > 1e-5
    assert difference[6:, 6:].max() == 0
    assert not any("norm" in name for name in named_parameters(model))


def test_each_group_of_channels_is_normalised_by_itself():
    config = DiscriminatorConfig(channels=4, num_downsamplings=1, max_multiplier=1, norm_groups=2)
    model = build(config)
    kernel = model.layers[1].conv.kernel
    model.layers[1].conv.kernel[...] = kernel[...].at[..., :2].multiply(100.0)
    np.testing.assert_allclose(model(noise(1, 8, 8, 3)), build(config)(noise(1, 8, 8, 3)), atol=1e-3)


def test_the_configuration_reads_back_and_refuses_groups_that_do_not_divide():
    assert decode(DiscriminatorConfig, encode(TINY)) == TINY
    with pytest.raises(InputError, match="norm_groups 3 does not divide 8 channels"):
        DiscriminatorConfig(channels=4, norm_groups=3)
