"""Where parameters lie on a mesh, by the sharding rules: how much each device holds, and what no axis divides."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mammoth_jax.core.sharding import current_rules


@dataclasses.dataclass(frozen=True)
class Placed:
    """A parameter on a mesh.

    Attributes:
        name, shape: its own.
        trained: whether a step changes it.
        shards: parts of it that differ; each device holds one.
        used: the same of the copy that a step uses; fewer where the rules have axes for the state alone.
        over_batch: parts of that copy over the axes that divide the batch: each layer's are gathered before use.
        missing: mesh axes that its rules name and that divide none of its dimensions: it lies whole on each of them.
        wanted: parts that there would be without missing axes.
    """

    name: str
    shape: tuple[int, ...]
    trained: bool
    shards: int
    used: int
    over_batch: int
    missing: tuple[str, ...]
    wanted: int

    @property
    def size(self) -> int:
        """Numbers in all of it."""
        return math.prod(self.shape)

    @property
    def share(self) -> int:
        """Numbers on each device."""
        return self.size // self.shards

    @property
    def used_share(self) -> int:
        """Numbers of the copy in use on each device."""
        return self.size // self.used

    @property
    def excess(self) -> int:
        """Numbers on each device beyond an even share."""
        return self.share - self.size // self.wanted


def place(
    name: str,
    shape: Sequence[int],
    axes: Sequence[str | None],
    trained: bool,
    mesh: Mapping[str, int],
) -> Placed:
    """A parameter by its logical axes on a mesh of these sizes, by the current rules."""
    rules, sizes = current_rules(), dict(mesh)
    held, used = (
        [a for entry in spec for a in ((entry,) if isinstance(entry, str) else entry or ())]
        for spec in (
            rules.spec(axes, shape, sizes),
            dataclasses.replace(rules, state=()).spec(axes, shape, sizes),
        )
    )
    asked = [a for logical in axes for a in rules.mesh_axes(logical) if sizes.get(a, 1) > 1]

    def parts(names: Iterable[str]) -> int:
        return math.prod(sizes[a] for a in names)

    over_batch = parts(a for a in used if a in rules.batch)
    asked += [a for a in rules.state if asked and a not in asked and sizes.get(a, 1) > 1]
    missing = tuple(a for a in asked if a not in held)
    return Placed(name, tuple(shape), trained, parts(held), parts(used), over_batch, missing, parts(asked))


def replicated(placed: Iterable[Placed], held: Callable[[Placed], int]) -> list[dict[str, Any]]:
    """Parameters that lie whole on an axis that should divide them, the costliest first.

    Args:
      placed: all parameters.
      held: bytes of the state for each number of a parameter.
    """
    found = [
        {
            "name": p.name,
            "shape": list(p.shape),
            "axes": list(p.missing),
            "bytes": p.share * held(p),
            "excess": p.excess * held(p),
        }
        for p in placed
        if p.missing
    ]
    return sorted(found, key=lambda each: -each["excess"])
