"""Development comparison: the same work here and in PyTorch, alternated on one machine, in fp32 on so many threads.

    pip install torch diffusers transformers
    python scripts/compare_torch.py dit
    python scripts/compare_torch.py decode --size 300m --guidance 1

Weights and inputs are the same, and so are the results, which is checked first.  The calls take turns, so that a slow
spell of the machine meets all of them; printed are the medians, the spread, the ratios, and a line of JSON.
"""

import argparse
import importlib
import importlib.util
import json
import os
import platform
import sys
import time

COMPARISONS = {
    "decode": ("compare_decode", ("torch", "transformers"), "greedy decoding against Qwen3"),
    "dit": ("compare_dit", ("torch", "diffusers"), "a step of the diffusion transformer against Lumina2"),
}
"""Each one's module beside this file, the packages that it needs besides ours, and what it compares."""


def main() -> int:
    """Runs one comparison; 2 if a package that it needs is missing."""
    name = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=COMPARISONS, metavar="NAME", help=listing())
    parser.add_argument("--threads", type=int, default=2, help="of each side (default 2)")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each (default 5)")
    if name not in COMPARISONS:
        parser.parse_args()
        return 2
    module, packages, _ = COMPARISONS[name]
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        print(
            f"compare_torch {name}: needs {', '.join(missing)}; install: pip install {' '.join(missing)}",
            file=sys.stderr,
        )
        return 2
    limit_threads(sys.argv)
    comparison = importlib.import_module(module)
    comparison.add_arguments(parser)
    args = parser.parse_args()
    result = comparison.run(args)
    for side, seconds in result["seconds"].items():
        spread = f"{1e3 * seconds['min_s']:.1f} to {1e3 * seconds['max_s']:.1f}"
        print(f"{side}: {1e3 * seconds['median_s']:.1f} ms [{spread}], {seconds['samples']} samples")
    for key, value in result.items():
        if key.startswith("ratio"):
            print(f"{key.replace('_', ' ')}: {value:.3f}")
    print(json.dumps({"comparison": name, "threads": args.threads} | versions() | result))
    return 0


def limit_threads(words: list[str]) -> None:
    """Keeps this process on ``--threads`` cores: XLA takes as many threads as it has cores, once, when it starts."""
    count = int(words[words.index("--threads") + 1]) if "--threads" in words[:-1] else 2
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    os.environ.setdefault("JAX_PLATFORMS", "cpu")


def versions() -> dict[str, str]:
    """When, and with what."""
    import jax

    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "torch": importlib.import_module("torch").__version__,
    }


def listing() -> str:
    """The comparisons, for ``--help``."""
    return "; ".join(f"{name}: {what}" for name, (_, _, what) in COMPARISONS.items())


if __name__ == "__main__":
    sys.exit(main())
