"""The numbers of a run's log as curves, and a picture of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mammoth_jax.core.errors import InputError

Curve = tuple[np.ndarray, np.ndarray]
"""Steps, and the values logged at them."""

_HIDDEN = ("data", "seconds")
_SMOOTHING = 50  # a moving average over this part of the points
_COLUMNS = 4


def curves(records: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None) -> dict[str, Curve]:
    """Every number of a log by name, in alphabetical order.

    Args:
      records: lines of ``metrics.jsonl``.
      names: numbers or groups (``evaluation``) to keep; by default all but counts of data and seconds.

    Raises:
      InputError: a name that the log does not have.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        for name, value in record.items():
            if name != "step" and isinstance(value, (int, float)) and np.isfinite(value):
                found.setdefault(name, []).append((record["step"], float(value)))
    if names:
        kept = {n for n in found for wanted in names if n == wanted or n.startswith(f"{wanted}/")}
        for wanted in names:
            if not any(n == wanted or n.startswith(f"{wanted}/") for n in kept):
                raise InputError(f"no number {wanted!r} in the log; there are {', '.join(sorted(found))}")
    else:
        kept = {n for n in found if n.split("/")[0] not in _HIDDEN}
    return {n: (_column(found[n], 0), _column(found[n], 1)) for n in sorted(kept)}


def draw(found: Mapping[str, Curve], file: Path) -> None:
    """Writes a PNG with a panel a curve.

    Raises:
      InputError: matplotlib is not installed.
    """
    draw_panels({name: {name: curve} for name, curve in found.items()}, file)


def draw_panels(panels: Mapping[str, Mapping[str, Curve]], file: Path) -> None:
    """Writes a PNG with a panel a title; curves of one panel are named in it where there are several.

    Raises:
      InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("drawing curves needs matplotlib; pip install 'mammoth-jax[plot]'") from error
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for place, (title, found) in zip(places, panels.items(), strict=False):
        for number, (name, (steps, values)) in enumerate(found.items()):
            few, color = len(values) < 3 * _SMOOTHING, f"C{number}"
            weight, marker = (1.0, ".") if few else (0.25, None)
            place.plot(
                steps,
                values,
                color=color,
                alpha=weight,
                linewidth=1,
                marker=marker,
                label=name if few else None,
            )
            if not few:
                mean = moving_average(values, len(values) // _SMOOTHING)
                place.plot(steps, mean, color=color, linewidth=1.2, label=name)
        place.set_title(title, fontsize=8)
        place.tick_params(labelsize=7)
        place.grid(alpha=0.3)
        if len(found) > 1:
            place.legend(fontsize=6)
    for place in places[len(panels) :]:
        place.axis("off")
    figure.savefig(file, format="png", dpi=100)


def moving_average(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of the last ``width`` values up to each (of fewer at the start)."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _column(pairs: list[tuple[int, float]], index: int) -> np.ndarray:
    return np.array([pair[index] for pair in pairs])
