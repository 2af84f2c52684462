"""What a stage that draws should show by its log: how far it is ahead of models that ignore what they are given."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mammoth_jax.core.errors import InputError
from mammoth_jax.training.curves import Curve, curves

_PANELS = {
    "next visual token, nats": ("ntp_visual", "ntp_visual_other_words", "visual_entropy"),
    "flow loss": ("flow", "flow_other_targets"),
}


@dataclasses.dataclass(frozen=True)
class Margin:
    """A number of a log, and the bound that it should hold: at least, or at most where ``below``."""

    name: str
    value: float
    bound: float
    formula: str
    below: bool = False

    @property
    def holds(self) -> bool:
        """Whether it does."""
        return self.value <= self.bound if self.below else self.value >= self.bound


def margins(records: Sequence[Mapping[str, Any]]) -> list[Margin]:
    """Those of the last evaluation, and the share of waiting of the whole run, as far as the log has them.

    Evaluations need ``evaluation_controls: [words, targets]``.  Time is that of the lines after the first, which
    compiles the step; evaluations do not count to it.

    Raises:
      InputError: the log has none.
    """
    evaluations = [r for r in records if any(name.startswith("evaluation/") for name in r)]
    last = {n.removeprefix("evaluation/"): x for n, x in (evaluations or [{}])[-1].items()}
    made = [_entropy(last), *(_words(last, name) for name in ("ntp_visual", "ntp_image")), _flow(last)]
    found = [margin for margin in (*made, _waiting(records[1:])) if margin is not None]
    if not found:
        raise InputError("the log has no evaluation of drawn pictures and no times; is it a joint stage's?")
    return found


def margin_panels(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Curve]]:
    """The curves that the margins compare, together, for :func:`mammoth_jax.training.curves.draw_panels`."""
    known = curves(records)
    panels = {
        title: {n: known[f"evaluation/{n}"] for n in names if f"evaluation/{n}" in known}
        for title, names in _PANELS.items()
    }
    return {title: panel for title, panel in panels.items() if panel}


def _entropy(last: Mapping[str, float]) -> Margin | None:
    if not {"ntp_visual", "visual_entropy"} <= last.keys():
        return None
    loss, entropy = last["ntp_visual"], last["visual_entropy"]
    formula = f"1 - ntp_visual {loss:.3f} / unigram entropy {entropy:.3f}"
    return Margin("visual tokens below their unigram entropy", 1 - loss / entropy, 0.30, formula)


def _words(last: Mapping[str, float], name: str) -> Margin | None:
    if not {name, f"{name}_other_words"} <= last.keys():
        return None
    true, wrong = last[name], last[f"{name}_other_words"]
    formula = f"with other words {wrong:.3f} - {true:.3f}"
    return Margin(f"{name} with true words below, nats", wrong - true, 0.1, formula)


def _flow(last: Mapping[str, float]) -> Margin | None:
    if not {"flow", "flow_other_targets"} <= last.keys():
        return None
    true, wrong = last["flow"], last["flow_other_targets"]
    formula = f"1 - {true:.4f} / with conditions of others {wrong:.4f}"
    return Margin("flow with true conditions below", 1 - true / wrong, 0.05, formula)


def _waiting(records: Sequence[Mapping[str, Any]]) -> Margin | None:
    data, compute, checkpoint = (
        float(np.sum([record.get(f"seconds/{part}", 0.0) for record in records]))
        for part in ("data", "compute", "checkpoint")
    )
    if not compute:
        return None
    step = data + compute + checkpoint
    formula = f"(data {data:.1f} s + checkpoint {checkpoint:.1f} s) / {step:.1f} s"
    return Margin("waiting and saving, of step time", (data + checkpoint) / step, 0.02, formula, below=True)
