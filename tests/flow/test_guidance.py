import jax.numpy as jnp
import numpy as np
import pytest

from mammoth_jax.core.compat import ReleaseFaults
from mammoth_jax.core.errors import InputError
from mammoth_jax.flow.guidance import guide_text, guide_text_image, guided_steps

C, R, U = (jnp.full((4, 2, 3), value) for value in (1.0, 3.0, 7.0))


def test_text_guidance_extrapolates_from_the_unconditional_prediction():
    out = guide_text(C, U, jnp.full(4, 2.5))
    np.testing.assert_allclose(out, 7 + 2.5 * (1 - 7))


def test_a_row_at_scale_one_or_below_is_the_conditional_prediction_exactly():
    out = guide_text(C / 3, U, jnp.array([1.0, 0.5, 0.0, 2.0]))
    np.testing.assert_array_equal(out[:3], C[:3] / 3)
    assert not np.allclose(out[3], C[3] / 3)


def test_three_branches_apply_where_both_scales_exceed_one():
    out = guide_text_image(C, R, U, jnp.array([4.0, 4.0, 1.0, 1.0]), jnp.array([2.0, 1.0, 2.0, 1.0]))
    want = [7 + 2 * (3 - 7) + 4 * (1 - 3), 7 + 4 * (1 - 7), 1, 1]
    np.testing.assert_allclose(out[:, 0, 0], want)


def test_guided_steps_are_those_whose_fraction_lies_in_the_range():
    assert guided_steps(10, (0.3, 0.6)).tolist() == [False] * 3 + [True] * 4 + [False] * 3
    assert guided_steps(4).all()


def test_guidance_that_fell_never_returns_with_the_fault():
    sticky = ReleaseFaults(sticky_guidance=True)
    assert not guided_steps(10, (0.3, 1.0), sticky).any()
    assert guided_steps(10, (0.0, 0.5), sticky).tolist() == guided_steps(10, (0.0, 0.5)).tolist()


@pytest.mark.parametrize("bad", [(0.5, 0.3), (-0.1, 1.0), (0.0, 1.5)])
def test_a_range_that_is_not_two_ordered_fractions_is_refused(bad):
    with pytest.raises(InputError, match="cfg_range"):
        guided_steps(10, bad)
