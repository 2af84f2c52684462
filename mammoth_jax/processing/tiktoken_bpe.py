"""Byte pair encoding given as ranks (the tiktoken file format) and as the merges that a fast tokenizer wants.

A rank file says which byte sequences are tokens and in which order they were learned.  Encoding a piece of text joins,
again and again, the leftmost of those neighbouring pairs whose concatenation has the lowest rank.  A fast Hugging Face
tokenizer wants pairs (left, right) with priorities instead.

Why one pair a token is enough.  Take the step that produces token ``t`` at some place.  Until then no merge crossed
the borders of ``t``'s bytes, and each merge inside them was the lowest, leftmost one of the whole piece, therefore
also of these bytes alone.  So the bytes of ``t`` went through exactly the steps that encoding ``t`` by itself goes
through, and the last two parts are the same ones: each token is only ever produced from one pair, its *final pair*.
With these pairs, ordered by the rank of the token that they produce, the fast tokenizer always has the pair that the
rank rule picks among its candidates and no candidate of a lower rank; equal ranks are the same pair at several places,
leftmost first.  A pair that is never produced does no harm as long as no token has two: the rank rule never picks it.
"""

import base64
import binascii
import sys
from collections.abc import Mapping
from pathlib import Path

from mammoth_jax.core.errors import InputError

_NO_TOKEN = sys.maxsize


def read_ranks(path: Path) -> dict[bytes, int]:
    """Read a rank file: lines of base64-encoded bytes, a blank, and the rank.

    Raises InputError, with the line's number, on a malformed line, a token or rank that occurs twice, a rank beyond
    the number of lines, and for a file without all 256 single bytes (some text could then not be encoded).
    """
    ranks: dict[bytes, int] = {}
    line_of_rank: dict[int, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            encoded, digits = line.split()
            token, rank = base64.b64decode(encoded, validate=True), int(digits)
            if not token or rank < 0:
                raise ValueError
        except (ValueError, binascii.Error):
            raise InputError(
                f"{path}, line {number}: {line[:60]!r} is not base64 text, a blank and a rank; copy the file again"
            ) from None
        if token in ranks or rank in line_of_rank:
            first = line_of_rank[ranks.get(token, rank)]
            raise InputError(
                f"{path}, line {number}: repeats the token or the rank of line {first}; copy the file again"
            )
        ranks[token] = rank
        line_of_rank[rank] = number
    for rank, number in line_of_rank.items():
        if rank >= len(ranks):
            raise InputError(
                f"{path}, line {number}: rank {rank} in a file of {len(ranks)} ranks, which must be 0 to "
                f"{len(ranks) - 1}; lines are missing, copy the file again"
            )
    missing = [value for value in range(256) if bytes([value]) not in ranks]
    if missing:
        raise InputError(
            f"{path}: no rank for {len(missing)} of the 256 single bytes (first: 0x{missing[0]:02x}); "
            "copy the file again"
        )
    return ranks


def merges(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pairs that encoding with ``ranks`` ever joins, best first; at most one a token (see the module's text)."""
    found: list[tuple[int, bytes, bytes]] = []
    for token, rank in ranks.items():
        cuts = [i for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        cut = cuts[0] if len(cuts) == 1 else _final_cut(ranks, token) if cuts else None
        if cut is not None:
            found.append((rank, token[:cut], token[cut:]))
    found.sort(key=lambda merge: merge[0])
    return [(left, right) for _, left, right in found]


def _final_cut(ranks: Mapping[bytes, int], token: bytes) -> int | None:
    """Length of the left part of the pair that encoding ``token`` joins last; None if encoding never produces it."""
    bounds = list(range(len(token) + 1))
    scores = [ranks.get(token[i : i + 2], _NO_TOKEN) for i in range(len(token) - 1)]
    while len(scores) > 1:
        best = min(scores)
        if best == _NO_TOKEN:
            return None
        at = scores.index(best)
        del bounds[at + 1], scores[at]
        if at < len(scores):
            scores[at] = ranks.get(token[bounds[at] : bounds[at + 2]], _NO_TOKEN)
        if at > 0:
            scores[at - 1] = ranks.get(token[bounds[at - 1] : bounds[at + 1]], _NO_TOKEN)
    return bounds[1]
