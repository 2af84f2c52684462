"""Where one item stands relative to another, by their centres.

"a is left of b" holds when b's centre lies at least an eighth of the picture's shorter side further right than a's, and
at most 60 degrees off the horizontal; the other three likewise.  On a diagonal two relations hold; nearly concentric
items have none.  (GenEval's position test draws the same 60-degree sectors.)
"""

from typing import Literal, get_args

from mammoth_jax.data.synthetic.scene import Item

Relation = Literal["left of", "right of", "above", "below"]

RELATIONS: tuple[Relation, ...] = get_args(Relation)
Place = Literal["top left", "top right", "bottom left", "bottom right"]
PLACES: tuple[Place, ...] = get_args(Place)

OPPOSITE: dict[Relation, Relation] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}


def relations_between(
    a: tuple[float, float], b: tuple[float, float], height: int, width: int, slack: float = 0.0
) -> tuple[Relation, ...]:
    """The relations of a thing centred at ``a`` to one centred at ``b``, in a picture of the given size.

    ``slack`` is by how many pixels each distance may be off, where centres are measured.
    """
    right, down = b[0] - a[0], b[1] - a[1]
    margin = min(height, width) / 8 - slack
    found: list[Relation] = []
    if abs(right) >= margin and 3 * (abs(right) + slack) ** 2 >= max(abs(down) - slack, 0.0) ** 2:
        found.append("left of" if right > 0 else "right of")
    if abs(down) >= margin and 3 * (abs(down) + slack) ** 2 >= max(abs(right) - slack, 0.0) ** 2:
        found.append("above" if down > 0 else "below")
    return tuple(found)


def relations(a: Item, b: Item, height: int, width: int) -> tuple[Relation, ...]:
    """The relations of item ``a`` to item ``b``."""
    return relations_between(a.centre, b.centre, height, width)


def place_of(centre: tuple[float, float], height: int, width: int, slack: float = 0.0) -> Place | None:
    """The corner that something centred there is nearest to; None within an eighth of a middle line.

    ``slack`` is by how many pixels the centre may be off, where it is measured.
    """
    right, down = centre[0] / width - 0.5, centre[1] / height - 0.5
    if abs(right) < 1 / 8 - slack / width or abs(down) < 1 / 8 - slack / height:
        return None
    if down < 0:
        return "top left" if right < 0 else "top right"
    return "bottom left" if right < 0 else "bottom right"
