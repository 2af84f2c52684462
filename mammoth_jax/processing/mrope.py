"""Rope positions of token sequences on the host: three axes (time, row, column), pads excluded."""

import numpy as np

from mammoth_jax.core.types import Bool, Int


def text_positions(valid: Bool[np.ndarray, "b s"]) -> tuple[Int[np.ndarray, "3 b s"], Int[np.ndarray, "b 1"]]:
    """Positions of rows without pictures, and what to add to a slot number to continue each row while decoding.

    A row counts its valid tokens from 0, equal on all three axes; pads get 1 (they are never attended to).
    """
    counted = np.cumsum(valid, axis=1) - 1
    positions = np.where(valid, counted, 1).astype(np.int32)
    deltas = positions.max(axis=1, keepdims=True) + 1 - valid.shape[1]
    return np.broadcast_to(positions, (3, *positions.shape)).copy(), deltas.astype(np.int32)
