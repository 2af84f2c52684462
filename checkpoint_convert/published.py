"""Frozen networks from the files in which they are published, for tokenizer training and its metrics.

=====================  =======================================================================================
VGG16                  torchvision's ``vgg16``; its classifier is left unread
LPIPS                  the five channel weights, version 0.1 (``vgg.pth``)
Inception              the FID's weights (``pt_inception-2015-12-05``); its classifier and counters are left unread
AIMv2                  Apple's vision towers, of native or of a fixed resolution
=====================  =======================================================================================

Files are safetensors or ``.pth``, read without torch.  What is read pairs with our arrays one to one, both ways.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from checkpoint_convert import aimv2
from checkpoint_convert.folder import read_json
from checkpoint_convert.pickle_file import PickleFile, is_pickle_file
from checkpoint_convert.rules import (
    ConvKernel,
    Reshape,
    Rule,
    check,
    conv,
    expand,
    norm,
    present_parts,
)
from checkpoint_convert.safetensors_file import Spec
from checkpoint_convert.source import FolderSource, TensorSource, problems, shapes
from checkpoint_convert.stream import by_target, read_onto
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import abstract, named_parameters, with_parameters
from mammoth_jax.models.aimv2 import AnyGrid, SemanticEncoder, TrainedGrid
from mammoth_jax.models.inception import Inception
from mammoth_jax.models.lpips import LPIPS
from mammoth_jax.models.vgg import STAGES

_VGG, _LPIPS, _INCEPTION, _AIMV2 = "VGG16 of torchvision", "LPIPS 0.1 for VGG", "the FID's Inception", "AIMv2"
_VGG_UNREAD = re.compile(r"classifier\.")
_INCEPTION_UNREAD = re.compile(r"fc\.(weight|bias)$|.*\.bn\.num_batches_tracked$")
_FID_CLASSES = 1008


def load_lpips(vgg: Path | str, heads: Path | str, mesh: Mesh, dtype: Any = None) -> LPIPS:
    """The perceptual distance, from VGG16's weights and the five channel weights.

    ``dtype`` casts (None keeps the files'), here and below.

    Raises:
      InputError: a file that cannot be read, asks for more than tensors, or is of another network; the message lists
        every tensor that does not fit.
    """
    module = abstract(LPIPS)
    values = _values(module, vgg_rules(), _Without(_open(vgg), _VGG_UNREAD), _VGG, "vgg.", mesh, dtype)
    values |= _values(module, lpips_rules(), _open(heads), _LPIPS, "weights.", mesh, dtype)
    return with_parameters(module, values)


def load_inception(path: Path | str, mesh: Mesh, dtype: Any = None) -> Inception:
    """The network by whose features the FID is defined.

    Raises:
      InputError: as above; torchvision's own Inception v3, which has the same layers, is refused by its classifier.
    """
    source = _open(path)
    classes = source.specs["fc.weight"].shape[:1] if "fc.weight" in source.specs else (_FID_CLASSES,)
    if classes != (_FID_CLASSES,):
        raise InputError(
            f"{path}: an Inception of {classes[0] if classes else 0} classes; expected {_INCEPTION} "
            f"({_FID_CLASSES} classes, pt_inception-2015-12-05-6726825d.pth): other weights give no FID"
        )
    module = abstract(Inception)
    source = _Without(source, _INCEPTION_UNREAD)
    return with_parameters(module, _values(module, inception_rules(), source, _INCEPTION, "", mesh, dtype))


def load_semantic_encoder(
    path: Path | str, pixels_per_token: int, mesh: Mesh, dtype: Any = None
) -> SemanticEncoder:
    """An AIMv2 tower, from a folder or a file, for visual tokens of ``pixels_per_token``.

    Raises:
      InputError: as above.
    """
    path, source = Path(path), _open(path)
    try:
        config = aimv2.config_from_shapes(shapes(source))
    except (KeyError, ValueError, IndexError) as error:
        raise _foreign(source, f"{_AIMV2} (preprocessor.*, trunk.*)") from error
    if (path / "config.json").is_file():
        heads = read_json(path / "config.json").get("num_attention_heads", config.num_heads)
        config = dataclasses.replace(config, num_heads=int(heads))
    rules, grid = aimv2.rules("aimv2", config), AnyGrid()
    if aimv2.POSITIONS in source.specs:
        cells = math.prod(source.specs[aimv2.POSITIONS].shape[:-1])
        grid = TrainedGrid(math.isqrt(cells))
        rules = [*rules, aimv2.position_rule("aimv2", grid.side**2, config.width)]
    module = abstract(lambda: SemanticEncoder(config, pixels_per_token, grid))
    return with_parameters(module, _values(module, rules, source, _AIMV2, "", mesh, dtype))


def vgg_rules() -> list[Rule]:
    """torchvision counts convolutions, ReLUs and pools alike; targets are LPIPS's."""
    rules: list[Rule] = []
    index = count = 0
    for stage in STAGES:
        for _ in stage:
            rules += conv("vgg", f"features.{index}", f"vgg.convs.{count}")
            index, count = index + 2, count + 1
        index += 1
    return rules


def lpips_rules() -> list[Rule]:
    """The channel weights are 1x1 convolutions after a dropout."""
    return [
        Rule("lpips", f"lin{i}.model.1.weight", f"weights.{i}", Reshape((1, stage[-1], 1, 1)))
        for i, stage in enumerate(STAGES)
    ]


def inception_rules() -> list[Rule]:
    """torchvision's names, branch by branch."""
    names = {
        f"Conv2d_{name}": f"stem.{i}"
        for i, name in enumerate(("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3"))
    }
    for i, block in enumerate("bcd"):
        names |= _branch(f"Mixed_5{block}", f"a.{i}", point=("1x1",), pool=("_pool",))
        names |= _branch(f"Mixed_5{block}", f"a.{i}", five=_counted("5x5", 2), three=_counted("3x3dbl", 3))
    names |= _branch("Mixed_6a", "b", double=_counted("3x3dbl", 2))
    names |= {"Mixed_6a.branch3x3": "b.three", "Mixed_6a.branch3x3dbl_3": "b.double_out"}
    for i, block in enumerate("bcde"):
        names |= _branch(f"Mixed_6{block}", f"c.{i}", point=("1x1",), pool=("_pool",))
        names |= _branch(f"Mixed_6{block}", f"c.{i}", seven=_counted("7x7", 3), double=_counted("7x7dbl", 5))
    names |= _branch("Mixed_7a", "d", three=_counted("3x3", 1), seven=_counted("7x7x3", 3))
    names |= {"Mixed_7a.branch3x3_2": "d.three_out", "Mixed_7a.branch7x7x3_4": "d.seven_out"}
    for i, block in enumerate("bc"):
        theirs, ours = f"Mixed_7{block}", f"e.{i}"
        names |= _branch(theirs, ours, point=("1x1",), pool=("_pool",))
        names |= _branch(theirs, ours, three=_counted("3x3", 1), double=_counted("3x3dbl", 2))
        for branch, here, last in (("3x3", "three", 2), ("3x3dbl", "double", 3)):
            names[f"{theirs}.branch{branch}_{last}a"] = f"{ours}.{here}_row"
            names[f"{theirs}.branch{branch}_{last}b"] = f"{ours}.{here}_column"
    rules: list[Rule] = []
    for theirs, ours in names.items():
        rules.append(Rule("inception", f"{theirs}.conv.weight", f"{ours}.kernel", ConvKernel()))
        rules += norm("inception", f"{theirs}.bn", ours, bias=True)
        rules.append(Rule("inception", f"{theirs}.bn.running_mean", f"{ours}.mean"))
        rules.append(Rule("inception", f"{theirs}.bn.running_var", f"{ours}.variance"))
    return rules


def _counted(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}_{i + 1}" for i in range(count))


def _branch(theirs: str, ours: str, **branches: tuple[str, ...]) -> dict[str, str]:
    return {
        f"{theirs}.branch{name}": f"{ours}.{branch}.{i}"
        for branch, names in branches.items()
        for i, name in enumerate(names)
    }


@dataclasses.dataclass(frozen=True)
class _Without:
    """A source without the tensors that are known and not needed; they are never read."""

    source: TensorSource
    unread: re.Pattern[str]

    @property
    def where(self) -> str:
        return self.source.where

    @property
    def specs(self) -> Mapping[str, Spec]:
        return {name: spec for name, spec in self.source.specs.items() if not self.unread.match(name)}

    @property
    def doubled(self) -> tuple[str, ...]:
        return self.source.doubled

    def read(self, name: str) -> np.ndarray:
        return self.source.read(name)


def _open(path: Path | str) -> TensorSource:
    """A folder or file of safetensors, or a ``.pth`` file; what a file is, its first bytes say."""
    path = Path(path)
    return PickleFile(path) if not path.is_dir() and is_pickle_file(path) else FolderSource(path)


def _values(
    module: nnx.Module,
    rules: Iterable[Rule],
    source: TensorSource,
    what: str,
    prefix: str,
    mesh: Mesh,
    dtype: Any,
) -> dict[str, jax.Array]:
    """The module's parameters under ``prefix``, read from the source, which must hold them and nothing else."""
    entries = expand(rules)
    parameters = {name: p for name, p in named_parameters(module).items() if name.startswith(prefix)}
    if not present_parts(entries, source.specs):
        raise _foreign(source, what)
    targets = {name: tuple(p.shape) for name, p in parameters.items()}
    check(entries, shapes(source), targets, f"{source.where} as {what}", problems(source))
    return read_onto(by_target(entries, parameters), parameters, source, mesh, dtype)


def _foreign(source: TensorSource, what: str) -> InputError:
    first = ", ".join(sorted(source.specs)[:3]) or "it is empty"
    return InputError(
        f"{source.where}: its {len(source.specs)} tensors are not those of {what} (the first are {first}); "
        "give that network's published file"
    )
