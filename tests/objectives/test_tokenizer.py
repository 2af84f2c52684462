"""Both halves of a tokenizer's step: whom gradients reach, values, the start step, and what must be switched off."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mammoth_jax.core.config import decode, encode
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import cast, named_parameters
from mammoth_jax.objectives.adversarial import LogitAverages
from mammoth_jax.objectives.autoencoding import ThroughCodes, ThroughGaussian
from mammoth_jax.objectives.tokenizer import Networks, Opposite, discriminator_terms, generator_terms
from mammoth_jax.objectives.tokenizer_config import (
    R1,
    AdversarialConfig,
    FixedWeight,
    LeCam,
    TokenizerLossConfig,
)
from tests.objectives import tokenizer_parts as parts
from tests.objectives.finite_differences import assert_gradient
from tests.objectives.tokenizer_parts import pictures

KEY = jax.random.key(0)
ALL_ON = TokenizerLossConfig(l2=0.5, adversarial=AdversarialConfig(start_step=3))
VAE_LOSSES = TokenizerLossConfig(
    l2=0.5, semantic=0.0, latent=0.1, adversarial=AdversarialConfig(weight=0.7, balance=FixedWeight())
)
CODES = ThroughCodes(parts.MAMMOTHTOK)


@functools.cache
def everything_of_mammothtok():
    """One compiled program: value, terms, what is handed on, and gradients by the model and by the other networks."""

    def loss(model, networks, batch, step):
        value, terms, handed = generator_terms(
            model, networks, batch, KEY, step, config=ALL_ON, autoencode=CODES
        )
        return value, (terms, handed)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))


def of_mammothtok(step: int):
    batch = {"picture": pictures(2, 8, 12, 3)}
    return everything_of_mammothtok()(parts.mammothtok(), parts.networks(), batch, step)


def largest(module) -> dict[str, float]:
    return {name: float(jnp.abs(p[...]).max()) for name, p in named_parameters(module).items()}


def test_the_models_half_reaches_every_part_of_the_model_and_no_other_network():
    (_, (terms, _)), (model, networks) = of_mammothtok(5)
    assert set(terms) == {
        *("l1", "l2", "perceptual", "semantic", "vq", "commitment", "entropy"),
        *("adversarial", "adversarial_weight"),
    }
    assert [name for name, size in largest(model).items() if size == 0] == []
    for network in (networks.discriminator, networks.perceptual, networks.teacher):
        assert set(largest(network).values()) == {0.0}


def test_the_loss_is_the_weighted_sum_of_its_terms():
    (value, (terms, _)), _ = of_mammothtok(5)
    mean = {name: float(term.mean) for name, term in terms.items()}
    assert mean["adversarial_weight"] > 0
    expected = (
        mean["l1"] + 0.5 * mean["l2"] + mean["perceptual"] + 0.5 * mean["semantic"] + mean["vq"]
        + 0.25 * mean["commitment"] + 0.1 * mean["entropy"] + mean["adversarial_weight"] * mean["adversarial"]
    )  # fmt: skip
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_the_adversarial_term_starts_at_its_step_without_another_program():
    run = everything_of_mammothtok()
    before, at = of_mammothtok(2), of_mammothtok(3)
    assert run._cache_size() == 1
    assert before[0][1][0]["adversarial_weight"].total == 0 < at[0][1][0]["adversarial_weight"].total
    changed = [
        not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (before[1][0], at[1][0])), strict=True)
    ]
    assert any(changed)


def test_a_half_hands_on_its_pictures_and_codes():
    (_, (_, handed)), _ = of_mammothtok(0)
    model = parts.mammothtok()
    np.testing.assert_array_equal(handed.codes.ids, model.encode(pictures(2, 8, 12, 3)))
    np.testing.assert_allclose(handed.picture, model.decode(handed.codes.ids), atol=1e-5)


@pytest.mark.parametrize("regularizer", [R1(weight=2.0), LeCam(weight=2.0), None])
def test_the_discriminators_half_reaches_the_discriminator_alone(regularizer):
    config = AdversarialConfig(start_step=1, regularizer=regularizer)
    real, made = pictures(2, 8, 8, 3), pictures(2, 8, 8, 3, seed=1)

    @jax.jit
    def run(discriminator, scale, step):
        def loss(
            discriminator, scale
        ):  # ``scale`` stands for the weights of the model that made the pictures
            opposite = Opposite(scale * made, LogitAverages.start())
            value, terms, averages = discriminator_terms(
                discriminator, opposite, {"picture": real}, KEY, step, config=config
            )
            return value, (terms, averages)

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(discriminator, scale)

    (value, (terms, averages)), (gradient, by_model) = run(parts.discriminator(), jnp.float32(1), 1)
    assert float(by_model) == 0
    kernels = {name: size for name, size in largest(gradient).items() if name.endswith("kernel")}
    assert min(kernels.values()) > 0
    penalties = [2.0 * float(terms[name].mean) for name in ("r1", "lecam") if name in terms]
    assert len(penalties) == (regularizer is not None)
    np.testing.assert_allclose(value, float(terms["discriminator"].mean) + sum(penalties), rtol=1e-6)
    assert (float(averages.weight) > 0) == isinstance(regularizer, LeCam)

    (value, (_, averages)), (gradient, _) = run(parts.discriminator(), jnp.float32(1), 0)
    assert float(value) == float(averages.weight) == max(largest(gradient).values()) == 0


def test_the_gradient_of_the_combined_loss_is_that_of_its_value():
    """Pixels, perceptual distance, adversary of fixed weight and KL, backward through the VAE in one pass."""
    with jax.enable_x64(True):
        model, networks = cast(parts.vae(), jnp.float64), cast_networks(parts.networks())
        batch = {"picture": pictures(1, 8, 8, 3, dtype=np.float64)}
        forward = ThroughGaussian(jnp.float64)

        def loss(model):
            return generator_terms(model, networks, batch, KEY, 0, config=VAE_LOSSES, autoencode=forward)[0]

        assert_gradient(loss, model, rtol=1e-5)


def cast_networks(networks: Networks) -> Networks:
    return jax.tree.map(lambda x: x.astype(jnp.float64), networks)


def test_pixels_and_pictures_in_the_unit_range_give_one_loss():
    pixels = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    config = dataclasses.replace(VAE_LOSSES, perceptual=0.0, adversarial=None)
    run = jax.jit(
        lambda model, batch: generator_terms(
            model, Networks(), batch, KEY, 0, config=config, autoencode=ThroughGaussian()
        )[0]
    )
    losses = [
        run(parts.vae(), {"picture": jnp.asarray(x)}) for x in (pixels, pixels.astype(np.float32) / 127.5 - 1)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-6)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("perceptual", r"losses\.perceptual 1\.0.*write losses\.perceptual: 0"),
        ("teacher", r"losses\.semantic 0\.5.*write losses\.semantic: 0"),
        ("discriminator", r"losses\.adversarial\.weight 0\.1.*write losses\.adversarial: null"),
    ],
)
def test_a_term_without_its_network_is_refused(missing, message):
    networks = dataclasses.replace(parts.networks(), **{missing: None})
    batch = {"picture": pictures(1, 8, 8, 3)}
    with pytest.raises(InputError, match=message):
        generator_terms(parts.mammothtok(), networks, batch, KEY, 0, config=ALL_ON, autoencode=CODES)


def test_a_semantic_term_for_a_model_without_a_head_is_refused():
    config, batch = TokenizerLossConfig(), {"picture": pictures(1, 8, 8, 3)}
    with pytest.raises(InputError, match=r"no semantic head; write losses\.semantic: 0"):
        generator_terms(
            parts.vae(), parts.networks(), batch, KEY, 0, config=config, autoencode=ThroughGaussian()
        )


def test_configurations_read_back_and_refuse_what_means_nothing():
    for config in (ALL_ON, VAE_LOSSES, dataclasses.replace(ALL_ON, adversarial=None)):
        assert decode(TokenizerLossConfig, encode(config)) == config
    with pytest.raises(InputError, match=r"losses\.semantic -1"):
        TokenizerLossConfig(semantic=-1.0)
    with pytest.raises(InputError, match="all 0"):
        TokenizerLossConfig(l1=0.0, l2=0.0, perceptual=0.0)
    with pytest.raises(InputError, match="adversarial: null"):
        AdversarialConfig(weight=0.0)


@pytest.mark.slow
def test_eight_devices_give_the_losses_and_gradients_of_one():
    batch = {"picture": pictures(8, 8, 8, 3)}
    model, networks = parts.mammothtok(), parts.networks()
    config = AdversarialConfig(regularizer=R1())

    @jax.jit
    def both_halves(model, networks, batch):
        def loss(model):
            value, terms, handed = generator_terms(
                model, networks, batch, KEY, 9, config=ALL_ON, autoencode=CODES
            )
            return value, (terms, handed.picture)

        (value, (terms, made)), gradient = jax.value_and_grad(loss, has_aux=True)(model)
        opposite = Opposite(made, LogitAverages.start())
        other, more, _ = discriminator_terms(networks.discriminator, opposite, batch, KEY, 9, config=config)
        return value, other, {**terms, **more}, gradient

    alone = both_halves(model, networks, batch)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        rows = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
        everywhere = jax.device_put((model, networks), NamedSharding(mesh, PartitionSpec()))
        spread = both_halves(*everywhere, rows)
    for a, b in zip(*map(jax.tree.leaves, (alone[:3], spread[:3])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (alone[3], spread[3])), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(a).max())
