"""Every test sees eight simulated CPU devices, whatever accelerators and libraries the machine has.

Tests compile many small programs and run each for milliseconds, so the compiler is told not to optimise;
``mammoth-jax verify`` runs the recorded cases as optimised as a user's programs are.  Commands that tests call in their
own process keep no compiled programs: the setting would stay for all tests that follow.  Programs in memory are dropped
between files when there are very many: thousands of them use up the 65,530 memory maps that Linux allows a process, and
the compiler then crashes.
"""

import gc
import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

import jax
import pytest

from mammoth_jax.core import compilation_cache

_MANY_MAPS = 25_000

compilation_cache.enable_compilation_cache = lambda: None
jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", os.environ.get("MAMMOTH_OPTIMIZED_TESTS") is None)


@pytest.fixture(autouse=True, scope="module")
def _room_for_programs():
    if sys.platform == "linux" and len(Path("/proc/self/maps").read_bytes().splitlines()) > _MANY_MAPS:
        jax.clear_caches()
        gc.collect()
