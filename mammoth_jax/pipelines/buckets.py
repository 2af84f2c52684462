"""Sizes of buffers: few of them, so that few programs are compiled."""


def bucket(size: int, smallest: int = 1) -> int:
    """The next power of two, at least ``smallest``."""
    out = smallest
    while out < size:
        out *= 2
    return out


def token_bucket(size: int) -> int:
    """A buffer for ``size`` visual tokens: a power of two up to 256, then a multiple of 256."""
    return bucket(size, 32) if size <= 256 else -(-size // 256) * 256
