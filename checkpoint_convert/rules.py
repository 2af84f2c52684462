"""Rules between the released names and our parameters: a strict bijection, usable in both directions.

A :class:`Rule` relates one released tensor (or one a layer) to one of our arrays.  A layer stack holds many
released tensors in one array, so a rule with ``layers`` fills ``target[layer - layers.start]`` from the name
with ``{layer}`` replaced.  Each rule belongs to a *part* of the model: a part is either complete in a
checkpoint or wholly absent.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from mammoth_jax.core.errors import InputError

Shape = tuple[int, ...]


class Transform(Protocol):
    """How one released tensor is laid out in our array (of one layer); all are exact rearrangements."""

    def source_shape(self, target: Shape) -> Shape:
        """The released tensor's shape, given our array's."""
        ...

    def forward(self, x: np.ndarray, target: Shape) -> np.ndarray:
        """Released tensor to our array."""
        ...

    def backward(self, x: np.ndarray) -> np.ndarray:
        """Our array to the released tensor."""
        ...


@dataclasses.dataclass(frozen=True)
class Same:
    """Same shape, same order."""

    def source_shape(self, target: Shape) -> Shape:
        return target

    def forward(self, x: np.ndarray, target: Shape) -> np.ndarray:
        return x

    def backward(self, x: np.ndarray) -> np.ndarray:
        return x


@dataclasses.dataclass(frozen=True)
class Reshape:
    """Same order, another shape; without ``source`` the released tensor is flat."""

    source: Shape | None = None

    def source_shape(self, target: Shape) -> Shape:
        return self.source if self.source is not None else (math.prod(target),)

    def forward(self, x: np.ndarray, target: Shape) -> np.ndarray:
        return x.reshape(target)

    def backward(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(self.source_shape(x.shape))


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A linear layer's ``[out, in]`` as our ``[*inputs, *outputs]``.

    ``num_inputs`` of our leading dimensions are inputs.  ``source`` is the released shape where it is not
    ``[out, in]``, e.g. a patch convolution ``[out, channels, rows, cols]`` that we apply to flat patches.
    """

    num_inputs: int = 1
    source: Shape | None = None

    def source_shape(self, target: Shape) -> Shape:
        if self.source is not None:
            return self.source
        return (math.prod(target[self.num_inputs :]), math.prod(target[: self.num_inputs]))

    def forward(self, x: np.ndarray, target: Shape) -> np.ndarray:
        return x.reshape(math.prod(target[self.num_inputs :]), -1).T.reshape(target)

    def backward(self, x: np.ndarray) -> np.ndarray:
        inputs = math.prod(x.shape[: self.num_inputs])
        return x.reshape(inputs, -1).T.reshape(self.source_shape(x.shape))


@dataclasses.dataclass(frozen=True)
class ConvKernel:
    """A convolution's ``[out, in, rows, cols]`` as our ``[rows, cols, in, out]``."""

    def source_shape(self, target: Shape) -> Shape:
        return (target[-1], target[-2], *target[:-2])

    def forward(self, x: np.ndarray, target: Shape) -> np.ndarray:
        return np.moveaxis(x, (0, 1), (-1, -2))

    def backward(self, x: np.ndarray) -> np.ndarray:
        return np.moveaxis(x, (-1, -2), (0, 1))


