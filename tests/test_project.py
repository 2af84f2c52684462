"""The project as a whole: what the wheel holds, the direction of imports, configuration fields, stray paths."""

import ast
import dataclasses
import os
import re
import subprocess
import sys
import tomllib
import typing
from pathlib import Path

import pytest
import yaml

from mammoth_jax.core.compat import ReleaseFaults
from mammoth_jax.data.loader import DataConfig
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.pipelines.precompute import Precompute
from mammoth_jax.training.joint_config import JointTraining
from mammoth_jax.training.tokenizer_config import TokenizerTraining

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("mammoth_jax", "checkpoint_convert")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which the wheel, built from this checkout, is installed without its dependencies."""
    built, target = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("installed")
    build = f"import hatchling.build as b; print(b.build_wheel({str(built)!r}))"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, check=True, capture_output=True, text=True)
    (wheel,) = built.glob("*.whl")
    install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--target",
        str(target),
        str(wheel),
    ]
    subprocess.run([sys.executable, *install], cwd=built, check=True, capture_output=True, text=True)
    return target


def run_installed(folder, *words):
    """Runs Python outside the checkout with the installed wheel in front of everything else."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_the_installed_command_shows_the_dev_preset(installed):
    shown = yaml.safe_load(
        run_installed(installed, installed / "bin" / "mammoth-jax", "config", "show", "--preset", "dev")
    )
    assert shown["backbone"]["decoder"]["num_layers"] == 36


def test_the_wheel_holds_presets_and_converter(installed):
    where = "import mammoth_jax, checkpoint_convert; print(mammoth_jax.__file__); print(checkpoint_convert.__file__)"
    assert all(line.startswith(str(installed)) for line in run_installed(installed, "-c", where).splitlines())
    shipped = {file.name for file in (installed / "mammoth_jax" / "configs" / "model").iterdir()}
    assert shipped == {file.name for file in (ROOT / "configs" / "model").iterdir()}
    assert "usage" in run_installed(installed, "-m", "checkpoint_convert", "--help")


def test_the_wheel_holds_every_file_of_the_packages(installed):
    """Pages, pictures and the shipped model too."""
    names = [
        file.relative_to(ROOT) for file in tracked_files() if file.relative_to(ROOT).parts[0] in PACKAGES
    ]
    assert len(names) > 100 and any(name.suffix == ".md" for name in names)
    assert [str(name) for name in names if not (installed / name).is_file()] == []


def test_each_libtpu_is_pinned_with_its_jax():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pins = {(marker.strip(), name.strip()) for name, marker in (line.split(";") for line in extras["tpu"])}
    assert pins == {
        ("python_version < '3.12'", "jax==0.10.2"),
        ("python_version < '3.12'", "libtpu==0.0.42.*"),
        ("python_version >= '3.12'", "jax==0.11.2"),
        ("python_version >= '3.12'", "libtpu==0.0.48.*"),
    }


def test_imports_go_only_downward(monkeypatch):
    from importlinter.cli import lint_imports

    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def sources():
    """All Python files of the packages with their syntax trees."""
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            yield file, ast.parse(file.read_text(encoding="utf-8"))


class Reads(ast.NodeVisitor):
    """Attribute names that code reads, apart from validation and from writing a configuration back out."""

    NOT_USE = ("__post_init__", "config_to_released")

    def __init__(self):
        self.names = set()

    def visit_FunctionDef(self, node):
        if node.name not in self.NOT_USE:
            self.generic_visit(node)

    def visit_Attribute(self, node):
        if isinstance(node.ctx, ast.Load):
            self.names.add(node.attr)
        self.generic_visit(node)


def config_classes(kind, seen):
    """All dataclasses that the fields of a dataclass mention."""
    if dataclasses.is_dataclass(kind) and kind not in seen:
        seen.add(kind)
        for hint in typing.get_type_hints(kind).values():
            config_classes(hint, seen)
    for argument in typing.get_args(kind):
        config_classes(argument, seen)
    return seen


def test_every_configuration_field_is_read_by_some_code():
    reads = Reads()
    for _, tree in sources():
        reads.visit(tree)
    seen: set = set()
    for config in (MammothConfig, DataConfig, TokenizerTraining, JointTraining, Precompute):
        config_classes(config, seen)
    classes = seen | {ReleaseFaults}
    fields = {f"{c.__name__}.{f.name}" for c in classes for f in dataclasses.fields(c)}
    assert len(fields) > 50
    unread = sorted(name for name in fields if name.split(".")[1] not in reads.names)
    assert not unread, ", ".join(unread)


def tracked_files():
    """Files that belong to the repository (or to an unpacked source archive)."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout:
        return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    return [file for top in (*PACKAGES, "configs", "scripts", "tests") for file in (ROOT / top).rglob("*.*")]


def test_no_file_names_a_path_of_somebodys_machine():
    folders = "|".join(("work", "root", "tmp", "home/[a-z]", "Users/[A-Za-z]"))
    pattern = re.compile(rb"(?<![\w.~}])/(" + folders.encode() + rb")[/\w]")
    found = [
        f"{file.relative_to(ROOT)}: {match.group().decode()}"
        for file in tracked_files()
        if file.suffix in {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".txt", ".sh", ""}
        for match in pattern.finditer(file.read_bytes())
    ]
    assert found == []
