"""Published networks at random weights, and ``.pth`` files, made without torch.

:func:`draw` is the rule by which ``scripts/record_loss_network_vectors.py`` drew the weights of the recorded cases.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from checkpoint_convert.rules import Rule, Shape, expand
from mammoth_jax.core.parameters import named_parameters

SEED = 6
STORAGES = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "float64": "DoubleStorage",
    "int64": "LongStorage",
}


def draw(name: str, shape: Shape) -> np.ndarray:
    """The weights of the tensor ``name``."""
    noise = np.random.Generator(np.random.Philox(key=[SEED, zlib.crc32(name.encode())]))
    x = noise.standard_normal(shape, np.float32)
    if name.endswith("running_var"):
        return np.exp(0.3 * x)
    if name.startswith("lin"):
        return np.abs(x)
    if len(shape) == 1:
        return (1 + 0.1 * x) if name.endswith("weight") else 0.1 * x
    return x * np.float32(np.sqrt((2 if len(shape) == 4 else 1) / np.prod(shape[1:])))


def drawn(rules: Iterable[Rule], module) -> dict[str, np.ndarray]:
    """All published tensors of a module."""
    targets = {name: tuple(p.shape) for name, p in named_parameters(module).items()}
    return {
        entry.source: draw(
            entry.source, entry.transform.source_shape(entry.layer_shape(targets[entry.target]))
        )
        for entry in expand(rules)
    }


def write_zip(file: Path, tensors: Mapping[str, np.ndarray], compression: int = zipfile.ZIP_STORED) -> Path:
    """As ``torch.save`` writes a dictionary of tensors since 1.6."""
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", dictionary(tensors))
        for key, x in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{key}", np.ascontiguousarray(x).tobytes())
    return file


def write_stream(file: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """As it wrote one before."""
    keys = b"".join(text(str(key)) for key in range(len(tensors)))
    storages = (np.ascontiguousarray(x) for x in tensors.values())
    file.write_bytes(
        stream_head()
        + dictionary(tensors)
        + program(b"](" + keys + b"e")
        + b"".join(struct.pack("<q", x.size) + x.tobytes() for x in storages)
    )
    return file


def stream_head() -> bytes:
    """The magic number, the version and the facts about the machine."""
    magic = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
    facts = b"}(" + text("little_endian") + b"\x88" + text("protocol_version") + number(1001) + b"u"
    return program(b"\x8a\x0a" + magic) + program(number(1001)) + program(facts)


def dictionary(tensors: Mapping[str, np.ndarray], rebuild: str = "_rebuild_tensor_v2") -> bytes:
    """The pickle of an ordered dictionary whose tensors fill storages ``0``, ``1``, ..."""
    items = b"".join(text(name) + tensor(i, x, rebuild) for i, (name, x) in enumerate(tensors.items()))
    return program(b"ccollections\nOrderedDict\n)R(" + items + b"u")


def tensor(key: int, x: np.ndarray, rebuild: str = "_rebuild_tensor_v2") -> bytes:
    """Instructions that push a tensor."""
    strides = [1]
    for size in reversed(x.shape[1:]):
        strides.insert(0, strides[0] * size)
    kind = STORAGES[x.dtype.name]
    place = text("storage") + f"ctorch\n{kind}\n".encode() + text(str(key)) + text("cpu") + number(x.size)
    place = b"(" + place + (b"N" if rebuild == "_rebuild_tensor" else b"") + b"tQ"
    shape = b"(" + b"".join(map(number, x.shape)) + b"t"
    step = b"(" + b"".join(map(number, strides[: x.ndim])) + b"t"
    more = b"" if rebuild == "_rebuild_tensor" else b"\x89ccollections\nOrderedDict\n)R"
    return f"ctorch._utils\n{rebuild}\n(".encode() + place + number(0) + shape + step + more + b"tR"


def program(instructions: bytes) -> bytes:
    """A whole pickle."""
    return b"\x80\x02" + instructions + b"."


def text(x: str) -> bytes:
    """Pushes a string."""
    return b"X" + struct.pack("<I", len(x.encode())) + x.encode()


def number(x: int) -> bytes:
    """Pushes a number."""
    return b"J" + struct.pack("<i", x)
