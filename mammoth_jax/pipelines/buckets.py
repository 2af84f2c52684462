"""Lengths of buffers, all from fixed ladders: few of them, so that few programs are compiled.

A length depends on what has to fit and on nothing else, so that later calls meet the programs of earlier ones.
"""


def bucket(size: int, smallest: int = 1) -> int:
    """The next power of two, at least ``smallest``."""
    out = smallest
    while out < size:
        out *= 2
    return out


def token_bucket(size: int, smallest: int = 32) -> int:
    """The next of 4, 5, 6 or 7 times a power of two, at least ``smallest``: less than a fifth of it is padding.

    Beyond 2048 also the values halfway between them: less than a ninth is.
    """
    size = max(size, smallest)
    unit = bucket(-(-size // 8)) // (2 if size > 2048 else 1)
    return -(-size // unit) * unit


def row_bucket(size: int, shards: int = 1) -> int:
    """Rows of a batch: 1, 2, 3, 4, 6, 8, 12, 16, ...

    On a mesh a batch that has enough rows is that many times its ``shards``, since rows that do not divide by them are
    not sharded at all.
    """
    if size < shards:
        return bucket(size)
    each = -(-size // shards)
    power = bucket(each)
    return shards * (power // 4 * 3 if power >= 4 and each <= power // 4 * 3 else power)


def prompt_bucket(size: int, *, pictures: bool) -> int:
    """Prompts: those of words alone are short beside the picture and share a few lengths, others go by tokens."""
    return token_bucket(size) if pictures else bucket(size, 32)


def condition_bucket(size: int) -> int:
    """Text tokens that condition the diffusion transformer, short beside the picture."""
    return bucket(size, 32)


def latent_bucket(size: int) -> int:
    """Patches of the diffusion transformer."""
    return token_bucket(size, smallest=4)


def patch_bucket(size: int, merge_size: int) -> int:
    """Patches that the vision tower reads in one launch: whole tokens of ``merge_size`` squared patches."""
    each = merge_size**2
    return token_bucket(-(-size // each)) * each
