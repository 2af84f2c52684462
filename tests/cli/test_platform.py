"""An installed TPU library does not disturb a machine without a TPU."""

import importlib.machinery
import importlib.util
import os

import pytest

from mammoth_jax.cli import platform


@pytest.fixture
def machine(monkeypatch):
    """Simulates which library and devices a machine has."""

    def build(*, libtpu: bool, tpu: bool = False, gpu: bool = False):
        spec = importlib.machinery.ModuleSpec("libtpu", None) if libtpu else None
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
        monkeypatch.setattr(platform, "_has_tpu", lambda: tpu)
        monkeypatch.setattr(platform, "_has_gpu", lambda: gpu)
        monkeypatch.setattr(os, "environ", dict[str, str]())

    return build


def test_libtpu_without_any_accelerator_means_cpu(machine):
    machine(libtpu=True)
    platform.prefer_cpu_without_accelerator()
    assert os.environ["JAX_PLATFORMS"] == "cpu"


@pytest.mark.parametrize("devices", [{"tpu": True}, {"gpu": True}])
def test_an_accelerator_is_left_to_jax(machine, devices):
    machine(libtpu=True, **devices)
    platform.prefer_cpu_without_accelerator()
    assert "JAX_PLATFORMS" not in os.environ


def test_without_libtpu_nothing_is_decided(machine):
    machine(libtpu=False)
    platform.prefer_cpu_without_accelerator()
    assert "JAX_PLATFORMS" not in os.environ


def test_the_users_choice_stands(machine):
    machine(libtpu=True)
    os.environ["JAX_PLATFORMS"] = "tpu,cpu"
    platform.prefer_cpu_without_accelerator()
    assert os.environ["JAX_PLATFORMS"] == "tpu,cpu"


@pytest.mark.parametrize(
    ("vendor", "device", "found"),
    [
        ("0x1ae0", "0x0063", True),  # TPU v5e
        ("0x1ae0", "0x0042", False),  # a network card of Google's virtual machines
        ("0x10de", "0x0063", False),
    ],
)
def test_only_a_tpu_chip_on_the_bus_makes_a_tpu_host(tmp_path, monkeypatch, vendor, device, found):
    slot = tmp_path / "0000:00:04.0"
    slot.mkdir()
    (slot / "vendor").write_text(f"{vendor}\n")
    (slot / "device").write_text(f"{device}\n")
    monkeypatch.setattr(platform, "_PCI", tmp_path)
    monkeypatch.setattr(platform.glob, "glob", lambda pattern: [])  # no device files
    assert platform._has_tpu() is found
