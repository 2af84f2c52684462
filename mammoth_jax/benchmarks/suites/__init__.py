"""The benchmarks of ``mammoth-jax bench``: an object each, which runs what the pipelines run."""

from mammoth_jax.benchmarks.measurement import Bench
from mammoth_jax.benchmarks.suites.attention import Attention
from mammoth_jax.benchmarks.suites.cross_entropy import CrossEntropy
from mammoth_jax.benchmarks.suites.decode import Decode
from mammoth_jax.benchmarks.suites.dit import Dit
from mammoth_jax.benchmarks.suites.generate import Generate
from mammoth_jax.benchmarks.suites.routed_ffn import RoutedFfn
from mammoth_jax.benchmarks.suites.vae import Vae

BENCHES: dict[str, Bench] = {
    bench.name: bench
    for bench in (Attention(), RoutedFfn(), CrossEntropy(), Decode(), Dit(), Vae(), Generate())
}
"""By the names of the command line."""
