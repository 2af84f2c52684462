"""How full packed rows get on a realistic distribution of lengths, against padded and length-sorted batches.

The table of ``mammoth_jax/data/packing/README.md``; copy it and put your own lengths in.
"""

import argparse

from mammoth_jax.data.packing.distribution import Kind, compare_fill

MIXTURES: tuple[dict[Kind, float], ...] = (
    {"t2i": 1},
    {"t2i": 0.6, "edit": 0.4},
    {"t2i": 0.4, "edit": 0.2, "it2t": 0.4},
)


def main() -> None:
    """Prints a line a mixture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=16_384, help="tokens of a row")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--window", type=int, default=32, help="samples read ahead")
    args = parser.parse_args()
    for parts in MIXTURES:
        found = compare_fill(parts, tokens=args.tokens, rows=args.rows, window=args.window)
        tokens, joint = found.packed.full["tokens"], found.packed.full["joint"]
        print(
            f"{parts}: tokens {tokens:.3f}, joint {joint:.3f} of {found.budget.joint}; padded {found.padded:.3f} "
            f"({tokens / found.padded:.2f}x), sorted {found.sorted:.3f} ({tokens / found.sorted:.2f}x); {found.budget}"
        )


if __name__ == "__main__":
    main()
