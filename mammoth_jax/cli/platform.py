"""Chooses the device platform before JAX is imported."""

import glob
import importlib.util
import os
from pathlib import Path

_PCI = Path("/sys/bus/pci/devices")
_GOOGLE = "0x1ae0"  # PCI vendor of TPU chips, and of the network cards of Google's virtual machines
# those of the vendor's devices that JAX takes for TPU chips, v2 to v8
_TPUS = {"0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076", "0x007c", "0x0083"}


def prefer_cpu_without_accelerator() -> None:
    """Keeps JAX off an installed ``libtpu`` on a machine without any accelerator.

    ``libtpu`` also serves to compile for a TPU that is elsewhere.  On such a machine JAX would try to start it for
    every command, print its complaints and, in some networks, wait for a metadata server.  A platform that the user
    chose (``JAX_PLATFORMS``) is left alone.
    """
    if "JAX_PLATFORMS" in os.environ or importlib.util.find_spec("libtpu") is None:
        return
    if not _has_tpu() and not _has_gpu():
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")


def _has_tpu() -> bool:
    if glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"):
        return True
    return any(_is_tpu(device) for device in _PCI.glob("*"))


def _is_tpu(device: Path) -> bool:
    return _read(device / "vendor") == _GOOGLE and _read(device / "device") in _TPUS


def _has_gpu() -> bool:
    return any(Path(file).exists() for file in ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
