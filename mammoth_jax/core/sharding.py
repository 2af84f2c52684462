"""From axis names written beside the weights to shardings on a mesh.

Every parameter carries one logical name per dimension (``("embed", "mlp")``), every constrained activation likewise.
:class:`ShardingRules` maps names to mesh axes.  Widths need not divide by the mesh: an axis that does not fit is
moved to the next dimension that it divides (a stacked-layer axis included), and replicated only when there is none.
"""

import contextlib
import dataclasses
from collections.abc import Sequence

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import AXES

Axes = Sequence[str | None]


@dataclasses.dataclass(frozen=True)
class ShardingRules:
    """Mesh axes of each logical dimension name; ``()`` means replicated.

    ``state`` is no name: its axes divide weights further while they are held (masters, moments, gradients), each on the
    first dimension that it fits; before use such weights are gathered over them (:func:`constrain_weight`).
    """

    batch: tuple[str, ...] = ("data", "fsdp")
    length: tuple[str, ...] = ()
    embed: tuple[str, ...] = ("fsdp",)
    mlp: tuple[str, ...] = ("tensor",)
    heads: tuple[str, ...] = ("tensor",)
    kv_heads: tuple[str, ...] = ("tensor",)
    vocab: tuple[str, ...] = ("tensor",)
    channels: tuple[str, ...] = ("fsdp",)
    layers: tuple[str, ...] = ()
    state: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            for axis in getattr(self, field.name):
                if axis not in AXES:
                    raise InputError(
                        f"sharding rule {field.name}: {axis!r} is not a mesh axis; known: {AXES}"
                    )
        for name in ("length", "mlp", "heads", "kv_heads", "vocab"):
            for axis in set(getattr(self, name)) & set(self.batch):
                raise InputError(
                    f"sharding rule {name}: {axis!r} divides rows; a device's own rows need all of {name}"
                )

    def mesh_axes(self, name: str | None) -> tuple[str, ...]:
        """Mesh axes of one logical name (``None`` is replicated).

        Raises:
          InputError: the name has no rule.
        """
        if name is None:
            return ()
        if not hasattr(self, name):
            known = ", ".join(field.name for field in dataclasses.fields(self))
            raise InputError(f"logical axis {name!r} has no sharding rule; known: {known}")
        return getattr(self, name)

    def spec(
        self, axes: Axes, shape: Sequence[int], mesh_shape: dict[str, int], *, move: bool = True
    ) -> PartitionSpec:
        """The partition of an array of this shape.

        With ``move`` (for weights) a mesh axis that does not divide its dimension goes to the largest other dimension
        that it divides, one without an axis of its own before others; without it (for activations) it is left out.

        Raises:
          InputError: two dimensions of the array claim the same mesh axis ("colliding axes").
        """
        if len(axes) != len(shape):
            raise InputError(f"axes {tuple(axes)} do not describe an array of shape {tuple(shape)}")
        claimed: dict[str, str] = {}
        placed: list[list[str]] = [[] for _ in shape]
        homeless: list[str] = []
        for dim, name in enumerate(axes):
            for axis in self.mesh_axes(name):
                if axis in claimed:
                    raise InputError(
                        f"colliding axes: {name!r} and {claimed[axis]!r} both shard over {axis!r} in {tuple(axes)}"
                    )
                claimed[axis] = str(name)
                if not _place(axis, dim, placed, shape, mesh_shape):
                    homeless.append(axis)
        for axis in homeless if move else ():
            order = sorted(range(len(shape)), key=lambda i: (bool(placed[i]), -shape[i]))
            any(_place(axis, dim, placed, shape, mesh_shape) for dim in order)  # the first that it fits
        for axis in self.state if move and claimed else ():
            if axis not in claimed:
                order = sorted(range(len(shape)), key=lambda i: (not self.mesh_axes(axes[i]), -shape[i]))
                any(_place(axis, dim, placed, shape, mesh_shape) for dim in order)
        return PartitionSpec(*(tuple(p) if len(p) > 1 else (p[0] if p else None) for p in placed))


def _place(
    axis: str, dim: int, placed: list[list[str]], shape: Sequence[int], mesh_shape: dict[str, int]
) -> bool:
    """Puts a mesh axis on a dimension if what is left of it divides; a mesh axis of size 1 needs no place."""
    size = mesh_shape.get(axis, 1)
    if size == 1:
        return True
    taken = 1
    for other in placed[dim]:
        taken *= mesh_shape[other]
    if shape[dim] % (taken * size):
        return False
    placed[dim].append(axis)
    return True


DEFAULT_RULES = ShardingRules()

_override = jax.make_user_context(None)  # a value that programs are compiled for: another one compiles again


def use_rules(rules: ShardingRules) -> contextlib.AbstractContextManager[None]:
    """``with use_rules(rules):`` weights are placed, and programs called (compiled) inside divided, by these rules."""
    return _override(rules)


def current_rules() -> ShardingRules:
    """The rules of :func:`use_rules`, else :data:`DEFAULT_RULES`."""
    return DEFAULT_RULES if _override.value is None else _override.value


def parse_rules(text: str) -> ShardingRules:
    """``"length=tensor,embed=fsdp+data"`` as the default rules but for the names given; ``embed=`` divides nothing.

    Raises:
      InputError: an unknown name or axis, or a name given twice.
    """
    known = [field.name for field in dataclasses.fields(ShardingRules)]
    given: dict[str, tuple[str, ...]] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, axes = item.partition("=")
        if name not in known or not equals:
            raise InputError(
                f"sharding rule {item!r}: write NAME=AXIS or NAME=AXIS+AXIS; names: {', '.join(known)}"
            )
        if name in given:
            raise InputError(f"sharding rule {name!r} is given twice in {text!r}")
        given[name] = tuple(axis for axis in axes.split("+") if axis)
    return ShardingRules(**given)


def named_sharding(
    mesh: Mesh, axes: Axes, shape: Sequence[int], rules: ShardingRules | None = None
) -> NamedSharding:
    """The sharding of a weight on a mesh, by the current rules unless others are given."""
    return NamedSharding(mesh, (rules or current_rules()).spec(axes, shape, dict(mesh.shape)))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """States the sharding of an activation; does nothing when no mesh is set (``jax.set_mesh``)."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    spec = current_rules().spec(axes, x.shape, dict(mesh.shape), move=False)
    return jax.lax.with_sharding_constraint(x, spec)


def whole_features(x: jax.Array, count: int, across: Axes) -> jax.Array:
    """One side of a product: its last ``count`` dimensions are whole along the mesh axes that divide the other side.

    ``across`` are the kernel's axes on that other side.  Divided there too, the product would be summed over an axis
    and divided by it; with rows over two more axes XLA (jaxlib 0.10.2 and 0.11.2, on CPUs) exchanges rows between
    devices for it and does not bring them back: wrong gradients without an error.
    """
    rules, mesh = current_rules(), jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    dividing = {axis for name in across for axis in rules.mesh_axes(name)} - set(rules.batch)
    if all(mesh.shape[axis] == 1 for axis in dividing):
        return x
    leading = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - count)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*leading, *(None,) * count))


def constrain_weight(x: jax.Array, *axes: str | None) -> jax.Array:
    """A weight as it is used: gathered over the axes that divide it only while it is held (``state``)."""
    rules, mesh = current_rules(), jax.sharding.get_abstract_mesh()
    if not rules.state or mesh.empty or mesh.size == 1:
        return x
    spec = dataclasses.replace(rules, state=()).spec(axes, x.shape, dict(mesh.shape))
    return jax.lax.with_sharding_constraint(x, spec)
