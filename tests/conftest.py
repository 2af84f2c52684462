"""Every test sees eight simulated CPU devices, whatever accelerators and libraries the machine has.

Tests compile many small programs and run each for milliseconds, so the compiler is told not to optimise;
``mammoth-jax verify`` runs the recorded cases as optimised as a user's programs are.  Commands that tests call in their
own process keep no compiled programs: the setting would stay for all tests that follow.  After each file the programs
in memory are dropped: thousands of them use up the 65,530 memory maps that Linux allows a process, and the compiler
then crashes.
"""

import gc
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

import jax
import pytest

from mammoth_jax.core import compilation_cache

compilation_cache.enable_compilation_cache = lambda: None
jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", os.environ.get("MAMMOTH_OPTIMIZED_TESTS") is None)


@pytest.fixture(autouse=True, scope="module")
def _programs_end_with_their_file():
    yield
    jax.clear_caches()
    gc.collect()
