"""Bicubic resizing of video frames in 16-bit fixed point, bit for bit as the released video processors do it.

The release resizes frames as torch tensors of bytes; Pillow, which resizes pictures, rounds its weights less and may
take the two axes in the other order, so that its results differ by up to a few grey levels.

A pass along one axis maps ``n`` samples to ``m``.  With ``s = n / m`` and ``S = max(s, 1)`` (antialiasing: the kernel
widens when samples are dropped), output ``i`` is centred on ``c = s (i + 1/2)`` and weighs sample ``j`` by
``k((j - c + 1/2) / S)``, normalised to sum 1 over the samples within ``2 S`` of ``c``.  ``k`` is Keys' cubic kernel
with ``a = -1/2``.  Weights become integers with as many fractional bits as keep the largest below ``2^15``.  Columns
are resized first, then rows; each pass rounds to bytes, and is left out where the size stays.
"""

import functools

import numpy as np

from mammoth_jax.core.types import Float, Int, UInt8

_A = -0.5
_REACH = 2.0
_MOST_BITS = 22
_WEIGHT_LIMIT = 1 << 15


def resize_frames(
    frames: UInt8[np.ndarray, "t rows cols c"], height: int, width: int
) -> UInt8[np.ndarray, "t rows2 cols2 c"]:
    """Each frame resized to ``height`` rows and ``width`` columns."""
    return np.stack([_resize_axis(_resize_axis(frame, 1, width), 0, height) for frame in frames])


def _resize_axis(frame: UInt8[np.ndarray, "rows cols c"], axis: int, size: int) -> UInt8[np.ndarray, "..."]:
    if frame.shape[axis] == size:
        return frame
    samples, weights, bits = fixed_point_weights(frame.shape[axis], size)
    total = np.int32(1 << (bits - 1))
    for tap in range(samples.shape[1]):
        along = weights[:, tap].reshape([-1 if a == axis else 1 for a in range(3)])
        total = total + along * np.take(frame, samples[:, tap], axis=axis)
    return (total >> bits).clip(0, 255).astype(np.uint8)


@functools.lru_cache(maxsize=16)
def fixed_point_weights(
    length: int, size: int
) -> tuple[Int[np.ndarray, "size taps"], Int[np.ndarray, "size taps"], int]:
    """Samples that each output reads, their integer weights, and the fractional bits of these."""
    scale = length / size
    spread = max(scale, 1.0)
    centres = scale * (np.arange(size) + 0.5)
    first = np.maximum((centres - _REACH * spread + 0.5).astype(np.int64), 0)
    stop = np.minimum((centres + _REACH * spread + 0.5).astype(np.int64), length)
    samples = first[:, None] + np.arange((stop - first).max())
    weights = _cubic((samples - centres[:, None] + 0.5) / spread) * (samples < stop[:, None])
    weights = weights / weights.sum(axis=1, keepdims=True)
    largest = weights.max()
    bits = 0
    while bits < _MOST_BITS and int(0.5 + largest * (1 << (bits + 1))) < _WEIGHT_LIMIT:
        bits += 1
    fixed = np.trunc(weights * (1 << bits) + np.copysign(0.5, weights))
    return np.minimum(samples, length - 1), fixed.astype(np.int32), bits


def _cubic(x: Float[np.ndarray, "size taps"]) -> Float[np.ndarray, "size taps"]:
    """Keys' cubic convolution kernel."""
    x = np.abs(x)
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _A
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
