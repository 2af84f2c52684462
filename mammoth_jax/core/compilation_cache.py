"""Compiled programs on disk, so that a second process does not compile them again."""

import os
from pathlib import Path

import jax


def enable_compilation_cache() -> Path | None:
    """Keeps compiled programs under ``$XDG_CACHE_HOME/mammoth_jax/programs``; ``JAX_COMPILATION_CACHE_DIR`` goes first.

    Returns the folder, or ``None`` where there is no home or it cannot be written (the programs are then compiled
    again).
    """
    named = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if named:
        return Path(named)
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = caches / "mammoth_jax" / "programs"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the latter: a user without a home
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return folder
