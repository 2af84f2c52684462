"""Classifier-free guidance of velocities, row by row, and which steps are guided."""

import jax.numpy as jnp
import numpy as np

from mammoth_jax.core.compat import NO_FAULTS, ReleaseFaults
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.types import Array, Float
from mammoth_jax.flow.path import expand_time


def guide_text(
    conditional: Float[Array, "b *rest"], unconditional: Float[Array, "b *rest"], scale: Float[Array, " b"]
) -> Float[Array, "b *rest"]:
    """``u + s (c - u)``; a row with ``s <= 1`` is the conditional prediction, exactly."""
    s = expand_time(scale, conditional)
    return jnp.where(s > 1, unconditional + s * (conditional - unconditional), conditional)


def guide_text_image(
    conditional: Float[Array, "b *rest"],
    reference: Float[Array, "b *rest"],
    unconditional: Float[Array, "b *rest"],
    text_scale: Float[Array, " b"],
    image_scale: Float[Array, " b"],
) -> Float[Array, "b *rest"]:
    """``u + s_img (r - u) + s_txt (c - r)`` where both scales exceed 1.

    ``r`` sees the reference pictures and the negative text, ``u`` the negative text alone.  A row with only a text
    scale above 1 is guided by ``u`` alone; one without is the conditional prediction, exactly (released rule).
    """
    st, si = expand_time(text_scale, conditional), expand_time(image_scale, conditional)
    both = unconditional + si * (reference - unconditional) + st * (conditional - reference)
    return jnp.where((st > 1) & (si > 1), both, guide_text(conditional, unconditional, text_scale))


def guided_steps(
    num_steps: int, cfg_range: tuple[float, float] = (0.0, 1.0), faults: ReleaseFaults = NO_FAULTS
) -> np.ndarray:
    """Whether each step ``i`` is guided: ``low <= i / num_steps <= high``, a bool array.

    With ``faults.sticky_guidance`` guidance never returns after a step outside the range, as in the release.

    Raises:
      InputError: the range is not within 0..1 or not in order.
    """
    low, high = cfg_range
    if not 0 <= low <= high <= 1:
        raise InputError(
            f"cfg_range {low},{high} must be two fractions of the steps in order, such as 0,1 or 0.3,1"
        )
    inside = np.array([low <= i / num_steps <= high for i in range(num_steps)], bool)
    return np.logical_and.accumulate(inside) if faults.sticky_guidance else inside
