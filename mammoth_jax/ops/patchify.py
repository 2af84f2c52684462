"""Pictures as rows of patch tokens and back; the values of a patch are ordered (row, column, channel)."""

from mammoth_jax.core.types import Array, Float


def patchify(x: Float[Array, "b rows cols c"], patch: int) -> Float[Array, "b n p"]:
    """Tokens in raster order, ``n = (rows / patch) * (cols / patch)``, ``p = patch * patch * c``.

    Raises:
      ValueError: a side is not a multiple of ``patch``.
    """
    b, rows, cols, c = x.shape
    if rows % patch or cols % patch:
        raise ValueError(f"a {rows}x{cols} picture does not divide into patches of {patch}")
    cells = x.reshape(b, rows // patch, patch, cols // patch, patch, c)
    return cells.transpose(0, 1, 3, 2, 4, 5).reshape(b, (rows // patch) * (cols // patch), patch * patch * c)


def unpatchify(x: Float[Array, "b n p"], rows: int, cols: int, patch: int) -> Float[Array, "b rows2 cols2 c"]:
    """The picture of ``rows`` x ``cols`` tokens; tokens past ``rows * cols`` are padding and left out."""
    b = x.shape[0]
    c = x.shape[-1] // (patch * patch)
    cells = x[:, : rows * cols].reshape(b, rows, cols, patch, patch, c)
    return cells.transpose(0, 1, 3, 2, 4, 5).reshape(b, rows * patch, cols * patch, c)
