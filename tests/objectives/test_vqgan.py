"""The quantiser's losses: recorded values and gradients, coefficients, and the extremes of the entropy loss."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import initialize
from mammoth_jax.evals.vectors.mammothtok import RUNNERS
from mammoth_jax.evals.vectors.verify import check_case, read_set
from mammoth_jax.models.mammothtok import MammothTokConfig, Quantizer
from mammoth_jax.objectives.vqgan import entropy_loss, quantizer_losses

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
