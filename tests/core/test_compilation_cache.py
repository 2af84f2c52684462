"""Where compiled programs are kept, and that a command runs without such a place."""

import importlib.util
from pathlib import Path

import jax
import pytest


def enable_compilation_cache() -> Path | None:
    """The function of a fresh module: ``conftest`` replaces the one that commands find."""
    spec = importlib.util.find_spec("mammoth_jax.core.compilation_cache")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.enable_compilation_cache()


@pytest.fixture
def settings(monkeypatch):
    """What JAX is told, without telling it."""
    told = {}
    monkeypatch.setattr(jax.config, "update", told.__setitem__)
    for name in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return told


def test_a_user_without_a_home_has_no_cache(settings, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert enable_compilation_cache() is None and not settings


def test_a_folder_that_cannot_be_written_is_no_cache(settings, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert enable_compilation_cache() is None and not settings


def test_programs_are_kept_in_the_users_cache(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "mammoth_jax" / "programs"
    assert enable_compilation_cache() == folder and folder.is_dir()
    assert settings["jax_compilation_cache_dir"] == str(folder)


def test_the_folder_that_the_user_names_is_left_to_jax(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    assert enable_compilation_cache() == tmp_path and not settings
