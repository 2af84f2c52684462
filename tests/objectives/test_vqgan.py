"""The quantiser's losses: recorded values and gradients, coefficients, extremes of the entropy, gradients."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import cast, initialize
from mammoth_jax.evals.vectors.mammothtok import RUNNERS
from mammoth_jax.evals.vectors.verify import check_case, read_set
from mammoth_jax.models.mammothtok import MammothTokConfig, Quantizer
from mammoth_jax.objectives.vqgan import commitment_loss, entropy_loss, quantizer_losses, vq_loss
from tests.objectives.finite_differences import assert_gradient
from tests.objectives.tokenizer_parts import pictures

VECTORS = Path(__file__).parent.parent / "vectors" / "tokenizer"


def test_recorded_losses_and_gradients_of_both_estimators():
    case = next(case for case in read_set(VECTORS) if case.name == "vq_train")
    report = check_case(case, RUNNERS["vq_train"])
    assert report.problem is None
    assert [c.name for c in report.comparisons if not c.passed] == []
    assert len(report.comparisons) == len(case.tolerances)


@pytest.mark.parametrize("ratio", [0.0, 0.1])
def test_losses_carry_the_coefficients(ratio):
    config = MammothTokConfig(codebook_size=8, code_dim=4, commitment=0.5, entropy_ratio=ratio)
    quantizer = initialize(lambda: Quantizer(config), 0, single_device_mesh())
    quantized = quantizer(jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 4)), jnp.float32))
    losses = quantizer_losses(quantized, config)
    np.testing.assert_allclose(losses.commitment.mean, 0.5 * losses.vq.mean, rtol=1e-6)
    np.testing.assert_allclose(losses.entropy.mean, ratio * entropy_loss(quantized.distances).mean, rtol=1e-6)
    assert float(losses.vq.weight) == 2 * 3 * 4


def test_entropy_loss_is_lowest_for_sharp_choices_that_use_all_codes():
    sharp = entropy_loss(1 - jnp.eye(8)).mean
    uniform = entropy_loss(jnp.ones((8, 8))).mean
    collapsed = entropy_loss(jnp.tile(1 - jnp.eye(8)[:1], (8, 1))).mean
    np.testing.assert_allclose(sharp, -np.log(8), atol=1e-3)
    np.testing.assert_allclose([uniform, collapsed], 0, atol=1e-3)


def test_gradients_are_those_of_the_values():
    """Of the commitment by the encoder, of the other two by what they move; choices do not change on the way."""
    with jax.enable_x64(True):
        config = MammothTokConfig(codebook_size=8, code_dim=4)
        quantizer = cast(initialize(lambda: Quantizer(config), 0, single_device_mesh()), jnp.float64)
        z = pictures(2, 3, 3, 4, dtype=np.float64)
        assert_gradient(lambda z: commitment_loss(quantizer(z)).mean, z)
        assert_gradient(lambda q: vq_loss(q(z)).mean, quantizer)
        assert_gradient(lambda both: entropy_loss(both[0](both[1]).distances).mean, (quantizer, z))
