"""Runs our code on recorded vector sets and says how far it is from each recorded number.

A set is a folder with ``cases.json``; see :mod:`mammoth_jax.evals.vectors.case` for its layout.  Everything a case
records under ``outputs`` is compared, and every leaf that a topic's ``COMPARED`` requires; what a runner does not
return is a miss.  A case whose name no topic knows is reported as not run.
"""

import dataclasses
import importlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.evals.vectors import TOPICS
from mammoth_jax.evals.vectors.case import Case, Runner
from mammoth_jax.evals.vectors.compare import Comparison, compare_leaf, compare_tensor, leaves, miss

Compared = Callable[[Mapping[str, Any]], Iterable[str]]
"""From a case's ``config.json`` to the paths of the leaves that must be compared."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of one case.  ``problem`` is why it has no comparisons (it raised, or is unknown)."""

    name: str
    comparisons: tuple[Comparison, ...] = ()
    seconds: float = 0.0
    problem: str | None = None
    known: bool = True

    @property
    def passed(self) -> bool:
        """Whether something was compared and everything was within tolerance."""
        return (
            self.known
            and self.problem is None
            and bool(self.comparisons)
            and all(c.passed for c in self.comparisons)
        )

    @property
    def worst(self) -> Comparison | None:
        """The comparison nearest to a miss, or the worst miss."""
        return max(self.comparisons, key=lambda c: (not c.passed, c.ratio), default=None)


def read_set(folder: Path) -> list[Case]:
    """The cases of one set, in the file's order.

    Raises:
      InputError: there is no readable ``cases.json``, or it does not describe cases.
    """
    file = folder / "cases.json"
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))["cases"]
        cases = [Case(folder, entry) for entry in entries]
        for case in cases:
            if not isinstance(case.name, str) or not isinstance(case.entry["outputs"], dict):
                raise TypeError("a case needs a name and outputs")
            _ = case.tolerances
    except OSError as error:
        raise InputError(
            f"cannot read {file}: {error.strerror or error}; give a folder that holds cases.json"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file} is not a set of cases: {type(error).__name__}: {_one_line(error)}"
        ) from error
    return cases


def known_runners(topics: Iterable[str] = TOPICS) -> tuple[dict[str, Runner], dict[str, Compared]]:
    """The runners of all topics, and which leaves of a case's configuration they must return."""
    runners: dict[str, Runner] = {}
    compared: dict[str, Compared] = {}
    for topic in topics:
        module = importlib.import_module(f"mammoth_jax.evals.vectors.{topic}")
        runners.update(module.RUNNERS)
        compared.update(getattr(module, "COMPARED", {}))
    return runners, compared


def check_case(case: Case, runner: Runner, required_leaves: Compared | None = None) -> Report:
    """Runs one case at the highest matmul precision and compares all that it records."""
    start = time.perf_counter()
    try:
        with jax.default_matmul_precision("highest"):
            got = {name: _value(value) for name, value in runner(case).items()}
        comparisons = tuple(_compare(case, got, required_leaves))
    except Exception as error:  # one broken case must not hide the others
        problem = f"{type(error).__name__}: {_one_line(error)}"
        return Report(case.name, seconds=time.perf_counter() - start, problem=problem)
    problem = None if comparisons else "the case records nothing that could be compared"
    return Report(case.name, comparisons, time.perf_counter() - start, problem)


def verify(
    cases: Iterable[Case], runners: Mapping[str, Runner], compared: Mapping[str, Compared]
) -> Iterator[Report]:
    """One report a case, as soon as it is done."""
    for case in cases:
        if case.name in runners:
            yield check_case(case, runners[case.name], compared.get(case.name))
        else:
            yield Report(case.name, problem="no code here runs this case", known=False)


def _compare(case: Case, got: Mapping[str, Any], required_leaves: Compared | None) -> Iterator[Comparison]:
    for name, tolerance in case.tolerances.items():
        if name not in case.expected:
            yield miss(name, "the set holds no recorded tensor of this name", tolerance)
        elif name not in got:
            yield miss(name, "not computed", tolerance)
        else:
            yield compare_tensor(name, got[name], case.expected[name], tolerance)
    required = set() if required_leaves is None else set(required_leaves(case.config))
    required |= {name[1:] for name in got if name.startswith("@")}
    recorded = dict(leaves(case.config)) if required else {}
    for path in sorted(required):
        if path not in recorded:
            yield miss(f"@{path}", "config.json holds no such leaf")
        elif f"@{path}" not in got:
            yield miss(f"@{path}", "not computed")
        else:
            yield compare_leaf(f"@{path}", got[f"@{path}"], recorded[path])


def _value(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, jax.Array) else value


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:297]}..."
