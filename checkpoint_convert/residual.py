"""Names inside the residual convolution blocks that both picture decoders use."""

from checkpoint_convert.rules import Rule, conv, norm


def res_block(
    part: str, theirs: str, ours: str, *, shortcut: str | None = None, layers: range | None = None
) -> list[Rule]:
    """Two norms, two convolutions and, where the width changes, the 1x1 convolution that they call ``shortcut``."""
    out: list[Rule] = []
    for i in (1, 2):
        out += norm(part, f"{theirs}.norm{i}", f"{ours}.norm{i}", bias=True, layers=layers)
        out += conv(part, f"{theirs}.conv{i}", f"{ours}.conv{i}", layers)
    return out + (conv(part, f"{theirs}.{shortcut}", f"{ours}.shortcut") if shortcut else [])


def res_stack(
    part: str, theirs: str, ours: str, *, inputs: int, outputs: int, count: int, shortcut: str
) -> list[Rule]:
    """``count`` blocks ``theirs.0`` ...: the one that changes the width, then the stack of the equal ones."""
    changes = int(inputs != outputs)
    out = res_block(part, f"{theirs}.0", f"{ours}.first", shortcut=shortcut) if changes else []
    if count > changes:
        out += res_block(part, f"{theirs}.{{layer}}", f"{ours}.rest", layers=range(changes, count))
    return out
