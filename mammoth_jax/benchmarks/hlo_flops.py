"""Operations of the matrix products that a compiled program executes on one device.

Against the hand count (``models/costs.py``) this shows work that devices repeat and work on padding.  It is a lower
bound: kernels are opaque to it, and products of very few rows the compiler writes as multiplications and sums.
"""

import math
import re

import numpy as np

from mammoth_jax.benchmarks.hlo import Executed, Program, dimensions, executed

_DIMENSIONS = re.compile(r"\w+\[([0-9,<=]*)\]")


def product_flops(program: Program, steps: int | None = None) -> int:
    """Two operations a multiplication, loops counted out; ``steps`` as for :func:`executed`."""
    count = {"convolution": _convolution, "dot": _dot}
    return sum(
        item.times * count[item.instruction.opcode](item)
        for item in executed(program, steps)
        if item.instruction.opcode in count
    )


def _shape(text: str) -> list[int]:
    found = _DIMENSIONS.search(text)
    return dimensions(found.group(1)) if found else []


def _dot(item: Executed) -> int:
    left = _shape(item.computation[item.instruction.operands[0]].shape)
    contracted = item.instruction.attribute("lhs_contracting_dims") or "{}"
    each = math.prod(left[i] for i in dimensions(contracted.strip("{}")))
    return 2 * math.prod(_shape(item.instruction.shape)) * each


def _convolution(item: Executed) -> int:
    """The TPU compiler writes every matrix product so, batch dimensions as strides of a window full of holes.

    Products with holes and with padding are not made, so along each dimension only pairs that meet are counted.
    """
    instruction = item.instruction
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.rest)
    assert labels is not None, f"no dim_labels: {instruction}"
    left, right, out = (
        dict(zip(names, _shape(shape), strict=True))
        for names, shape in zip(
            labels.groups(),
            [*(item.computation[name].shape for name in instruction.operands[:2]), instruction.shape],
            strict=True,
        )
    )
    window = _window(instruction.attribute("window") or "{}")
    flops = 2 * out["b"] * out["f"] * right["i"]
    for number, name in enumerate(sorted(name for name in out if name.isdigit())):
        flops *= _meetings(left[name], right[name], out[name], {key: v[number] for key, v in window.items()})
    return flops


def _window(text: str) -> dict[str, list[str]]:
    """``{size=3x3 pad=1_1x1_1}`` as lists, one entry a dimension."""
    fields = dict(field.split("=") for field in text.strip("{}").split())
    return {key: value.split("x") for key, value in fields.items()}


def _meetings(left: int, kernel: int, out: int, window: dict[str, str]) -> int:
    """Pairs of an output place and a kernel place that fall on an input place."""
    stride, holes, spread = (int(window.get(key, "1")) for key in ("stride", "lhs_dilate", "rhs_dilate"))
    before = int(window.get("pad", "0_0").split("_")[0])
    at = np.arange(out)[:, None] * stride + np.arange(kernel)[None] * spread - before
    return int(np.sum((at >= 0) & (at <= (left - 1) * holes) & (at % holes == 0)))
