"""A discriminator of patches: convolutions that judge every neighbourhood of a picture by itself.

Isola et al. 2017, "Image-to-image translation with conditional adversarial networks", section 3.2.2 (PatchGAN), as
VQGAN uses it: 4x4 convolutions, the first ``num_downsamplings`` of stride 2, leaky ReLU, one logit a patch.

The published networks normalise with batch statistics.  Here it is group norm or nothing: running averages would be
state that changes outside the optimiser, the logits of a picture would depend on its neighbours in the batch (so R1's
gradient per picture would mean nothing), and the statistics on the number of devices.
"""

import dataclasses

import jax
from flax import nnx

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.sharding import constrain
from mammoth_jax.core.types import Array, Float
from mammoth_jax.layers.conv import Conv2d
from mammoth_jax.layers.norm import GroupNorm

_EPS = 1e-6
_SLOPE = 0.2
_SIZE = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """``channels`` after the first convolution double at every further one, up to ``max_multiplier`` times.

    ``norm_groups`` is that of the group norm between convolutions (none after the first); ``None`` is no norm.
    """

    channels: int = 64
    num_downsamplings: int = 3
    max_multiplier: int = 8
    norm_groups: int | None = 32

    def __post_init__(self) -> None:
        if min(self.channels, self.num_downsamplings, self.max_multiplier) < 1:
            raise InputError(
                "discriminator: channels, num_downsamplings and max_multiplier must be at least 1, "
                f"got {self.channels}, {self.num_downsamplings} and {self.max_multiplier}"
            )
        for width in self.widths[1:]:
            if self.norm_groups is not None and (self.norm_groups < 1 or width % self.norm_groups):
                raise InputError(
                    f"discriminator.norm_groups {self.norm_groups} does not divide {width} channels; "
                    "choose a divisor, or null for no norm"
                )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels after each convolution but the one that makes the logits."""
        return tuple(
            self.channels * min(2**i, self.max_multiplier) for i in range(self.num_downsamplings + 1)
        )

    @property
    def min_side(self) -> int:
        """Pixels a side of the smallest picture that has a patch."""
        return 3 * 2**self.num_downsamplings


class Layer(nnx.Module):
    """Convolution, norm (if any), leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int | None):
        self.conv = Conv2d(inputs, outputs, _SIZE, stride=stride)
        self.norm = None if groups is None else GroupNorm(groups, outputs, eps=_EPS)

    def __call__(self, x: Float[Array, "b rows cols c"]) -> Float[Array, "b rows2 cols2 c2"]:
        x = self.conv(x)
        x = jax.nn.leaky_relu(x if self.norm is None else self.norm(x), _SLOPE)
        return constrain(x, "batch", None, None, None)


class Discriminator(nnx.Module):
    """Pictures of any size to a logit for each patch: high where the patch looks real."""

    def __init__(self, config: DiscriminatorConfig):
        widths = config.widths
        self.min_side = config.min_side
        strides = [2] * config.num_downsamplings + [1]
        groups = [None] + [config.norm_groups] * config.num_downsamplings
        self.layers = nnx.List(
            [
                Layer(inputs, outputs, stride, group)
                for inputs, outputs, stride, group in zip((3, *widths), widths, strides, groups, strict=False)
            ]
        )
        self.logits = Conv2d(widths[-1], 1, _SIZE)

    def __call__(self, picture: Float[Array, "b rows cols 3"]) -> Float[Array, "b pr pc"]:
        """One logit a patch of pictures in [-1, 1].

        Raises:
          InputError: a side is too short for a patch.
        """
        rows, cols = picture.shape[1:3]
        if min(rows, cols) < self.min_side:
            raise InputError(
                f"picture of {cols}x{rows} pixels: the discriminator needs sides of at least {self.min_side}; "
                "lower discriminator.num_downsamplings"
            )
        x = picture
        for layer in self.layers:
            x = layer(x)
        return self.logits(x)[..., 0]