@dataclasses.dataclass(frozen=True)
class Rule:
    """Released name (with ``{layer}`` where ``layers`` is given), our parameter's dotted name, and the layout."""

    part: str
    source: str
    target: str
    transform: Transform = Same()
    layers: range | None = None

    def prefixed(self, source: str = "", target: str = "") -> "Rule":
        """The same rule inside a larger model."""
        return dataclasses.replace(self, source=source + self.source, target=target + self.target)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One released tensor: where it goes and how.  ``layer`` is the leading index of the target, if it is a stack."""

    part: str
    source: str
    target: str
    layer: int | None
    transform: Transform

    def layer_shape(self, target_shape: Shape) -> Shape:
        """Shape of what this entry fills in a target of the given (whole) shape."""
        return tuple(target_shape[1:]) if self.layer is not None else tuple(target_shape)


def expand(rules: Iterable[Rule]) -> list[Entry]:
    """One entry a released tensor."""
    entries: list[Entry] = []
    for rule in rules:
        for layer in rule.layers if rule.layers is not None else (None,):
            source = rule.source if layer is None else rule.source.replace("{layer}", str(layer))
            index = None if layer is None or rule.layers is None else layer - rule.layers.start
            entries.append(Entry(rule.part, source, rule.target, index, rule.transform))
    return entries


def linear(
    part: str,
    source: str,
    target: str,
    *,
    bias: bool = False,
    layers: range | None = None,
    num_inputs: int = 1,
) -> list[Rule]:
    """The rules of a linear layer: ``source.weight`` and, with ``bias``, ``source.bias``."""
    rules = [Rule(part, f"{source}.weight", f"{target}.kernel", Kernel(num_inputs), layers)]
    return rules + ([Rule(part, f"{source}.bias", f"{target}.bias", Reshape(), layers)] if bias else [])


def conv(part: str, source: str, target: str, layers: range | None = None) -> list[Rule]:
    """The rules of a two-dimensional convolution with bias."""
    return [
        Rule(part, f"{source}.weight", f"{target}.kernel", ConvKernel(), layers),
        Rule(part, f"{source}.bias", f"{target}.bias", Same(), layers),
    ]


def norm(
    part: str, source: str, target: str, *, bias: bool = False, layers: range | None = None
) -> list[Rule]:
    """The rules of a normalisation: a scale and, with ``bias``, a bias."""
    rules = [Rule(part, f"{source}.weight", f"{target}.scale", Same(), layers)]
    return rules + ([Rule(part, f"{source}.bias", f"{target}.bias", Same(), layers)] if bias else [])


def prefixed(rules: Iterable[Rule], source: str = "", target: str = "") -> list[Rule]:
    """All rules inside a larger model."""
    return [rule.prefixed(source, target) for rule in rules]


def present_parts(entries: Sequence[Entry], sources: Iterable[str]) -> set[str]:
    """Parts of which the checkpoint holds at least one tensor."""
    names = set(sources)
    return {entry.part for entry in entries if entry.source in names}


def check(
    entries: Sequence[Entry],
    sources: Mapping[str, Shape],
    targets: Mapping[str, Shape],
    where: str,
    problems: Sequence[str] = (),
) -> None:
    """Verifies that the entries pair every source tensor with exactly one place in the targets, shapes
    included.  ``problems`` are what the reader of the source has found already.

    Raises:
      InputError: one error that lists every unmapped, missing, doubled and misshapen tensor.
    """
    _raise(where, [*problems, *_problems(entries, sources, targets)])


def check_parts(
    entries: Sequence[Entry],
    sources: Mapping[str, Shape],
    targets: Mapping[str, Shape],
    where: str,
    problems: Sequence[str] = (),
) -> frozenset[str]:
    """Like :func:`check`, strict per part: a part of which the checkpoint holds any tensor must be complete.

    Parts that the targets lack are not compared with them (a task may load some parts only), but their names
    are. ``problems`` are what the reader of the checkpoint has found already.

    Returns:
      The parts that are wholly absent from the checkpoint.

    Raises:
      InputError: one error that lists every unmapped, missing, doubled and misshapen tensor, and the targets'
        parts
        that the checkpoint lacks; or that nothing in the checkpoint belongs to this model.
    """
    present = present_parts(entries, sources)
    if not present:
        raise InputError(
            f"{where}: none of its {len(sources)} tensors belongs to this model (the first are "
            f"{', '.join(sorted(sources)[:3])}); expected a MammothModa2 checkpoint "
            "(a plain Qwen-VL folder becomes one with: python -m checkpoint_convert assemble)"
        )
    held = {entry.part for entry in entries if entry.target in targets}
    absent = [
        f"absent: the part {part}, e.g. {next(e.source for e in entries if e.part == part)}"
        for part in sorted(held - present)
    ]
    compared = [entry for entry in entries if entry.part in present]
    filled = {entry.target for entry in entries if entry.part in held - present}
    wanted = {name: shape for name, shape in targets.items() if name not in filled}
    _raise(where, [*problems, *absent, *_problems(compared, sources, wanted, held)])
    return frozenset(entry.part for entry in entries) - present


def _raise(where: str, problems: Sequence[str]) -> None:
    if problems:
        raise InputError(
            f"{where}: {len(problems)} tensors do not fit the model:\n  " + "\n  ".join(problems)
        )


def _problems(
    entries: Sequence[Entry],
    sources: Mapping[str, Shape],
    targets: Mapping[str, Shape],
    parts: Container[str] | None = None,
) -> list[str]:
    """What does not fit; only entries of ``parts`` (None is all) are compared with the targets."""
    problems: list[str] = []
    by_source = {entry.source: entry for entry in entries}
    problems += [f"doubled rule: {name}" for name, n in Counter(e.source for e in entries).items() if n > 1]
    places = Counter((entry.target, entry.layer) for entry in entries)
    problems += [f"doubled target: {target}[{layer}]" for (target, layer), n in places.items() if n > 1]
    problems += [f"unmapped: {name} {list(sources[name])}" for name in sorted(set(sources) - set(by_source))]
    problems += [f"missing: {name}" for name in sorted(set(by_source) - set(sources))]
    for entry in entries:
        if parts is not None and entry.part not in parts:
            continue
        if entry.target not in targets:
            problems.append(f"no parameter {entry.target} for {entry.source}")
        elif entry.source in sources:
            want = entry.transform.source_shape(entry.layer_shape(targets[entry.target]))
            if tuple(sources[entry.source]) != tuple(want):
                problems.append(
                    f"misshapen: {entry.source} is {list(sources[entry.source])}, expected {list(want)}"
                )
    layers: dict[str, set[int | None]] = {}
    for target, layer in places:
        layers.setdefault(target, set()).add(layer)
    for name, shape in targets.items():
        filled = layers.get(name, set())
        stacked = filled != {None} and bool(filled)
        if not filled or (stacked and filled != set(range(shape[0]))):
            problems.append(f"parameter {name} {list(shape)} is not filled")
    return problems
