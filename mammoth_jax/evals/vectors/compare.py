"""How far a computed value is from a recorded one, in units of the recorded tolerance.

The rule for every tensor: ``|ours - recorded| <= tolerance`` everywhere.  Shapes must agree, a value that is not a
number is a miss where the record holds a number, and a tolerance of 0 asks for equality.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One compared value.  ``problem`` says why it could not be measured; it is then a miss whatever the error."""

    name: str
    error: float
    tolerance: float
    problem: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the value is within its tolerance."""
        return self.problem is None and self.error <= self.tolerance

    @property
    def ratio(self) -> float:
        """Error over tolerance: at most 1 is a pass; exact values have 0 or infinity."""
        if self.problem is not None:
            return math.inf
        if self.tolerance > 0:
            return self.error / self.tolerance
        return 0.0 if self.error == 0 else math.inf


def miss(name: str, problem: str, tolerance: float = 0.0) -> Comparison:
    """A value that could not be measured."""
    return Comparison(name, math.inf, tolerance, problem)


def compare_tensor(name: str, got: Any, expected: np.ndarray, tolerance: float) -> Comparison:
    """Largest absolute difference between two arrays of one shape, in float64 (integers and booleans exactly)."""
    got = np.asarray(got)
    if got.shape != expected.shape:
        return miss(name, f"shape {list(got.shape)}, recorded {list(expected.shape)}", tolerance)
    if expected.size == 0:
        return Comparison(name, 0.0, tolerance)
    try:
        a, b = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    except (TypeError, ValueError):
        return miss(name, f"values of type {got.dtype}, recorded {expected.dtype}", tolerance)
    if _is_discrete(got) and _is_discrete(expected) and not np.array_equal(got, expected):
        return Comparison(name, max(1.0, float(np.abs(a - b).max())), tolerance)  # also above 2**53
    same = (a == b) | (np.isnan(a) & np.isnan(b))  # also equal infinities
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(a - b))
    if np.isnan(gap).any():
        return miss(name, f"{int(np.isnan(gap).sum())} of {gap.size} values are not numbers", tolerance)
    return Comparison(name, float(gap.max()), tolerance)


def compare_leaf(name: str, got: Any, expected: Any) -> Comparison:
    """A string, number or list of a ``config.json`` against ours: equal or not."""
    got, expected = _plain(got), _plain(expected)
    if type(got) is type(expected) and got == expected:
        return Comparison(name, 0.0, 0.0)
    return miss(name, f"{_short(got)}, recorded {_short(expected)}")


def leaves(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All leaves of nested mappings and lists with their dotted paths; an empty container is a leaf."""
    if isinstance(config, Mapping) and config:
        items: Any = config.items()
    elif isinstance(config, Sequence) and not isinstance(config, str) and config:
        items = enumerate(config)
    else:
        yield path, config
        return
    for key, value in items:
        yield from leaves(value, f"{path}.{key}" if path else str(key))


def _is_discrete(x: np.ndarray) -> bool:
    return x.dtype.kind in "biu"


def _plain(x: Any) -> Any:
    if isinstance(x, (np.ndarray, np.generic)):
        return x.tolist()
    return list(x) if isinstance(x, tuple) else x


def _short(x: Any) -> str:
    text = repr(x)
    return text if len(text) <= 60 else f"{text[:57]}..."
